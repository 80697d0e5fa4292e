"""Encoded images on the disk: bit for bit, within their place, or one line."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError
from fss_bench.feature_file import FeatureFile

CPU = torch.device("cpu")


def maps(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(3, 5, 7, generator=generator)
    return {
        "c3": drawn,
        "c4": drawn.bfloat16()[:, 1:, :3],  # in no order of its own
        "half": drawn.half(),
        "mask": drawn > 0,
        "extent": torch.empty(0, 5, 7),
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert list(one) == list(other)
    return all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in one)


def test_maps_come_back_bit_for_bit(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "new" / "folder")
    for seed in range(4):
        file.put(str(seed), maps(seed))
    assert all(same(file.get(str(seed), CPU), maps(seed)) for seed in (3, 0, 2, 1))
    assert "2" in file
    assert file.images == ["0", "1", "2", "3"]


def test_a_place_is_used_again(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    for seed in range(3):
        file.put(str(seed), maps(seed))
    size = os.fstat(file._open()).st_size
    for seed in range(3, 30):
        file.drop(str(seed - 3))
        file.put(str(seed), maps(seed))
    assert os.fstat(file._open()).st_size == size
    assert all(same(file.get(str(seed), CPU), maps(seed)) for seed in (27, 28, 29))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path)
    file.put("a", maps(0))
    assert list(tmp_path.iterdir()) == []
    descriptor = file._open()
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FeatureFile(tmp_path)
    file.put("a", maps(0))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(FssBenchError, match=r"No space left.*: free space, or give less with"):
            file.put("b", maps(1))
    assert "b" not in file
    file.put("c", maps(2))
    assert same(file.get("a", CPU), maps(0))
    assert same(file.get("c", CPU), maps(2))


def test_short_writes_and_reads_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take or give less than was asked for."""
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda f, data, at: write(f, data[:13], at))
    monkeypatch.setattr(os, "pread", lambda f, size, at: read(f, min(size, 17), at))
    file = FeatureFile(tmp_path)
    file.put("a", maps(0))
    assert same(file.get("a", CPU), maps(0))


def test_a_folder_that_cannot_be_written_gives_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Compute().disk_bytes(tmp_path / "not" / "there") > 0
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert Compute().disk_bytes(tmp_path) == 0
    assert Compute(disk_gb=0.5).disk_bytes(tmp_path) == 2**29  # asked for: then it is an error
