"""Encoded images on the disk, for those that memory has no room for."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fss_bench.errors import FssBenchError, one_line


class _Part(NamedTuple):
    """One tensor of an item: its name, its form, and where it stands in the file."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    start: int
    size: int


class _Slot(NamedTuple):
    """A place in the file, and what stands there."""

    start: int
    size: int
    parts: Sequence[_Part]


class FeatureFile:
    """Items of named tensors, each in a slot; the file goes when the process does.

    It is read and written, not mapped: a disk that is full is then an error, where a mapped file
    would kill the process.

    Args:
        folder: where the file stands, without a name from the start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._slots: dict[Hashable, _Slot] = {}
        self._free: dict[int, list[int]] = defaultdict(list)
        self._end = 0
        self._file: int | None = None

    def __contains__(self, item: Hashable) -> bool:
        return item in self._slots

    @property
    def items(self) -> list[Any]:
        """Names of what is held."""
        return list(self._slots)

    def has_room(self, size: int, limit: int) -> bool:
        """Whether so many bytes can be held in a file that grows to `limit` bytes at most."""
        size = _slot_size(size)
        return bool(self._free[size]) or self._end + size <= limit

    def put(self, item: Hashable, maps: Mapping[str, Tensor]) -> None:
        """Hold the tensors of an item.

        Raises:
            FssBenchError: the disk does not take them.
        """
        size = _slot_size(bytes_of(maps))
        start = self._free[size].pop() if self._free[size] else self._end
        self._end = max(self._end, start + size)
        slot = _Slot(start, size, _layout(maps, start))
        try:
            for part in slot.parts:
                _write(self._open(), maps[part.name].detach().cpu().contiguous(), part.start)
        except OSError as error:
            self._free[size].append(start)
            raise FssBenchError(
                f"cannot keep encoded images in {self.folder} ({one_line(error)}): free space, or "
                "give less with --disk-gb, or more memory with --cache-gb"
            ) from error
        self._slots[item] = slot

    def get(self, item: Hashable, device: torch.device) -> dict[str, Tensor]:
        """The tensors of an item that is held, bit for bit.

        Raises:
            FssBenchError: the disk does not give them.
        """
        parts = self._slots[item].parts
        try:
            return {part.name: _read(self._open(), part).to(device) for part in parts}
        except OSError as error:
            raise FssBenchError(
                f"cannot read encoded images back from {self.folder} ({one_line(error)}): check "
                "the disk, or do without it: --disk-gb 0"
            ) from error

    def drop(self, item: Hashable) -> None:
        """Use the slot of an item for another."""
        slot = self._slots.pop(item)
        self._free[slot.size].append(slot.start)

    def _open(self) -> int:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file, name = tempfile.mkstemp(dir=self.folder)
            Path(name).unlink()
        return self._file

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def bytes_of(maps: Mapping[str, Tensor]) -> int:
    """Bytes of tensors."""
    return sum(value.numel() * value.element_size() for value in maps.values())


def _slot_size(size: int) -> int:
    """At most an eighth more: slots of few sizes can be used again."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


def _layout(maps: Mapping[str, Tensor], start: int) -> list[_Part]:
    parts = []
    for name, value in maps.items():
        size = value.numel() * value.element_size()
        parts.append(_Part(name, value.shape, value.dtype, start, size))
        start += size
    return parts


def _write(file: int, content: Tensor, at: int) -> None:
    left = content.reshape(-1).view(torch.uint8).numpy().data
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done


def _read(file: int, part: _Part) -> Tensor:
    found = torch.empty(part.shape, dtype=part.dtype)
    left, at = found.reshape(-1).view(torch.uint8).numpy().data, part.start
    while left:
        done = os.preadv(file, [left], at)
        if not done:
            raise OSError("the file ends too early")
        left, at = left[done:], at + done
    return found
