"""Weak annotations against masks with known answers, and what they must hold for any mask."""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fss_bench import ResultStore, create_backbone, create_dataset, create_method, evaluate
from fss_bench.annotations import (
    annotate,
    annotation_key,
    resize_labelled,
    support_annotation,
)
from fss_bench.cli import main
from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.geometry import place_mask
from fss_bench.items import wants
from fss_bench.leaderboard import build_rows
from fss_bench.loading import EpisodeLoader, load_steps, plan_steps
from fss_bench.protocols import ANNOTATIONS, PROTOCOLS, EvaluationProtocol
from fss_bench.report.sheet import episode_sheet
from fss_bench.setting import create_setting

Mask = NDArray[np.uint8]
STANDARD = PROTOCOLS["standard"]
KEY = ("annotation", 3, 0, 7, "cat", 0)
ROUND = np.ones((3, 3))


def parse(*rows: str) -> Mask:
    """A mask drawn by hand: `#` on the class, `.` off it, `?` 255."""
    return np.array([[{"#": 1, ".": 0, "?": 255}[c] for c in row] for row in rows], np.uint8)


def masks(most: int = 40) -> st.SearchStrategy[Mask]:
    """Masks of any size, from noise to broad regions, of 1 to 3 labels."""

    def make(height: int, width: int, grain: int, labels: list[int], seed: int) -> Mask:
        coarse = (-(-height // grain), -(-width // grain))
        small = np.random.RandomState(seed).choice(labels, coarse).astype(np.uint8)
        return small.repeat(grain, 0).repeat(grain, 1)[:height, :width]

    labels = st.lists(st.sampled_from([0, 1, 255]), min_size=1, max_size=3)
    sides = st.integers(1, most)
    return st.builds(make, sides, sides, st.integers(1, 20), labels, st.integers(0, 2**31))


def disk(height: int = 375, width: int = 500) -> Mask:
    y, x = np.indices((height, width))
    return (np.hypot(y - height / 2, x - width / 3) < height / 4).astype(np.uint8)


def test_a_mask_is_left_as_it_is() -> None:
    mask = parse("#.?", "..#")
    assert np.array_equal(annotate(mask, "mask"), mask)


def test_a_box_of_one_object_covers_its_ignore_and_leaves_that_outside() -> None:
    mask = parse(
        "......",
        ".#....",
        ".##?..",
        ".?.#.?",
        "......",
    )
    assert np.array_equal(
        annotate(mask, "box"),
        parse(
            "......",
            ".###..",
            ".###..",
            ".###.?",
            "......",
        ),
    )


def test_boxes_of_smaller_objects_are_unlabelled_where_the_largest_has_none() -> None:
    mask = parse(
        "#...#..",
        "#...#..",
        "####..#",
        "......#",
        ".......",
    )
    # a corner joins the column of two to the L: one object of eight, and one of two
    assert np.array_equal(
        annotate(mask, "box"),
        parse(
            "#####..",
            "#####..",
            "#####.?",
            "......?",
            ".......",
        ),
    )


def test_a_box_inside_the_largest_belongs_to_it() -> None:
    mask = parse("#####", "#...#", "#.#.#", "#...#", "#####")
    assert (annotate(mask, "box") == 1).all()


def test_of_boxes_that_overlap_the_largest_object_wins() -> None:
    mask = parse("###.", "#...", "#.##")
    assert np.array_equal(annotate(mask, "box"), parse("###.", "###.", "###?"))


def test_of_equal_objects_the_first_counts() -> None:
    assert np.array_equal(annotate(parse("#.#"), "box"), parse("#.?"))


def test_points_are_as_many_as_asked_on_and_off_the_class() -> None:
    mask = disk()
    for count in (1, 5, 40):
        found = annotate(mask, "points", KEY, count)
        assert np.bincount(found.ravel(), minlength=256)[[0, 1]].tolist() == [count, count]


def test_a_region_of_fewer_pixels_gives_all_of_them() -> None:
    mask = parse("#.?", "#..", "...")
    assert np.array_equal(annotate(mask, "points", KEY, 100), mask)
    few = annotate(mask, "points", KEY, 3)
    assert [(few == label).sum() for label in (1, 0)] == [2, 3]


def test_points_fall_everywhere_alike() -> None:
    mask = parse("##..", "##..")
    times = sum((annotate(mask, "points", (i,), 1) != 255).astype(int) for i in range(2000))
    assert times.sum() == 4000
    assert (abs(times - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_more_points_keep_the_first_ones() -> None:
    few, many = (annotate(disk(), "points", KEY, n) for n in (3, 9))
    assert np.array_equal(many[few != 255], few[few != 255])


def test_a_scribble_in_corridors_walks_along_them() -> None:
    found = annotate(parse("??????", "?####?", "??????", "?.??.?"), "scribble", KEY)
    ends = {tuple(row) for row in np.argwhere(found == 1).tolist()}
    # from any place to the end that is farther: three or four of the four cells
    assert ends in ({(1, x) for x in r} for r in (range(1, 5), range(2, 5), range(1, 4)))
    # parts off the class do not touch: the first of the equal ones
    assert np.argwhere(found == 0).tolist() == [[3, 1]]


def test_a_scribble_goes_round_a_corner() -> None:
    mask = np.full((200, 200), 255, np.uint8)
    mask[20:180, 20:40] = mask[160:180, 20:180] = 1
    curves = [np.argwhere(annotate(mask, "scribble", (i,)) == 1) for i in range(20)]
    corner = [c for c in curves if c[:, 0].min() < 100 and c[:, 1].max() > 100]
    assert corner, "none of the starts is on one arm with the farther end on the other"


def test_a_scribble_does_not_stay_in_the_one_broad_place() -> None:
    mask = np.full((100, 420), 255, np.uint8)
    mask[40:58, 5:23] = 1  # cells of 9 px fit here only
    mask[46:52, 5:415] = 1
    for i in range(10):
        columns = np.nonzero(annotate(mask, "scribble", (i,)) == 1)[1]
        assert np.ptp(columns) > 180


def test_a_scribble_takes_the_largest_part_and_keeps_off_the_border() -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[10:30, 10:30] = 1
    mask[60:140, 100:280] = 1
    found = annotate(mask, "scribble", KEY)
    assert (found[:50] != 1).all()
    rows, _ = np.nonzero(found == 1)
    depth = np.median(np.minimum(rows - 60, 139 - rows))
    assert depth > 10


@pytest.mark.parametrize(("side", "width"), [(64, 1), (200, 3), (500, 5), (1000, 11)])
def test_a_scribble_is_wider_in_a_larger_image(side: int, width: int) -> None:
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    for label in (0, 1):
        curve = annotate(mask, "scribble", KEY) == label
        thickness = 2 * np.percentile(ndimage.distance_transform_cdt(curve, "taxicab")[curve], 99)
        assert abs(thickness - 1 - width) <= 2
        extent = max(np.ptp(axis) for axis in np.nonzero(curve))
        assert extent > side / 8, "a dot is no scribble"


@pytest.mark.parametrize("kind", ["scribble", "points"])
@given(mask=masks(), key=st.integers(0, 99))
def test_labels_lie_in_their_region_and_every_region_has_one(
    kind: str, mask: Mask, key: int
) -> None:
    before = mask.copy()
    found = annotate(mask, kind, (key,), 4)
    assert np.array_equal(mask, before)
    assert (found.dtype, found.shape) == (np.uint8, mask.shape)
    assert set(np.unique(found)) <= {0, 1, 255}
    for label in (0, 1):
        assert (mask[found == label] == label).all()
        assert (found == label).any() == (mask == label).any()


@given(mask=masks(90), key=st.integers(0, 99))
def test_a_scribble_hangs_together_in_one_part(mask: Mask, key: int) -> None:
    found = annotate(mask, "scribble", (key,))
    for label in (0, 1):
        assert ndimage.label(found == label, ROUND)[1] <= 1
        parts, _ = ndimage.label(mask == label)
        sizes = np.bincount(parts.ravel())[1:]
        for part in np.unique(parts[found == label]):
            assert sizes[part - 1] == sizes.max()


@given(seed=st.integers(0, 2**31), height=st.integers(200, 400), grain=st.integers(2, 60))
def test_a_wide_scribble_hangs_together_too(seed: int, height: int, grain: int) -> None:
    coarse = np.random.RandomState(seed).choice([0, 1], (400 // grain + 1, 500 // grain + 1))
    mask = coarse.repeat(grain, 0).repeat(grain, 1)[:height, :500].astype(np.uint8)
    found = annotate(mask, "scribble", (seed,))
    for label in (0, 1):
        assert (mask[found == label] == label).all()
        assert ndimage.label(found == label, ROUND)[1] == 1


@given(mask=masks())
def test_a_box_covers_the_largest_object_and_background_is_never_an_object(mask: Mask) -> None:
    found = annotate(mask, "box")
    assert set(np.unique(found)) <= {0, 1, 255}
    assert (found[mask == 1] != 0).all()
    assert (mask[found == 0] == 0).all()
    rows, columns = np.nonzero(found == 1)
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) if len(rows) else True
    objects, count = ndimage.label(mask == 1, ROUND)
    covered = max(((objects == i + 1) & (found == 1)).sum() for i in range(count)) if count else 0
    assert covered == max((objects == i + 1).sum() for i in range(count)) if count else True


@pytest.mark.parametrize(
    ("mask", "box", "sparse"),
    [
        (parse("...", "..."), parse("...", "..."), {0}),
        (parse("###", "###"), parse("###", "###"), {1}),
        (parse("???", "???"), parse("???", "???"), set()),
        (parse("..", ".#"), parse("..", ".#"), {0, 1}),
        (parse("#"), parse("#"), {1}),
    ],
    ids=["empty", "full", "all 255", "one pixel", "a single one"],
)
def test_odd_masks(mask: Mask, box: Mask, sparse: set[int]) -> None:
    assert np.array_equal(annotate(mask, "box"), box)
    for kind in ("scribble", "points"):
        found = annotate(mask, kind, KEY, 2)
        assert set(np.unique(found)) - {255} == sparse
        assert (mask[found != 255] == found[found != 255]).all()


@pytest.mark.parametrize("kind", ANNOTATIONS)
def test_the_key_decides(kind: str) -> None:
    mask = disk()
    assert np.array_equal(annotate(mask, kind, KEY), annotate(mask, kind, KEY))
    different = len({annotate(mask, kind, (i,)).tobytes() for i in range(10)})
    assert different == (10 if kind in ("scribble", "points") else 1)


def test_published_annotations_stay() -> None:
    # a change of these bytes is another protocol: say so in the changelog
    points = np.argwhere(annotate(parse(*["####....", "####...."] * 3), "points", KEY, 2) == 1)
    assert points.tolist() == [[2, 0], [3, 0]]
    found = annotate(disk(60, 80), "scribble", KEY)
    ends = [np.argwhere(found == label)[[0, -1]].tolist() for label in (1, 0)]
    assert ends == [[[25, 14], [34, 41]], [[8, 19], [44, 79]]]


def test_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="annotation 'boxes': did you mean 'box'"):
        annotate(disk(), "boxes")


def test_resizing_by_hand() -> None:
    mask = parse("#??.", "?...", "????", "??.?")
    assert np.array_equal(resize_labelled(mask, (2, 2)), parse("#.", "?."))
    assert np.array_equal(resize_labelled(mask, (4, 4)), mask)
    assert np.array_equal(resize_labelled(parse("#?"), (1, 4)), parse("##??"))
    assert np.array_equal(resize_labelled(parse("#?", ".?", "??"), (1, 3)), parse("##?"))
    assert np.array_equal(resize_labelled(parse("??#??"), (1, 2)), parse("#?"))


@given(mask=masks(), height=st.integers(1, 60), width=st.integers(1, 60))
def test_resizing_against_a_loop(mask: Mask, height: int, width: int) -> None:
    def sources(length: int, out: int, i: int) -> list[int]:
        if out >= length:
            return [i * length // out]
        return [y for y in range(length) if y * out // length == i]

    h, w = mask.shape
    found = resize_labelled(mask, (height, width))
    assert found.dtype == np.uint8
    for i in {0, height // 2, height - 1}:
        for j in {0, width // 3, width - 1}:
            cell = mask[np.ix_(sources(h, height, i), sources(w, width, j))]
            assert found[i, j] == (1 if (cell == 1).any() else 0 if (cell == 0).any() else 255)


@pytest.mark.parametrize("shape", [(64, 64), (33, 417), (1, 1)])
def test_labels_survive_a_smaller_square(shape: tuple[int, int]) -> None:
    for kind in ("scribble", "points"):
        found = annotate(disk(), kind, KEY)
        small = resize_labelled(found, shape)
        for y, x in np.argwhere(found == 1):
            assert small[y * shape[0] // 375, x * shape[1] // 500] == 1
        for y, x in np.argwhere(found == 0):
            assert small[y * shape[0] // 375, x * shape[1] // 500] != 255
        if shape == (64, 64):  # far fewer points would be left by nearest, and the curve is whole
            assert ndimage.label(small == 1, ROUND)[1] == (1 if kind == "scribble" else 5)


# keys


class Noise:
    """A dataset of masks alone: two images of blocks of four classes and 255."""

    def __init__(self) -> None:
        draws = (np.random.RandomState(i).choice([0, 1, 2, 3, 4, 255], (9, 12)) for i in (0, 1))
        self.labels = [draw.astype(np.uint8).repeat(3, 0).repeat(3, 1) for draw in draws]

    def load_mask(self, image: str, class_id: int) -> Mask:
        labels = self.labels[int(image)]
        return np.where(labels == 255, np.uint8(255), (labels == class_id).astype(np.uint8))


NOISE: Any = Noise()
LITERAL = {
    rule: get_args(kind)
    for rule, kind in get_type_hints(EvaluationProtocol).items()
    if get_origin(kind) is Literal
}
REACHING = (
    "image_resize",
    "mask_resize",
    "support_ignore",
    "support_others",
    "annotation",
    "annotation_points",
)
"""Rules that an annotation depends on."""
Support = tuple[EpisodeSpec, int, int, EvaluationProtocol]


@cache
def shown(spec: EpisodeSpec, way: int, shot: int, protocol: EvaluationProtocol) -> bytes:
    """What a method sees of a support's annotation."""
    mask = support_annotation(NOISE, protocol, spec, way, shot)
    side = 64 if protocol.image_resize == "native" else 23
    return place_mask(mask, side, protocol).numpy().tobytes()


@st.composite
def supports(draw: st.DrawFn, rules: Sequence[str] = REACHING) -> Support:
    ways, shots = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    classes = draw(st.permutations(range(1, 4)))[:ways]
    images = draw(st.lists(st.sampled_from("01"), min_size=ways * shots, max_size=ways * shots))
    rows = tuple(tuple(images[way * shots : (way + 1) * shots]) for way in range(ways))
    index, fold = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    chosen = {rule: draw(st.sampled_from(LITERAL.get(rule, (2, 5)))) for rule in rules}
    return (
        EpisodeSpec(index, fold, tuple(classes), "0", rows),
        draw(st.integers(0, ways - 1)),
        draw(st.integers(0, shots - 1)),
        EvaluationProtocol("own", **chosen),
    )


@given(st.lists(supports(), min_size=12, max_size=12))
def test_supports_of_one_key_are_annotated_alike(some: list[Support]) -> None:
    seen: dict[tuple[str, str], bytes] = {}
    for spec, way, shot, protocol in some:
        key = spec.supports[way][shot], annotation_key(spec, way, shot, protocol)
        found = shown(spec, way, shot, protocol)
        assert seen.setdefault(key, found) == found


@given(
    st.lists(supports([]), min_size=12, max_size=12),
    st.fixed_dictionaries({rule: st.sampled_from(LITERAL.get(rule, [2])) for rule in REACHING}),
)
def test_supports_that_are_annotated_alike_have_one_key(
    some: list[Support], rules: dict[str, Any]
) -> None:
    """The converse, under one protocol: in these images no two masks are equal by chance."""
    protocol, seen = EvaluationProtocol("own", **rules), dict[tuple[str, bytes], str]()
    for spec, way, shot, _ in some:
        key = annotation_key(spec, way, shot, protocol)
        found = spec.supports[way][shot], shown(spec, way, shot, protocol)
        assert seen.setdefault(found, key) == key


@pytest.mark.parametrize("kind", ANNOTATIONS)
@pytest.mark.parametrize("rule", sorted(LITERAL.keys() - {"annotation"}))
def test_a_rule_that_changes_annotations_changes_their_keys(rule: str, kind: str) -> None:
    """Whatever rules there will be."""
    spec = EpisodeSpec(0, 0, (1, 2), "0", (("1",), ("0",)))
    protocols = [
        EvaluationProtocol("own", **{"annotation": kind, rule: value}) for value in LITERAL[rule]
    ]
    for way in (0, 1):
        keys = [annotation_key(spec, way, 0, protocol) for protocol in protocols]
        if rule in REACHING:
            assert len(set(keys)) == len(protocols)
        else:
            assert len(set(keys)) == 1
            assert len({shown(spec, way, 0, protocol) for protocol in protocols}) == 1


def test_every_rule_of_a_key_changes_some_annotation() -> None:
    spec = EpisodeSpec(0, 0, (1, 2), "0", (("1",), ("0",)))
    for rule in REACHING:
        kind = "points" if rule == "annotation_points" else "mask"
        protocols = [
            EvaluationProtocol("own", **{"annotation": kind, rule: value})
            for value in LITERAL.get(rule, (2, 5))
        ]
        assert len({shown(spec, 0, 0, protocol) for protocol in protocols}) > 1, rule
        assert len({annotation_key(spec, 0, 0, one) for one in protocols}) == len(protocols), rule


def test_keys_by_hand() -> None:
    def key(
        *classes: int, way: int = 0, index: int = 0, shot: int = 0, fold: int = 0, **rules: Any
    ) -> str:
        spec = EpisodeSpec(index, fold, classes, "0", (("1", "1"),) * len(classes))
        return annotation_key(spec, way, shot, STANDARD.replace_rules(rules))

    # a mask is the same in every episode and shot, whatever the other ways are
    assert key(1) == key(1, index=5, shot=1, fold=1) == key(1, 2) == key(3, 1, way=1)
    assert key(1) != key(2)
    # but where the other ways are left out: then their order alone is nothing
    excluded = {"support_others": "excluded"}
    assert key(1, 2, **excluded) == key(2, 1, way=1, index=3, **excluded)
    assert len({key(1, 2, **excluded), key(1, 3, **excluded), key(2, 1, **excluded)}) == 3
    # points are drawn anew
    points = {"annotation": "points"}
    drawn = [key(1, **points), key(1, index=1, **points), key(1, shot=1, **points)]
    assert len({*drawn, key(1, fold=1, **points)}) == 4
    assert key(1, 2, **points) == key(1, **points)


@pytest.fixture
def dataset(make_folder: Callable[..., Path]) -> SegDataset:
    """Each class on the left half; in c1_0, off the edge and with a void of 255 beside it."""
    root = make_folder(classes=4, per_class=3)
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 2:20] = 1
    labels[:, 20:40] = 255
    Image.fromarray(labels).save(root / "masks" / "c1_0.png")
    return create_dataset("folder", root)


SPECS = [EpisodeSpec(i, 0, (1, 2), "c1_1", (("c1_0", "c1_2"), ("c2_0", "c2_0"))) for i in range(6)]


def loader(
    dataset: SegDataset, specs: Sequence[EpisodeSpec] = SPECS, size: int = 16, **rules: Any
) -> EpisodeLoader:
    protocol = STANDARD.replace_rules(rules)
    steps = plan_steps([wants(spec, protocol, False) for spec in specs], 2)
    return EpisodeLoader(dataset, protocol, steps, size)


@pytest.mark.parametrize("kind", ["box", "scribble", "points"])
def test_workers_and_order_change_nothing(dataset: SegDataset, kind: str) -> None:
    def loaded(specs: Sequence[EpisodeSpec], workers: int) -> dict[int, bytes]:
        steps = load_steps(loader(dataset, specs, annotation=kind), workers)
        return {
            spec.index: masks.numpy().tobytes()
            for step, data in steps
            for spec, masks in zip(step.specs, data.support_masks, strict=True)
        }

    alone = loaded(SPECS, 0)
    assert loaded(SPECS, 2) == loaded(SPECS[::-1], 2) == loaded(SPECS[::-1], 0) == alone
    assert len(set(alone.values())) == (1 if kind == "box" else len(SPECS))
    one = loader(dataset, annotation=kind).episode(SPECS[4]).support_masks
    assert one.numpy().tobytes() == alone[4]


@pytest.mark.parametrize("kind", ["scribble", "points"])
def test_every_part_of_the_spec_counts(dataset: SegDataset, kind: str) -> None:
    protocol = STANDARD.replace_rules({"annotation": kind})

    def found(
        index: int = 0, fold: int = 0, class_id: int = 3, image: str = "c1_1", shot: int = 0
    ) -> bytes:
        spec = EpisodeSpec(index, fold, (class_id,), "c1_0", ((image, image),))
        return support_annotation(dataset, protocol, spec, 0, shot).tobytes()

    # neither image shows class 3 or 4: all these masks are equal
    changes: list[dict[str, Any]] = [
        {},
        {"index": 1},
        {"fold": 1},
        {"class_id": 4},
        {"image": "c1_2"},
        {"shot": 1},
    ]
    assert len({found(**change) for change in changes}) == 6
    assert found() == found()


def test_fewer_shots_are_annotated_alike(dataset: SegDataset) -> None:
    one = EpisodeSpec(0, 0, (1,), "c1_1", (("c1_0",),))
    two = EpisodeSpec(0, 0, (1,), "c1_1", (("c1_0", "c1_2"),))
    found = [loader(dataset, annotation="points").episode(s).support_masks for s in (one, two)]
    assert torch.equal(found[0][0, 0], found[1][0, 0])


@pytest.mark.parametrize("kind", ["scribble", "points"])
def test_void_follows_its_rule_and_unlabelled_stays(dataset: SegDataset, kind: str) -> None:
    void = dataset.load_mask("c1_0", 1) == 255
    rules = {"annotation": kind, "annotation_points": 30}
    kept, background = (
        [
            support_annotation(dataset, protocol, spec, 0, 0)
            for spec in SPECS
            for protocol in [STANDARD.replace_rules({**rules, "support_ignore": rule})]
        ]
        for rule in ("excluded", "background")
    )
    assert all((a[void] == 255).all() for a in kept)
    assert any((a[void] == 0).any() for a in background)
    assert all((a == 255).mean() > 0.5 for a in (*kept, *background))


def test_void_under_a_box_follows_its_rule(dataset: SegDataset) -> None:
    for rule, border in (("excluded", 255), ("background", 0)):
        masks = loader(dataset, annotation="box", support_ignore=rule).episode(SPECS[0])
        assert masks.support_masks[0, 0, 3].tolist() == [0] + [1] * 4 + [border] * 5 + [0] * 6


def test_points_of_a_large_mask_reach_the_square(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=4, per_class=3)
    for i in range(3):
        Image.fromarray(np.zeros((375, 500, 3), np.uint8)).save(root / "images" / f"c1_{i}.jpg")
        Image.fromarray(disk()).save(root / "masks" / f"c1_{i}.png")
    dataset = create_dataset("folder", root)
    specs = [EpisodeSpec(i, 0, (1,), "c1_1", (("c1_0",),)) for i in range(5)]
    for spec in specs:
        masks = loader(dataset, specs, 64, annotation="points", annotation_points=1)
        found = masks.episode(spec).support_masks
        assert [(found == label).sum() for label in (0, 1)] == [1, 1]


def test_the_label_tells_and_the_default_does_not() -> None:
    assert STANDARD.replace_rules({"annotation": "mask"}).label == "standard"
    assert STANDARD.replace_rules({"annotation": "box"}).label == "standard+annotation=box"
    points = STANDARD.replace_rules({"annotation": "points", "annotation_points": 20})
    assert points.label == "standard+annotation=points+annotation_points=20"


def test_points_are_not_counted_where_there_are_none(dataset: SegDataset) -> None:
    rules = {"annotation": "box", "annotation_points": 3}
    with pytest.raises(FssBenchError, match="annotation_points=3: the annotation is box"):
        create_setting(dataset, rules={**rules, "min_pixels": 1})
    mine = EvaluationProtocol("mine", annotation="points", annotation_points=3, min_pixels=1)
    assert create_setting(dataset, mine).protocol.annotation_points == 3


def test_the_annotation_changes_no_episode(dataset: SegDataset) -> None:
    def digest(kind: str) -> str:
        return create_setting(dataset, rules={"min_pixels": 1, "annotation": kind}).sha256

    assert len({digest(kind) for kind in ANNOTATIONS}) == 1


def test_runs_are_told_apart_and_never_ranked_together(tmp_path: Path) -> None:
    store, shapes = ResultStore(tmp_path), create_dataset("shapes")
    backbone = create_backbone("tf_efficientnet_lite0", weights="packaged")
    method = create_method("panet", backbone, input_size=64)
    runs = {
        kind: evaluate(method, shapes, episodes=2, rules={"annotation": kind}, store=store)
        for kind in ANNOTATIONS
    }
    assert len({run.record["run_id"] for run in runs.values()}) == 4
    counts = {tuple(run.episodes["inter_fg"]) for run in runs.values()}
    assert len(counts) == 4, "the method saw the same supports"
    labels = {kind: run.record["protocol"]["label"] for kind, run in runs.items()}
    assert labels["mask"] == "standard+episodes=2"
    assert labels["box"] == "standard+annotation=box+episodes=2"
    rows = build_rows(runs.values())
    assert len({row.group for row in rows}) == len(rows) == 4


def drawn(dataset: SegDataset, **rules: Any) -> NDArray[np.uint8]:
    spec = EpisodeSpec(0, 0, (1,), "c1_1", (("c1_0",),))
    protocol = STANDARD.replace_rules(rules)
    return np.asarray(episode_sheet(dataset, [spec], tile=64, protocol=protocol))[18:, :64]


def test_a_sheet_shows_the_annotation(dataset: SegDataset) -> None:
    sheets = {kind: drawn(dataset, annotation=kind).tobytes() for kind in ANNOTATIONS}
    assert len(set(sheets.values())) == 4
    red, black = np.array([255, 64, 96]), np.array([20, 20, 20])
    for kind in ("scribble", "points"):
        picture = drawn(dataset, annotation=kind)
        for colour in (red, black):
            share = (picture == colour).all(axis=2).mean()
            assert 0.002 < share < 0.2, "marks must show, and be no region"


Command = Callable[..., str]


@pytest.fixture
def fss_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command here; returns what it says on stderr."""

    def run(*words: object, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["fss-bench", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        errors = capsys.readouterr().err
        assert stopped.value.code == status, errors
        return errors

    return run


def test_on_the_command_line(tmp_path: Path, fss_bench: Command) -> None:
    show = ("data", "show", "--fold", 0, "--episodes", 2, "-o")
    for name, words in {
        "short": ("--annotation", "scribble"),
        "rule": ("--rule", "annotation=scribble"),
        "plain": (),
    }.items():
        fss_bench(*show, tmp_path / f"{name}.png", *words)
    short, rule, plain = ((tmp_path / f"{n}.png").read_bytes() for n in ("short", "rule", "plain"))
    assert short == rule != plain
    small = "--backbone tf_efficientnet_lite0 --weights none --option input_size=32".split()
    line = ("evaluate", "panet", "--fold", 0, "--episodes", 2, *small, "--output", tmp_path / "r")
    fss_bench(*line, "--annotation", "points", "--rule", "annotation_points=9")
    (file,) = (tmp_path / "r" / "runs").rglob("run.json")
    assert '"standard+annotation=points+annotation_points=9+episodes=2"' in file.read_text()


@pytest.mark.parametrize("verb", [("evaluate", "panet"), ("data", "show")])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--annotation boxes", "unknown annotation 'boxes': did you mean 'box'?"),
        (
            "--annotation box --rule annotation=points",
            "--annotation box and --rule annotation=points: give one",
        ),
        (
            "--rule annotation=boxes",
            "rule annotation='boxes': it must be one of mask, box, scribble, points",
        ),
        (
            "--annotation points --rule annotation_points=0",
            "rule annotation_points=0: it must be 1 or more",
        ),
    ],
)
def test_a_mistake_is_one_line(
    verb: tuple[str, ...], words: str, message: str, fss_bench: Command
) -> None:
    assert fss_bench(*verb, *words.split(), status=2) == f"error: {message}\n"
