"""The plan of what to load and forget, and what a loaded episode holds."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fss_bench.dataset import SegDataset, create_dataset
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError
from fss_bench.geometry import resize_nearest
from fss_bench.loading import (
    EpisodeLoader,
    Step,
    _print_faults,
    load_square,
    load_steps,
    plan_steps,
)
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol

STANDARD = PROTOCOLS["standard"]


def spec(index: int, *images: str) -> EpisodeSpec:
    return EpisodeSpec(index, 0, (1,), images[0], (tuple(images[1:]),))


@st.composite
def plans(draw: st.DrawFn, images: int = 12, episodes: int = 40) -> tuple[list[EpisodeSpec], int]:
    names = st.sampled_from([f"i{i}" for i in range(images)])
    lists = st.lists(names, min_size=2, max_size=4)
    chosen = draw(st.lists(lists, min_size=1, max_size=episodes))
    return [spec(i, *c) for i, c in enumerate(chosen)], draw(st.integers(1, 5))


def needed_by(step: Step) -> set[str]:
    return {image for s in step.specs for image in (s.query, *s.supports[0])}


def simulate(steps: Sequence[Step], capacity: int, disk: int = 0) -> int:
    """Carry a plan out, checking it; returns the number of loads."""
    held: set[str] = set()
    on_disk: set[str] = set()
    loads = 0
    for step in steps:
        before = len(held)
        assert held.isdisjoint([*step.load, *step.fetch]), "loaded though held"
        assert on_disk.isdisjoint(step.load), "loaded though on the disk"
        assert set(step.fetch) <= on_disk
        for names in (step.load, step.fetch, step.store, step.clear):
            assert len(set(names)) == len(names)
        assert {*step.load, *step.fetch} <= needed_by(step), "loaded though not needed"
        held |= {*step.load, *step.fetch}
        loads += len(step.load)
        assert set(step.clear) <= on_disk
        on_disk -= set(step.clear)
        assert set(step.store) <= set(step.evict)
        assert on_disk.isdisjoint(step.store), "stored twice"
        on_disk |= set(step.store)
        assert len(on_disk) <= disk
        assert needed_by(step) <= held
        assert before <= capacity
        assert len(held) <= max(capacity, before) + len(needed_by(step))
        assert set(step.evict) <= held
        assert len(set(step.evict)) == len(step.evict)
        held -= set(step.evict)
    assert held == set(), "images that no step needs any more are kept"
    assert on_disk == set(), "images that no step needs any more stay on the disk"
    return loads


@given(plans(), st.integers(0, 15))
def test_every_image_is_held_when_used(plan: tuple[list[EpisodeSpec], int], capacity: int) -> None:
    specs, batch_size = plan
    steps = plan_steps(specs, batch_size, capacity)
    simulate(steps, capacity)
    assert [s for step in steps for s in step.specs] == specs
    assert {len(step.specs) for step in steps[:-1]} <= {batch_size}
    assert 1 <= len(steps[-1].specs) <= batch_size


@given(plans(), st.integers(0, 6), st.integers(0, 12))
def test_what_leaves_memory_is_read_back_from_the_disk(
    plan: tuple[list[EpisodeSpec], int], capacity: int, disk: int
) -> None:
    specs, batch_size = plan
    loads = simulate(plan_steps(specs, batch_size, capacity, disk=disk), capacity, disk)
    assert loads <= simulate(plan_steps(specs, batch_size, capacity), capacity)
    if disk == 12:
        assert loads == len({image for s in specs for image in s.images})


def test_the_disk_passes_from_pass_to_pass() -> None:
    """An image that an earlier pass stored is fetched; one that no pass needs makes place."""
    specs = [spec(0, "a", "b"), spec(1, "c", "d")]
    first, second = plan_steps(specs, 1, 0, disk=2, stored=["a", "x"], later={"b": 1})
    assert (first.load, first.fetch, first.store) == (["b"], ["a"], ["b"])
    assert sorted(first.clear) == ["a", "x"]
    assert (second.load, second.fetch, second.clear) == (["c", "d"], [], [])


@given(plans())
def test_nothing_is_loaded_twice_when_there_is_room(plan: tuple[list[EpisodeSpec], int]) -> None:
    specs, batch_size = plan
    loads = simulate(plan_steps(specs, batch_size, capacity=12), 12)
    assert loads == len({image for s in specs for image in s.images})


@given(plans())
def test_nothing_is_kept_when_there_is_no_room(plan: tuple[list[EpisodeSpec], int]) -> None:
    specs, batch_size = plan
    steps = plan_steps(specs, batch_size, capacity=0)
    assert all(set(step.load) == set(step.evict) == needed_by(step) for step in steps)


def lru_loads(specs: Sequence[EpisodeSpec], batch_size: int, capacity: int) -> int:
    held: OrderedDict[str, None] = OrderedDict()
    loads = 0
    for start in range(0, len(specs), batch_size):
        for image in {i: None for s in specs[start : start + batch_size] for i in s.images}:
            loads += image not in held
            held[image] = None
            held.move_to_end(image)
        while len(held) > capacity:
            held.popitem(last=False)
    return loads


@given(plans(), st.integers(0, 10))
def test_it_loads_no_more_than_least_recently_used(
    plan: tuple[list[EpisodeSpec], int], capacity: int
) -> None:
    specs, batch_size = plan
    loads = simulate(plan_steps(specs, batch_size, capacity), capacity)
    assert loads <= lru_loads(specs, batch_size, capacity)


def test_it_loads_clearly_less_on_a_long_random_case() -> None:
    rng = np.random.default_rng(0)
    specs = [spec(i, *(f"i{k}" for k in rng.integers(0, 200, 6))) for i in range(500)]
    loads = simulate(plan_steps(specs, 1, capacity=80), 80)
    assert loads < 0.7 * lru_loads(specs, 1, 80)


def fewest_loads(specs: Sequence[EpisodeSpec], capacity: int) -> int:
    """The optimum, by trying every set that could be kept after every step."""
    states: dict[frozenset[str], int] = {frozenset(): 0}
    for s in specs:
        after: dict[frozenset[str], int] = {}
        for held, loads in states.items():
            now = held | set(s.images)
            cost = loads + len(now) - len(held)
            for kept in combinations(sorted(now), min(capacity, len(now))):
                key = frozenset(kept)
                after[key] = min(cost, after.get(key, cost))
        states = after
    return min(states.values())


@given(plans(images=6, episodes=8), st.integers(0, 4))
def test_no_plan_loads_less(plan: tuple[list[EpisodeSpec], int], capacity: int) -> None:
    specs, _ = plan
    loads = simulate(plan_steps(specs, 1, capacity), capacity)
    assert loads == fewest_loads(specs, capacity)


def test_the_image_used_farthest_ahead_is_forgotten() -> None:
    specs = [spec(0, "a", "b"), spec(1, "c", "a"), spec(2, "b", "c")]
    steps = plan_steps(specs, 1, capacity=1)
    assert [(s.load, s.evict) for s in steps] == [
        (["a", "b"], ["b"]),
        (["c"], ["a"]),
        (["b"], ["b", "c"]),
    ]


def test_no_episodes_make_no_steps() -> None:
    assert plan_steps([], 4, 10) == []


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
    dataset: SegDataset, specs: Sequence[EpisodeSpec] = (), size: int = 16, **rules: Any
) -> EpisodeLoader:
    steps = plan_steps(specs, 2, 100)
    protocol: EvaluationProtocol = STANDARD.replace_rules(rules)
    return EpisodeLoader(dataset, protocol, steps, size)


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
