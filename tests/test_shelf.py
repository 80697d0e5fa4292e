"""What stays, what goes to the disk and what is lost: plans carried out with bytes for features."""

import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError
from fss_bench.feature_file import FeatureFile, bytes_of
from fss_bench.items import Item, Want, wants
from fss_bench.loading import plan_steps
from fss_bench.protocols import PROTOCOLS
from fss_bench.shelf import DISK_RATE, Maps, Shelf, schedule

CPU = torch.device("cpu")
STANDARD = PROTOCOLS["standard"]
UNIT = 8
"""Bytes of an item where all are of one size."""
NAMES = [f"i{i}" for i in range(12)]
with_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def spec(index: int, *images: str) -> EpisodeSpec:
    return EpisodeSpec(index, 0, (1,), images[0], (tuple(images[1:]),))


def episode_lists(images: int = 12, episodes: int = 30) -> st.SearchStrategy[list[EpisodeSpec]]:
    lists = st.lists(st.sampled_from(NAMES[:images]), min_size=2, max_size=4)
    return st.lists(lists, min_size=1, max_size=episodes).map(
        lambda all_of: [spec(i, *chosen) for i, chosen in enumerate(all_of)]
    )


def distinct(specs: Sequence[EpisodeSpec]) -> set[str]:
    return {image for one in specs for image in one.images}


def size_of(item: Item, sizes: int) -> int:
    """UNIT bytes, or between 0 and `sizes` bytes, which differ from item to item."""
    return UNIT if not sizes else (7 * sum(map(ord, "".join(map(str, item)))) + 5) % (sizes + 1)


def maps_of(item: Item, sizes: int) -> dict[str, Tensor]:
    value = sum(map(ord, "/".join(map(str, item)))) % 251
    return {"bytes": torch.full((size_of(item, sizes),), value, dtype=torch.uint8)}


class CountingFile(FeatureFile):
    """A file that is told of no item twice, and of none that has no use any more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.stored = Counter[Item]()

    def put(self, item: Item, maps: Maps) -> None:
        self.stored[item] += 1
        assert self.stored[item] == 1, "stored twice"
        super().put(item, maps)


@dataclass
class Carried:
    """Carries plans out as evaluation does, checking what must hold after every move.

    Attributes:
        folder: of the disk.
        memory, disk: bytes.
        sizes: see `size_of`.
        parts: whether items are parts of images.
        group: images that are encoded together.
        loads: image -> how many times it was loaded.
    """

    folder: Path
    memory: int
    disk: int = 0
    sizes: int = 0
    parts: bool = False
    group: int = 1
    loads: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.file = CountingFile(self.folder)
        self.shelf = Shelf(self.file, CPU)

    def wants(self, one: EpisodeSpec) -> list[Want]:
        return wants(one, STANDARD, self.parts)

    def go(
        self,
        specs: Sequence[EpisodeSpec],
        batch: int = 1,
        later: Sequence[Sequence[EpisodeSpec]] = (),
    ) -> Iterator[Sequence[Item]]:
        """What every step needs, once it is over."""
        coming = [list(chain.from_iterable(map(self.wants, one))) for one in later]
        every = chain.from_iterable(coming)
        plan = plan_steps([self.wants(one) for one in specs], batch, self.shelf, every, self.group)
        uses = schedule([step.needs for step in plan], [{w.item for w in one} for one in coming])
        self.shelf.begin(uses, self.memory, self.disk)
        assert self.shelf.items <= set(uses), "kept without a use"
        for step in plan:
            self._make(step.load, [want.item for want in step.make], step.needs)
            lost = [item for item in step.needs if item not in self.shelf]
            self._make(list(dict.fromkeys(item.image for item in lost)), lost, step.needs)
            for item in step.needs:
                got = self.shelf.get(item)
                assert torch.equal(got["bytes"], maps_of(item, self.sizes)["bytes"])
            self._check(step.needs)
            self.shelf.finish(step.needs)
            self._check(())
            yield step.needs
        assert self.shelf.items <= {want.item for one in coming for want in one}

    def all(self, *args: object) -> int:
        """Loads of a pass."""
        before = self.loads.total()
        list(self.go(*args))  # type: ignore[arg-type]
        return self.loads.total() - before

    def _make(self, images: Sequence[str], items: Sequence[Item], needed: Sequence[Item]) -> None:
        self.loads.update(images)
        for image in images:
            for item in items:
                if item.image == image:
                    assert item not in self.shelf, "made though it is there"
                    self.shelf.put(item, maps_of(item, self.sizes), 1.0)
            self.shelf.settle(needed)
            self._check(needed)

    def _check(self, needed: Sequence[Item]) -> None:
        held = self.shelf._held
        assert self.shelf.used == sum(map(bytes_of, held.values()))
        assert sum(bytes_of(held[item]) for item in held if item not in needed) <= self.memory
        if self.file.items:
            assert os.fstat(self.file._open()).st_size <= self.disk
        else:
            assert self.disk > 0 or self.file._file is None, "a file without a place for it"


# every item is there


@with_folder
@given(
    episode_lists(),
    st.integers(1, 4),
    st.integers(0, 200),
    st.integers(0, 200),
    st.sampled_from([0, 40]),
    st.booleans(),
    st.integers(1, 4),
)
def test_every_item_is_there_when_it_is_used(
    tmp_path: Path,
    specs: list[EpisodeSpec],
    batch: int,
    memory: int,
    disk: int,
    sizes: int,
    parts: bool,
    group: int,
) -> None:
    carried = Carried(tmp_path, memory, disk, sizes, parts, group)
    assert set(chain.from_iterable(carried.go(specs, batch))) == {
        want.item for one in specs for want in carried.wants(one)
    }
    assert carried.shelf.used == 0
    assert carried.shelf.items == set()
    assert carried.file.items == []


@with_folder
@given(episode_lists(), st.integers(1, 4), st.booleans(), st.integers(1, 4), st.booleans())
def test_nothing_is_loaded_twice_when_there_is_room(
    tmp_path: Path,
    specs: list[EpisodeSpec],
    batch: int,
    parts: bool,
    group: int,
    on_disk: bool,
) -> None:
    room = 2 * len(NAMES) * 41
    memory, disk = (0, room) if on_disk else (room, 0)
    carried = Carried(tmp_path, memory, disk, 40, parts, group)
    carried.all(specs, batch)
    assert set(carried.loads) == distinct(specs)
    assert set(carried.loads.values()) == {1}
    assert on_disk or not carried.file.stored


@with_folder
@given(episode_lists(), st.integers(1, 4), st.booleans())
def test_nothing_is_kept_when_there_is_no_room(
    tmp_path: Path, specs: list[EpisodeSpec], batch: int, parts: bool
) -> None:
    carried, loads = Carried(tmp_path, 0, parts=parts), 0
    for needs in carried.go(specs, batch):
        assert carried.shelf.items == set()
        loads += len({item.image for item in needs})
        assert carried.loads.total() == loads
    assert not carried.file.stored


# Belady's rule


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


@with_folder
@given(episode_lists(episodes=40), st.integers(1, 5), st.integers(0, 10))
def test_it_loads_no_more_than_least_recently_used(
    tmp_path: Path, specs: list[EpisodeSpec], batch: int, capacity: int
) -> None:
    loads = Carried(tmp_path, UNIT * capacity).all(specs, batch)
    assert loads <= lru_loads(specs, batch, capacity)


def test_it_loads_clearly_less_on_a_long_random_case(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    specs = [spec(i, *(f"i{k}" for k in rng.integers(0, 200, 6))) for i in range(500)]
    loads = Carried(tmp_path, UNIT * 80).all(specs)
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


@with_folder
@given(episode_lists(images=6, episodes=8), st.integers(0, 4))
def test_no_way_loads_less(tmp_path: Path, specs: list[EpisodeSpec], capacity: int) -> None:
    # up to a unit of bytes more is no room for another item
    loads = Carried(tmp_path, UNIT * capacity + UNIT - 1).all(specs)
    assert loads == fewest_loads(specs, capacity)


@with_folder
@given(
    st.lists(episode_lists(images=10, episodes=15), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 12),
)
def test_what_is_needed_last_makes_place(
    tmp_path: Path, passes: list[list[EpisodeSpec]], batch: int, room: int
) -> None:
    """Over several passes, of which the later ones count as a step each after the last."""
    carried = Carried(tmp_path, UNIT * room)
    for number, specs in enumerate(passes):
        later = passes[number + 1 :]
        groups = [specs[i : i + batch] for i in range(0, len(specs), batch)]
        needs = [*map(distinct, groups), *map(distinct, later)]

        def next_use(image: str, after: int, needs: list[set[str]] = needs) -> float:
            coming = [i for i in range(after + 1, len(needs)) if image in needs[i]]
            return coming[0] if coming else np.inf

        before = {item.image for item in carried.shelf.items}
        for i, _ in enumerate(carried.go(specs, batch, later)):
            kept = {item.image for item in carried.shelf.items}
            gone = {image for image in (before | needs[i]) - kept if next_use(image, i) < np.inf}
            assert all(next_use(image, i) < np.inf for image in kept), "kept without a use"
            assert not gone or len(kept) == room, "forgotten though there was room"
            nearest = min((next_use(image, i) for image in gone), default=np.inf)
            assert all(next_use(image, i) <= nearest for image in kept)
            before = kept
    assert not carried.shelf.items


def test_the_image_used_farthest_ahead_is_forgotten(tmp_path: Path) -> None:
    specs = [spec(0, "a", "b"), spec(1, "c", "a"), spec(2, "b", "c")]
    carried = Carried(tmp_path, UNIT)
    found = [
        (sorted(i.image for i in carried.shelf.items), carried.loads.total())
        for _ in carried.go(specs)
    ]
    assert found == [(["a"], 2), (["c"], 3), ([], 4)]


def test_what_a_near_pass_needs_is_kept_before_what_a_far_one_needs(tmp_path: Path) -> None:
    carried = Carried(tmp_path, UNIT)
    passes = [[spec(0, "a", "b")], [spec(0, "b", "c")], [spec(0, "a", "c")]]
    for number, kept in enumerate([{"b"}, {"c"}, set[str]()]):
        carried.all(passes[number], 1, passes[number + 1 :])
        assert {item.image for item in carried.shelf.items} == kept
    assert carried.loads == {"a": 2, "b": 1, "c": 1}


@with_folder
@given(st.permutations(range(1, 9)), st.integers(0, 8))
def test_a_new_schedule_is_what_counts(tmp_path: Path, steps: list[int], room: int) -> None:
    """Items that were needed in the order a, b, c, ... are now needed in another."""
    shelf = filled(FeatureFile(tmp_path), {name: [n] for n, name in enumerate("abcdefgh")}, 100)
    items = [Item(name) for name in "abcdefgh"]
    for item in items:
        shelf.put(item, whole((item.image, UNIT))[item], 1.0)
    shelf.begin({i: [n] for i, n in zip(items, steps, strict=True)}, room * UNIT, 0)
    shelf.settle(())
    assert shelf.items == {i for i, n in zip(items, steps, strict=True) if n <= room}


def test_a_schedule_counts_passes_as_steps() -> None:
    a, b, c = map(Item, "abc")
    assert schedule([[a, b], [b]], [{c}, {a, c}]) == {a: [0, 3], b: [0, 1], c: [2, 3]}


# sizes


def whole(*items: tuple[str, int]) -> dict[Item, dict[str, Tensor]]:
    return {Item(name): {"x": torch.full((size,), ord(name)).byte()} for name, size in items}


def filled(file: FeatureFile, uses: dict[str, list[int]], memory: int, disk: int = 0) -> Shelf:
    shelf = Shelf(file, CPU)
    shelf.begin({Item(name): steps for name, steps in uses.items()}, memory, disk)
    return shelf


def test_a_large_item_makes_place_for_small_ones_that_come_sooner(tmp_path: Path) -> None:
    shelf = filled(FeatureFile(tmp_path), {"a": [0, 3], "b": [0, 2], "c": [0, 1]}, 60)
    maps = whole(("a", 50), ("b", 30), ("c", 30))
    for item, value in maps.items():
        shelf.put(item, value, 1.0)
    shelf.settle(list(maps))
    assert shelf.used == 110  # a step's own items are there whatever they take
    shelf.finish(list(maps))
    assert shelf.items == {Item("b"), Item("c")}
    assert shelf.used == 60


def test_what_a_step_needs_takes_no_place_of_the_others(tmp_path: Path) -> None:
    shelf = filled(FeatureFile(tmp_path), {"a": [0], "b": [1], "c": [2]}, 40)
    for item, value in whole(("a", 1000), ("b", 20), ("c", 20)).items():
        shelf.put(item, value, 1.0)
        shelf.settle([Item("a")])
    assert shelf.items == set(map(Item, "abc"))


def test_what_nobody_needs_is_not_held(tmp_path: Path) -> None:
    shelf = filled(FeatureFile(tmp_path), {"a": [0]}, 1000, 1000)
    for item, value in whole(("a", 10), ("b", 10)).items():
        shelf.put(item, value, 1.0)
    assert shelf.items == {Item("a")}
    shelf.begin({}, 1000, 1000)
    assert shelf.items == set()
    assert shelf.used == 0


# the disk


@with_folder
@given(episode_lists(), st.integers(1, 4), st.integers(0, 6), st.integers(0, 12), st.integers(1, 3))
def test_what_leaves_memory_is_read_back_from_the_disk(
    tmp_path: Path, specs: list[EpisodeSpec], batch: int, memory: int, disk: int, group: int
) -> None:
    without, some = (
        Carried(tmp_path, UNIT * memory, UNIT * size, group=group) for size in (0, disk)
    )
    loads = some.all(specs, batch)
    assert loads <= without.all(specs, batch)
    if disk == 12:
        assert loads == len(distinct(specs))


@with_folder
@given(
    st.lists(episode_lists(images=10, episodes=15), min_size=2, max_size=3),
    st.integers(1, 3),
    st.integers(0, 40),
    st.booleans(),
)
def test_passes_share_memory_and_disk(
    tmp_path: Path, passes: list[list[EpisodeSpec]], batch: int, memory: int, parts: bool
) -> None:
    carried = Carried(tmp_path, memory, 41 * 20 * 2, 40, parts)
    for number, specs in enumerate(passes):
        carried.all(specs, batch, passes[number + 1 :])
    # parts of all passes are made when an image is loaded first, which is in the first that needs
    # any of it
    assert set(carried.loads.values()) == {1}
    assert carried.shelf.items == set()


def test_an_item_keeps_its_place_on_the_disk_until_its_last_use(tmp_path: Path) -> None:
    file = CountingFile(tmp_path)
    shelf = filled(file, {"a": [0, 2, 4], "b": [1, 3]}, 0, 64)
    maps = whole(("a", 32), ("b", 32))
    shelf.put(Item("a"), maps[Item("a")], 1.0)
    for step, name in enumerate("ababa"):
        if step == 1:
            shelf.put(Item("b"), maps[Item("b")], 1.0)
        assert torch.equal(shelf.get(Item(name))["x"], maps[Item(name)]["x"])
        shelf.finish([Item(name)])
        there = [] if step == 4 else [Item("a")] if step in (0, 3) else [Item("a"), Item("b")]
        assert file.items == there
        assert shelf.used == 0
    assert file.stored == {Item("a"): 1, Item("b"): 1}


def test_what_is_made_sooner_than_read_is_not_stored(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    shelf = filled(file, {"a": [1], "b": [1], "c": [1]}, 0, 10**6)
    seconds = 1000 / DISK_RATE
    for name, size in (("a", 999), ("b", 1001)):
        shelf.put(Item(name), whole((name, size))[Item(name)], seconds)
        shelf.settle([])
    assert file.items == [Item("a")]
    assert Item("b") not in shelf
    shelf.put(Item("b"), whole(("b", 1001))[Item("b")], 2 * seconds)  # it took longer this time
    shelf.settle([])
    assert file.items == [Item("a"), Item("b")]


def test_the_rule_holds_for_what_an_earlier_pass_made(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    shelf = filled(file, {"a": [1], "b": [1]}, 100, 10**6)
    for name, seconds in (("a", 1.0), ("b", 0.0)):
        shelf.put(Item(name), whole((name, 50))[Item(name)], seconds)
    shelf.begin({Item("a"): [1], Item("b"): [1]}, 0, 10**6)
    shelf.settle([])
    assert shelf.items == {Item("a")}


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = filled(FeatureFile(tmp_path), {"a": [1]}, 0, 10**6)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    shelf.put(Item("a"), whole(("a", 50))[Item("a")], 1.0)
    with pytest.raises(FssBenchError, match="No space left"):
        shelf.settle([])
