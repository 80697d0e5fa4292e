"""Encoded images on the disk: bit for bit, within their place, or one line."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
    assert file.items == ["0", "1", "2", "3"]


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


def block(size: int, value: int) -> dict[str, Tensor]:
    return {"bytes": torch.full((size,), value, dtype=torch.uint8)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 300)), max_size=40),
    st.integers(0, 1500),
)
def test_items_of_any_size_lie_apart_within_the_limit(
    tmp_path: Path, moves: Sequence[tuple[bool, int, int]], limit: int
) -> None:
    file, held = FeatureFile(tmp_path), dict[int, int]()
    for number, (puts, item, size) in enumerate(moves):
        if item in held:
            file.drop(item)
            del held[item]
        elif puts and file.has_room(size, limit):
            file.put(item, block(size, number))
            held[item] = number
        assert sorted(file.items) == sorted(held)
        assert os.fstat(file._open()).st_size <= limit
        for name, value in held.items():
            assert (file.get(name, CPU)["bytes"] == value).all()


def test_a_slot_is_little_more_than_what_stands_in_it(tmp_path: Path) -> None:
    for size in (*range(40), 1000, 1025, 4097, 2**20 + 1):
        file, most = FeatureFile(tmp_path), size + size // 8
        assert file.has_room(size, most)
        assert not file.has_room(size, size - 1)
        file.put("a", block(size, 1))
        assert not file.has_room(max(size, 1), most)
        file.drop("a")
        assert file.has_room(size, most)


def test_a_slot_of_another_size_is_left_alone(tmp_path: Path) -> None:
    """An item that leaves makes place for those of its size, whatever comes between."""
    file = FeatureFile(tmp_path)
    file.put("small", block(100, 1))
    file.put("large", block(1000, 2))
    size = os.fstat(file._open()).st_size
    file.drop("small")
    assert not file.has_room(1000, size)
    assert file.has_room(100, size)
    file.put("other", block(97, 3))
    assert os.fstat(file._open()).st_size <= size
    assert (file.get("large", CPU)["bytes"] == 2).all()
    assert (file.get("other", CPU)["bytes"] == 3).all()


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
    write, read, asked = os.pwrite, os.preadv, list[int]()

    def less(file: int, buffers: list[memoryview], at: int) -> int:
        asked.append(len(buffers[0]))
        return read(file, [buffers[0][:17]], at)

    monkeypatch.setattr(os, "pwrite", lambda f, data, at: write(f, data[:13], at))
    monkeypatch.setattr(os, "preadv", less)
    file = FeatureFile(tmp_path)
    file.put("a", maps(0))
    assert same(file.get("a", CPU), maps(0))
    assert max(asked) > 17


def test_a_folder_that_cannot_be_written_gives_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Compute().disk_bytes(tmp_path / "not" / "there") > 0
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert Compute().disk_bytes(tmp_path) == 0
    assert Compute(disk_gb=0.5).disk_bytes(tmp_path) == 2**29  # asked for: then it is an error


@pytest.mark.parametrize("trouble", ["error", "end"])
def test_a_disk_that_gives_nothing_is_one_line(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FeatureFile(tmp_path)
    file.put("a", maps(0))

    def broken(*_: object) -> int:
        if trouble == "error":
            raise OSError(5, "Input/output error")
        return 0

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(FssBenchError, match="cannot read encoded images back from") as caught:
        file.get("a", CPU)
    assert "\n" not in str(caught.value)
