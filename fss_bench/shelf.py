"""What stays in memory, what goes to the disk and what is dropped: all uses are known before."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

import torch
from torch import Tensor

from fss_bench.feature_file import FeatureFile, bytes_of
from fss_bench.items import Item

Maps = Mapping[str, Tensor]
DISK_RATE = 250e6
"""Bytes a second that a disk is taken to write and read back. What is quicker to make again than
that is not put there."""


@dataclass
class Shelf:
    """Items within memory and disk; without room for one, it is gone and must be made again.

    What leaves memory is what is needed last (Belady's rule, optimal for items of one size). It
    goes to the disk if there is room, and comes back bit for bit.

    Attributes:
        file: the disk.
        device: where items are held.
        memory, disk: bytes. Memory holds a step's own items whatever they take.
    """

    file: FeatureFile
    device: torch.device
    memory: int = 0
    disk: int = 0
    _held: dict[Item, Maps] = field(default_factory=dict)
    _seconds: dict[Item, float] = field(default_factory=dict)
    _uses: dict[Item, list[int]] = field(default_factory=dict)
    _farthest: list[tuple[int, Item]] = field(default_factory=list)
    _used: int = 0

    def __contains__(self, item: object) -> bool:
        return item in self._held or item in self.file

    @property
    def used(self) -> int:
        """Bytes of memory that are taken."""
        return self._used

    @property
    def items(self) -> set[Item]:
        """What is in memory or on the disk."""
        return {*self._held, *self.file.items}

    def begin(self, uses: Mapping[Item, Sequence[int]], memory: int, disk: int) -> None:
        """A new schedule; what it has no use for is dropped.

        Args:
            uses: item -> the steps that need it, in order; later passes are steps after the last.
            memory, disk: bytes.
        """
        self.memory, self.disk = memory, disk
        self._uses = {item: list(reversed(steps)) for item, steps in uses.items() if steps}
        for item in self.items:
            if item not in self._uses:
                self._drop(item)
        self._farthest = [(-self._uses[item][-1], item) for item in self._held]
        heapify(self._farthest)

    def put(self, item: Item, maps: Maps, seconds: float) -> None:
        """Hold an item; call `settle` soon.

        Args:
            item, maps: what and its tensors.
            seconds: what it takes to make it again.
        """
        if item in self._uses:
            self._hold(item, maps)
            self._seconds[item] = seconds

    def get(self, item: Item) -> Maps:
        """The tensors of an item that is there.

        Raises:
            FssBenchError: the disk does not give them.
        """
        if item not in self._held:
            self._hold(item, self.file.get(item, self.device))
        return self._held[item]

    def settle(self, needed: Collection[Item]) -> None:
        """Come within memory; what the step at hand needs is not counted.

        Raises:
            FssBenchError: the disk does not take what leaves.
        """
        own = sum(bytes_of(self._held[i]) for i in needed if i in self._held)
        while self._used - own > self.memory:
            _, item = heappop(self._farthest)  # of the step's own none: their use is the nearest
            maps = self._held.pop(item, None)
            if maps is None:
                continue  # it left under a later use
            self._used -= bytes_of(maps)
            if self._worth_storing(item, bytes_of(maps)):
                self.file.put(item, maps)

    def finish(self, needed: Collection[Item]) -> None:
        """The step that needed these is over."""
        for item in needed:
            self._uses[item].pop()
            if not self._uses[item]:
                del self._uses[item]
                self._drop(item)
            elif item in self._held:
                heappush(self._farthest, (-self._uses[item][-1], item))
        self.settle(())

    def _hold(self, item: Item, maps: Maps) -> None:
        self._held[item] = maps
        self._used += bytes_of(maps)
        heappush(self._farthest, (-self._uses[item][-1], item))

    def _worth_storing(self, item: Item, size: int) -> bool:
        if item in self.file or size > DISK_RATE * self._seconds.get(item, 0.0):
            return False
        return self.file.has_room(size, self.disk)

    def _drop(self, item: Item) -> None:
        if item in self._held:
            self._used -= bytes_of(self._held.pop(item))
        if item in self.file:
            self.file.drop(item)


def schedule(steps: Sequence[Sequence[Item]], later: Sequence[Any]) -> dict[Item, list[int]]:
    """Item -> the steps that need it; `later` are the items of passes to come, one each."""
    uses: dict[Item, list[int]] = {}
    for number, items in enumerate([*steps, *later]):
        for item in items:
            uses.setdefault(item, []).append(number)
    return uses
