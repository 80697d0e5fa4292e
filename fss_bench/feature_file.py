"""Encoded images on the disk, for those that memory has no room for."""

import os
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fss_bench.errors import FssBenchError, one_line


class _Part(NamedTuple):
    """One map of an image: its name, its form, and where it stands in a slot."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    start: int
    size: int


class FeatureFile:
    """Maps of images, each image in a slot of equal size; the file goes when the process does.

    It is read and written, not mapped: a disk that is full is then an error, where a mapped file
    would kill the process.

    Args:
        folder: where the file stands, without a name from the start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._parts: list[_Part] = []
        self._file: int | None = None

    def __contains__(self, image: str) -> bool:
        return image in self._slots

    @property
    def images(self) -> list[str]:
        """Names of what is held."""
        return list(self._slots)

    def put(self, image: str, maps: Mapping[str, Tensor]) -> None:
        """Hold the maps of an image, which have the names and forms of all others'.

        Raises:
            FssBenchError: the disk does not take them.
        """
        if not self._parts:
            self._parts = _layout(maps)
        slot = self._free.pop() if self._free else len(self._slots)
        try:
            for part in self._parts:
                content = maps[part.name].detach().cpu().contiguous()
                _write(self._open(), content, slot * self._slot_size + part.start)
        except OSError as error:
            self._free.append(slot)
            raise FssBenchError(
                f"cannot keep encoded images in {self.folder} ({one_line(error)}): free space, or "
                "give less with --disk-gb, or more memory with --cache-gb"
            ) from error
        self._slots[image] = slot

    def get(self, image: str, device: torch.device) -> dict[str, Tensor]:
        """The maps of an image that is held, bit for bit."""
        start = self._slots[image] * self._slot_size
        return {
            part.name: _read(self._open(), part, start + part.start).to(device)
            for part in self._parts
        }

    def drop(self, image: str) -> None:
        """Use the slot of an image for another."""
        self._free.append(self._slots.pop(image))

    @property
    def _slot_size(self) -> int:
        return self._parts[-1].start + self._parts[-1].size

    def _open(self) -> int:
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file, name = tempfile.mkstemp(dir=self.folder)
            Path(name).unlink()
        return self._file

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def _layout(maps: Mapping[str, Tensor]) -> list[_Part]:
    parts, start = [], 0
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


def _read(file: int, part: _Part, at: int) -> Tensor:
    if not prod(part.shape):
        return torch.empty(part.shape, dtype=part.dtype)
    found = bytearray()
    while len(found) < part.size:
        found += os.pread(file, part.size - len(found), at + len(found))
    return torch.frombuffer(found, dtype=part.dtype).reshape(part.shape)
