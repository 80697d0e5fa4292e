"""The plan of what to load when, and what a loaded episode holds."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fss_bench.dataset import SegDataset, create_dataset
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError
from fss_bench.geometry import resize_nearest
from fss_bench.items import Item, Want, query_item, support_item, wants
from fss_bench.loading import (
    EpisodeLoader,
    load_square,
    load_steps,
    plan_steps,
)
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol
from fss_bench.workers import _print_faults

STANDARD = PROTOCOLS["standard"]


def spec(index: int, *images: str) -> EpisodeSpec:
    return EpisodeSpec(index, 0, (1 + index % 2,), images[0], (tuple(images[1:]),))


def wanted(specs: Sequence[EpisodeSpec], parts: bool = False) -> list[list[Want]]:
    return [wants(one, STANDARD, parts) for one in specs]


def episode_lists(images: int = 12) -> st.SearchStrategy[list[EpisodeSpec]]:
    names = st.sampled_from([f"i{i}" for i in range(images)])
    lists = st.lists(st.lists(names, min_size=2, max_size=4), min_size=1, max_size=30)
    return lists.map(lambda all_of: [spec(i, *chosen) for i, chosen in enumerate(all_of)])


def items_of(some: Sequence[Sequence[Want]]) -> list[Item]:
    return list(dict.fromkeys(want.item for one in some for want in one))


@given(episode_lists(), st.integers(1, 5), st.booleans())
def test_steps_hold_all_episodes_in_order_and_what_they_need(
    specs: list[EpisodeSpec], batch: int, parts: bool
) -> None:
    steps = plan_steps(wanted(specs, parts), batch)
    assert [one for step in steps for one in step.specs] == specs
    assert {len(step.specs) for step in steps[:-1]} <= {batch}
    assert 1 <= len(steps[-1].specs) <= batch
    for step in steps:
        assert list(step.needs) == items_of(wanted(step.specs, parts))


@given(
    episode_lists(),
    st.integers(1, 4),
    st.booleans(),
    st.integers(1, 6),
    episode_lists(),
    st.sets(st.integers(0, 200)),
)
def test_every_image_is_loaded_once_when_it_is_first_needed_or_to_fill_a_group(
    specs: list[EpisodeSpec],
    batch: int,
    parts: bool,
    group: int,
    coming: list[EpisodeSpec],
    chosen: set[int],
) -> None:
    """Under any rules: with parts or whole images, some of them there, passes to come."""
    now, later = wanted(specs, parts), wanted(coming, parts)
    every = items_of([*now, *later])
    there = {item for n, item in enumerate(every) if n in chosen}
    steps = plan_steps(now, batch, there, chain.from_iterable(later), group)
    first: dict[str, int] = {}
    for number, step in enumerate(steps):
        for item in step.needs:
            if item not in there:
                first.setdefault(item.image, number)
    loaded = [(image, number) for number, step in enumerate(steps) for image in step.load]
    assert [image for image, _ in loaded] == list(first)  # each once, in the order of need
    assert all(number <= first[image] for image, number in loaded)
    done = 0
    for number, step in enumerate(steps):
        done += len(step.load)
        assert done % group == 0 or done == len(first), "a group is not full"
        # no sooner than the group that it fills is needed
        due = sum(1 for image in first if first[image] <= number)
        assert done - due < group
        made = [want.item for want in step.make]
        assert len(set(made)) == len(made)
        assert set(made) == {i for i in every if i.image in step.load and i not in there}


def test_a_plan_by_hand() -> None:
    specs = [spec(0, "a", "b"), spec(1, "c", "a"), spec(2, "b", "d"), spec(3, "e", "a")]
    plain = plan_steps(wanted(specs), 1)
    assert [step.load for step in plain] == [["a", "b"], ["c"], ["d"], ["e"]]
    ahead = plan_steps(wanted(specs), 1, group=4)
    assert [step.load for step in ahead] == [["a", "b", "c", "d"], [], [], ["e"]]
    kept = plan_steps(wanted(specs), 2, there=[Item("b"), Item("e")], group=2)
    assert [step.load for step in kept] == [["a", "c"], ["d"]]


def test_a_part_is_made_as_the_first_that_needs_it_says() -> None:
    box = STANDARD.replace_rules({"annotation": "box"})
    specs = [spec(2, "a", "b"), spec(4, "b", "a")]
    later = [want for one in specs for want in wants(one, box, True)]
    (step,) = plan_steps(wanted(specs, True), 2, later=later)
    assert step.load == ["a", "b"]
    found = [(w.item.image, w.item.role, w.spec, w.way, w.shot, w.protocol) for w in step.make]
    assert found == [
        ("a", "query", specs[0], -1, -1, STANDARD),
        ("a", "support", specs[1], 0, 0, STANDARD),
        ("a", "support", specs[1], 0, 0, box),
        ("b", "support", specs[0], 0, 0, STANDARD),
        ("b", "query", specs[1], -1, -1, STANDARD),
        ("b", "support", specs[0], 0, 0, box),
    ]


def test_no_episodes_make_no_steps() -> None:
    assert plan_steps([], 4) == []
    assert plan_steps([], 4, later=wants(spec(0, "a", "b"), STANDARD, False)) == []


def gather(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Legacy nearest by its definition, in torch's precision."""

    def source(n: int) -> list[int]:
        scale = np.float32(n) / np.float32(size)
        return [min(int(np.float32(i) * scale), n - 1) for i in range(size)]

    return mask[source(mask.shape[0])][:, source(mask.shape[1])]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 100), st.integers(0, 2**31))
def test_resize_nearest_is_a_gather(height: int, width: int, size: int, seed: int) -> None:
    mask = np.random.RandomState(seed).randint(0, 256, (height, width)).astype(np.uint8)
    resized = resize_nearest(torch.from_numpy(mask), (size, size))
    assert resized.dtype == torch.uint8
    assert np.array_equal(resized.numpy(), gather(mask, size))


@pytest.mark.parametrize(("length", "size"), [(500, 417), (375, 417), (333, 473), (640, 384)])
def test_resize_nearest_takes_floor_of_i_in_over_out(length: int, size: int) -> None:
    row = np.arange(length)
    found = [
        resize_nearest(torch.from_numpy(part.astype(np.uint8))[None].repeat(2, 1), (size, size))[0]
        for part in (row // 256, row % 256)
    ]
    index = 256 * found[0].numpy().astype(int) + found[1].numpy()
    assert index.tolist() == [i * length // size for i in range(size)]


def test_a_mask_of_four_pixels() -> None:
    mask = torch.tensor([[0, 1], [255, 2]], dtype=torch.uint8)
    assert resize_nearest(mask, (3, 3)).tolist() == [[0, 0, 1], [0, 0, 1], [255, 255, 2]]
    assert resize_nearest(mask, (1, 1)).tolist() == [[0]]


LABELS = np.zeros((48, 64), np.uint8)
LABELS[:, :20] = 1
LABELS[:10, 30:] = 2
LABELS[:, 20:24] = 255


@pytest.fixture
def dataset(make_folder: Callable[..., Path]) -> SegDataset:
    """Image c1_0 shows classes 1 and 2 with a border of 255; the others as the fixture makes."""
    root = make_folder(classes=4, per_class=3)
    Image.fromarray(LABELS).save(root / "masks" / "c1_0.png")
    return create_dataset("folder", root)


def loader(
    dataset: SegDataset,
    specs: Sequence[EpisodeSpec] = (),
    size: int = 16,
    parts: bool = False,
    **rules: Any,
) -> EpisodeLoader:
    protocol: EvaluationProtocol = STANDARD.replace_rules(rules)
    steps = plan_steps([wants(one, protocol, parts) for one in specs], 2)
    return EpisodeLoader(dataset, protocol, steps, size, parts=parts)


QUERY = EpisodeSpec(0, 0, (1,), "c1_0", (("c1_1",),))


def test_a_query_mask_at_the_original_size(dataset: SegDataset) -> None:
    mask = loader(dataset).query_mask(QUERY).numpy()
    expected = np.zeros((48, 64), np.uint8)  # class 2 is background in an episode of class 1
    expected[:, :20] = 1
    expected[:, 20:24] = 255
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected)


def test_a_query_mask_at_the_input_size(dataset: SegDataset) -> None:
    whole = loader(dataset).query_mask(QUERY).numpy()
    small = loader(dataset, iou_at="input").query_mask(QUERY).numpy()
    # 48 rows and 64 columns to 16: every third row, every fourth column
    assert np.array_equal(small, whole[::3, ::4])
    assert {0, 1, 255} == set(small.ravel().tolist())


def test_a_query_mask_holds_way_numbers_not_class_ids(dataset: SegDataset) -> None:
    two = EpisodeSpec(0, 0, (2, 1), "c1_0", (("c2_0",), ("c1_1",)))
    mask = loader(dataset).query_mask(two).numpy()
    expected = np.zeros((48, 64), np.uint8)
    expected[:10, 30:] = 1
    expected[:, :20] = 2
    expected[:, 20:24] = 255
    assert np.array_equal(mask, expected)


def test_a_query_keeps_its_255_under_both_rules(dataset: SegDataset) -> None:
    # what 255 counts as is decided when pixels are counted, so that both scores can be had
    masks = [loader(dataset, query_ignore=r).query_mask(QUERY) for r in ("excluded", "background")]
    assert torch.equal(masks[0], masks[1])
    assert 255 in masks[0]


@pytest.mark.parametrize(("rule", "border"), [("excluded", 255), ("background", 0)])
def test_the_255_of_a_support(dataset: SegDataset, rule: str, border: int) -> None:
    one = EpisodeSpec(0, 0, (1,), "c1_1", (("c1_0",),))
    episode = loader(dataset, support_ignore=rule).episode(one)
    expected = (LABELS == 1).astype(np.uint8)
    expected[LABELS == 255] = border
    assert np.array_equal(episode.support_masks[0, 0].numpy(), expected[::3, ::4])


def test_an_episode_as_tensors(dataset: SegDataset) -> None:
    two = EpisodeSpec(4, 0, (2, 1), "c1_0", (("c2_0", "c2_1"), ("c1_1", "c1_2")))
    episode = loader(dataset).episode(two)
    assert episode.spec is two
    assert tuple(episode.support_images.shape) == (2, 2, 3, 16, 16)
    assert tuple(episode.support_masks.shape) == (2, 2, 16, 16)
    assert tuple(episode.query_image.shape) == (3, 16, 16)
    assert tuple(episode.query_mask.shape) == (48, 64)
    assert episode.support_images.dtype == episode.query_image.dtype == torch.float32
    assert episode.support_masks.dtype == torch.uint8
    for values in (episode.support_images, episode.query_image):
        assert values.min() >= 0
        assert 0.5 < values.max() <= 1
    picture = Image.fromarray(dataset.load_image("c2_1")).resize(
        (16, 16), Image.Resampling.BILINEAR
    )
    expected = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255
    assert np.allclose(episode.support_images[0, 1].numpy(), expected, atol=1e-6)
    assert torch.equal(episode.support_masks[1, 0], episode.support_masks[1, 1])


SPECS = [
    EpisodeSpec(0, 0, (1,), "c1_0", (("c1_1",),)),
    EpisodeSpec(1, 0, (2,), "c2_0", (("c2_1",),)),
    EpisodeSpec(2, 0, (1,), "c1_1", (("c1_0",),)),
]


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_come_in_order_with_what_they_need(dataset: SegDataset, workers: int) -> None:
    found = loader(dataset, SPECS)
    seen: Counter[str] = Counter()
    specs = []
    for step, data in load_steps(found, workers):
        assert list(data.images) == list(step.load)
        seen.update(list(data.images))
        assert set(data.items.values()) <= {None}
        assert data.support_masks is not None
        assert tuple(data.support_masks.shape) == (len(step.specs), 1, 1, 16, 16)
        for one, masks, target in zip(
            step.specs, data.support_masks, data.query_masks[0], strict=True
        ):
            alone = found.episode(one)
            assert torch.equal(masks, alone.support_masks)
            assert torch.equal(target, alone.query_mask)
            specs.append(one)
        for image, pixels in data.images.items():
            assert pixels.dtype == torch.uint8
            assert torch.equal(pixels, load_square(dataset, image, 16))
    assert specs == SPECS
    assert set(seen.values()) == {1}
    assert len(seen) == 4


@pytest.mark.parametrize("kind", ["mask", "points"])
@pytest.mark.parametrize("workers", [0, 2])
def test_parts_come_with_the_masks_of_their_supports(
    dataset: SegDataset, workers: int, kind: str
) -> None:
    """c1_0 is a support of two classes, and a query; c1_1 twice a support of one."""
    specs = [
        EpisodeSpec(0, 0, (1,), "c1_2", (("c1_0", "c1_1"),)),
        EpisodeSpec(1, 0, (2,), "c1_0", (("c1_0", "c2_1"),)),
        EpisodeSpec(2, 0, (1,), "c2_0", (("c1_1", "c2_0"),)),
    ]
    found = loader(dataset, specs, parts=True, annotation=kind)
    items: dict[Item, Tensor | None] = {}
    for step, data in load_steps(found, workers):
        assert data.support_masks is None
        assert list(data.images) == list(step.load)
        assert {item.image for item in data.items} == set(step.load)
        items |= data.items
    assert sum(item.role == "query" for item in items) == 3
    assert sum(item.role == "support" for item in items) == (5 if kind == "mask" else 6)
    for one in specs:
        alone = found.episode(one).support_masks
        assert items[query_item(one)] is None
        for shot in (0, 1):
            mask = items[support_item(one, 0, shot, found.protocol)]
            assert mask is not None
            assert torch.equal(mask, alone[0, shot])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(dataset: SegDataset, workers: int) -> None:
    assert dataset.index.images("test")
    (dataset.files_of("c2_1")[0]).write_bytes(b"not a picture")
    with pytest.raises(FssBenchError, match=r"c2_1\.jpg cannot be read"):
        list(load_steps(loader(dataset, SPECS), workers))


def test_an_image_of_another_size_than_its_mask_is_named(dataset: SegDataset) -> None:
    assert dataset.index.images("test")
    Image.new("RGB", (30, 20)).save(dataset.files_of("c1_1")[0])
    with pytest.raises(FssBenchError, match="mask of image c1_1 is 64x48, the image 30x20"):
        load_square(dataset, "c1_1", 16)


def test_loading_writes_to_nothing(dataset: SegDataset) -> None:
    labels = dataset.load_labels("c1_0").copy()
    loader(dataset, support_ignore="background").episode(SPECS[2])
    assert np.array_equal(dataset.load_labels("c1_0"), labels)


def test_a_worker_prints_faults_and_no_lost_connections(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error in (EOFError(), ConnectionResetError(), KeyboardInterrupt()):
        _print_faults(type(error), error, None)
    assert capsys.readouterr().err == ""
    _print_faults(ValueError, ValueError("a fault"), None)
    assert "ValueError: a fault" in capsys.readouterr().err
