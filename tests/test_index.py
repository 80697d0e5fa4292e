"""The index: right counts, built once, never stale, the same on every machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fss_bench import create_dataset, index
from fss_bench.errors import DatasetError
from fss_bench.index import (
    IGNORE_ROW,
    ImageCounts,
    Index,
    IndexSource,
    build_table,
    cache_folder,
    cached_index,
    label_counts,
)
from fss_bench.split_rows import read_rows

MakeFolder = Callable[..., Path]

TOY_COUNTS = {"a": {0: 3, 1: 5}, "b": {0: 1, 2: 6, IGNORE_ROW: 1}}
TOY_ROWS = [
    ["test", "b", 2, 4, -1, 1],
    ["test", "b", 2, 4, 0, 1],
    ["test", "b", 2, 4, 2, 6],
    ["train", "a", 2, 4, 0, 3],
    ["train", "a", 2, 4, 1, 5],
    ["train", "b", 2, 4, -1, 1],
    ["train", "b", 2, 4, 0, 1],
    ["train", "b", 2, 4, 2, 6],
]


class Toy:
    """A source of two images, one of them in both splits, that notes which are counted."""

    def __init__(self, file: Path) -> None:
        file.write_text("toy")
        self.calls: list[str] = []
        pairs = [("train", "a"), ("train", "b"), ("test", "b")]
        self.source = IndexSource("toy", [file], lambda: pairs, self.count, lambda: {"made": 2})

    def count(self, image: str) -> ImageCounts:
        self.calls.append(image)
        return ImageCounts(2, 4, TOY_COUNTS[image], "")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the index files, in an empty cache."""
    monkeypatch.setenv("FSS_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "toy.txt")


TOLD = ["split", "image", "height", "width", "class_id", "pixels"]


def rows_of(found: Index) -> list[list[object]]:
    return sorted(found.table[TOLD].to_numpy(object).tolist())


def index_of(root: Path) -> Index:
    return create_dataset("folder", root).index


def change_pixel(mask: Path, value: int) -> None:
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = value
    Image.fromarray(pixels).save(mask)


def test_counts_of_a_label_map() -> None:
    labels = np.array([[0, 0, 3], [3, 3, 255]], np.uint8)
    assert label_counts(labels) == {0: 2, 3: 3, IGNORE_ROW: 1}


def test_255_is_a_class_in_a_wider_label_map() -> None:
    labels = np.array([[0, 255, 255], [IGNORE_ROW, 300, 300]], np.int16)
    assert label_counts(labels) == {0: 1, 255: 2, 300: 2, IGNORE_ROW: 1}


def test_counts_of_a_tree(cache: Path, tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(classes=2, per_class=1)
    labels = np.zeros((48, 64), np.uint8)
    labels[:2, :5], labels[10:13, :5], labels[47, :] = 1, 2, 255
    Image.fromarray(labels).save(root / "masks" / "c1_0.png")
    (root / "train.txt").write_text("c1_0\n")
    (root / "test.txt").write_text("c2_0\n")
    assert rows_of(index_of(root)) == [
        ["test", "c2_0", 48, 64, 0, 1536],
        ["test", "c2_0", 48, 64, 2, 1536],
        ["train", "c1_0", 48, 64, -1, 64],
        ["train", "c1_0", 48, 64, 0, 2983],
        ["train", "c1_0", 48, 64, 1, 10],
        ["train", "c1_0", 48, 64, 2, 15],
    ]


def test_second_time_reads_the_cache(cache: Path, toy: Toy) -> None:
    first = cached_index(toy.source)
    assert rows_of(first) == TOY_ROWS
    assert toy.calls == ["a", "b", "b"]
    second = cached_index(toy.source)
    assert toy.calls == ["a", "b", "b"]
    assert rows_of(second) == TOY_ROWS
    assert second.fingerprint == first.fingerprint
    assert second.facts == {"made": 2}
    assert [f.suffix for f in cache.iterdir() if f.suffix != ".lock"] == [".parquet"]


def test_rebuild_counts_again(cache: Path, toy: Toy) -> None:
    cached_index(toy.source)
    cached_index(toy.source, rebuild=True)
    assert toy.calls == ["a", "b", "b"] * 2


def test_images_sizes_and_order(cache: Path, toy: Toy) -> None:
    found = cached_index(toy.source)
    assert found.images("train") == ["a", "b"]
    assert found.images("test") == ["b"]
    assert found.sizes == {"a": (2, 4), "b": (2, 4)}
    assert found.rle("a", 1) is None


CODES = {("a", 1): b"first", ("b", IGNORE_ROW): b"second", ("b", 2): b"third, and longer"}


def coded(toy: Toy) -> IndexSource:
    """The same source with run-length codes."""

    def count(image: str) -> ImageCounts:
        found = toy.count(image)
        return replace(found, rles={c: code for (i, c), code in CODES.items() if i == image})

    return replace(toy.source, count=count)


def test_codes_are_read_one_at_a_time(cache: Path, toy: Toy) -> None:
    for found in (cached_index(coded(toy)), cached_index(coded(toy))):  # built, then read
        assert {key: found.rle(*key) for key in CODES} == CODES
        assert found.rle("a", 0) is None
        assert found.rle("b", 7) is None
    assert toy.calls == ["a", "b", "b"]


def test_codes_that_cannot_be_cached_stay_in_memory(
    cache: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(index, "_write", fail)
    with pytest.warns(UserWarning, match="index not cached"):
        found = cached_index(coded(toy))
    assert {key: found.rle(*key) for key in CODES} == CODES


@pytest.mark.parametrize("content", [None, b"first"])
def test_an_index_without_all_of_its_codes_is_built_anew(
    cache: Path, toy: Toy, content: bytes | None
) -> None:
    cached_index(coded(toy))
    (file,) = cache.glob("*.codes")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert cached_index(coded(toy)).rle("b", 2) == CODES["b", 2]
    assert toy.calls == ["a", "b", "b"] * 2


def test_codes_that_vanish_are_told(cache: Path, toy: Toy, refusal: Callable) -> None:
    found = cached_index(coded(toy))
    (file,) = cache.glob("*.codes")
    file.unlink()
    assert "run the command again, which builds the index anew" in refusal(
        lambda: found.rle("a", 1)
    )


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The splits whose rows are read from a file, as they are read; None for all rows."""
    read: list[str | None] = []

    def noting(file: Path, split: str | None = None) -> pd.DataFrame:
        read.append(split)
        return read_rows(file, split)

    monkeypatch.setattr(index, "read_rows", noting)
    return read


def test_a_cached_index_reads_a_split_when_asked_for(
    cache: Path, toy: Toy, reads: list[str | None]
) -> None:
    cached_index(coded(toy))
    found = cached_index(coded(toy))
    assert found.fingerprint
    assert found.facts == {"made": 2}
    assert reads == []
    assert found.images("test") == ["b"]
    assert found.pools("test", [2], 1) == {2: ["b"]}
    assert found.class_pixels("test", [1, 2]) == {"b": {2: 6}}
    assert found.sizes["b"] == (2, 4)
    assert found.rle("b", 2) == CODES["b", 2]
    assert reads == ["test"]
    assert found.sizes["a"] == (2, 4)
    assert found.rle("a", 1) == CODES["a", 1]
    assert reads == ["test", "train"]
    with pytest.raises(KeyError):
        found.sizes["c"]
    assert len(found.sizes) == 2
    assert reads == ["test", "train"]


def test_of_a_split_only_its_own_part_of_the_file_is_read(
    cache: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch, refusal: Callable
) -> None:
    monkeypatch.setattr(index, "ROW_GROUP", 3)  # the last of train stand with the first of test
    cached_index(coded(toy))
    (file,) = cache.glob("*.parquet")
    layout = pq.read_metadata(file)
    assert layout.num_row_groups == 3
    pages = layout.row_group(0).column(0)
    start = pages.dictionary_page_offset or pages.data_page_offset
    with file.open("r+b") as damaged:
        damaged.seek(start)
        damaged.write(b"\xff" * pages.total_compressed_size)
    found = cached_index(coded(toy))
    assert found.pools("test", [2], 1) == {2: ["b"]}
    assert {c: found.rle("b", c) for c in (2, IGNORE_ROW)} == {
        2: CODES["b", 2],
        IGNORE_ROW: CODES["b", IGNORE_ROW],
    }
    assert "run the command again" in refusal(lambda: found.images("train"))


def test_a_split_without_images(cache: Path, toy: Toy) -> None:
    source = replace(toy.source, images=lambda: [("test", "b")])
    for found in (cached_index(source), Index(*build_table(source))):
        assert found.images("train") == []
        assert found.pools("train", [1], 1) == {1: []}
        assert found.sizes == {"b": (2, 4)}
        with pytest.raises(KeyError):
            found.rle("a", 1)


def test_a_table_that_vanishes_is_told(cache: Path, toy: Toy, refusal: Callable) -> None:
    found = cached_index(coded(toy))
    (file,) = cache.glob("*.parquet")
    file.unlink()
    text = refusal(lambda: found.images("test"))
    assert str(file) in text
    assert "run the command again, which builds the index anew" in text


def test_another_key_is_another_index(cache: Path, toy: Toy) -> None:
    assert replace(toy.source, key="other").stamp() != toy.source.stamp()


def test_a_changed_mask_makes_the_index_stale(cache: Path, make_folder: MakeFolder) -> None:
    root = make_folder()
    before = index_of(root)
    change_pixel(root / "masks" / "c1_0.png", 2)
    after = index_of(root)
    assert before.pools("test", [2], 1)[2] == ["c2_0", "c2_1", "c2_2"]
    assert after.pools("test", [2], 1)[2] == ["c1_0", "c2_0", "c2_1", "c2_2"]
    assert after.fingerprint != before.fingerprint


def test_a_changed_list_makes_the_index_stale(cache: Path, make_folder: MakeFolder) -> None:
    root = make_folder()
    assert len(index_of(root).images("test")) == 12
    (root / "test.txt").write_text("c1_0\nc1_1\n")
    assert index_of(root).images("test") == ["c1_0", "c1_1"]
    (root / "test.txt").write_text("c1_1\nc1_2\n")
    assert index_of(root).images("test") == ["c1_1", "c1_2"]


def test_a_new_image_makes_the_index_stale(cache: Path, make_folder: MakeFolder) -> None:
    root = make_folder()
    assert len(index_of(root).images("train")) == 12
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(root / folder / f"c1_0.{suffix}", root / folder / f"new.{suffix}")
    assert "new" in index_of(root).images("train")


def test_an_image_listed_twice_counts_once(cache: Path, make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "test.txt").write_text("c1_0\nc1_1\nc1_0\n")
    found = index_of(root)
    assert found.pools("test", [1], 1) == {1: ["c1_0", "c1_1"]}
    assert found.images("test") == ["c1_0", "c1_1"]


def test_fingerprint_does_not_depend_on_place_and_time(
    cache: Path, tmp_path: Path, make_folder: MakeFolder
) -> None:
    root, copy = make_folder(), tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, copy)
    for file in copy.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    assert index_of(copy).fingerprint == index_of(root).fingerprint
    assert len(list(cache.glob("*.parquet"))) == 2  # it was not one index read twice


def test_fingerprint_changes_with_one_pixel(
    cache: Path, tmp_path: Path, make_folder: MakeFolder
) -> None:
    root, copy = make_folder(), tmp_path / "copy"
    shutil.copytree(root, copy)
    change_pixel(copy / "masks" / "c3_2.png", 0)
    assert index_of(copy).fingerprint != index_of(root).fingerprint


def test_fingerprint_does_not_depend_on_the_order_of_a_list(
    cache: Path, make_folder: MakeFolder
) -> None:
    root = make_folder()
    fingerprints = []
    for names in ("c1_0\nc2_0\n", "c2_0\nc1_0\n"):
        (root / "test.txt").write_text(names)
        fingerprints.append(index_of(root).fingerprint)
    assert fingerprints[0] == fingerprints[1]


def test_missing_source_file_is_named(tmp_path: Path, toy: Toy, refusal: Callable) -> None:
    (tmp_path / "toy.txt").unlink()
    assert str(tmp_path / "toy.txt") in refusal(lambda: cached_index(toy.source))


def test_a_fault_in_a_mask_leaves_no_index(cache: Path, make_folder: MakeFolder) -> None:
    root = make_folder()
    change_pixel(root / "masks" / "c1_0.png", 99)
    with pytest.raises(DatasetError, match="99"):
        index_of(root)
    assert list(cache.glob("*.parquet")) == []
    assert list(cache.glob("*.tmp")) == []


SLOW_SOURCE = """
import sys, time
from pathlib import Path
from fss_bench.index import ImageCounts, IndexSource, cached_index

folder, me, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def count(image):
    with (folder / "counted.txt").open("a") as log:
        log.write(image + "\\n")
    time.sleep(0.02)
    return ImageCounts(1, 3, {0: 2, 1: 1}, "")

images = [("test", f"image{i}") for i in range(20)]
source = IndexSource("slow", [folder / "source.txt"], lambda: images, count, dict)
(folder / me).touch()
while not (folder / other).exists():
    time.sleep(0.001)
found = cached_index(source)
print(found.fingerprint, len(found.images("test")), len(found.table))
"""


def test_two_processes_build_one_index(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "source.txt").touch()
    command = [sys.executable, "-W", "error", "-c", SLOW_SOURCE, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, *names], stdout=subprocess.PIPE, text=True)
        for names in (("ready1", "ready2"), ("ready2", "ready1"))
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0].split()[1:] == ["20", "40"]
    assert len((tmp_path / "counted.txt").read_text().split()) == 20  # by one of them
    assert len(list(cache.glob("*.parquet"))) == 1
    assert list(cache.glob("*.tmp")) == []


def test_cache_folder_is_the_users_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSS_BENCH_CACHE", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else")
    monkeypatch.delenv("FSS_BENCH_CACHE")
    assert cache_folder().name == "fss_bench"
    assert cache_folder().is_absolute()


def test_unwritable_cache_folder_only_warns(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FSS_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="index not cached: cannot write") as caught:
        found = cached_index(toy.source)
    assert len(caught) == 1
    assert str(tmp_path / "file") in str(caught[0].message)
    assert rows_of(found) == TOY_ROWS
    assert found.facts == {"made": 2}


def test_full_disk_only_warns(cache: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.warns(UserWarning, match="No space left"):
        found = cached_index(toy.source)
    assert rows_of(found) == TOY_ROWS
    assert toy.calls == ["a", "b", "b"]


def test_an_index_in_a_folder_of_another_user_is_read(
    cache: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_lock: object) -> None:
        raise PermissionError("read-only")

    cached_index(toy.source)
    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    assert rows_of(cached_index(toy.source)) == TOY_ROWS
    assert toy.calls == ["a", "b", "b"]


# A forked worker only counts pixels; newer Pythons warn of every fork beside threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_serial_and_parallel_building_agree(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = create_dataset("folder", make_folder(classes=6, per_class=20))
    parents: list[str] = []
    count = dataset.count_pixels

    def noting_count(image: str) -> ImageCounts:
        parents.append(image)  # a worker notes this in its own memory
        return count(image)

    pairs = [(split, image) for split in ("train", "test") for image in dataset.list_images(split)]
    source = IndexSource("", [], lambda: pairs, noting_count, dict)
    serial, _ = build_table(source)
    assert len(parents) == 240
    monkeypatch.setattr(index, "PARALLEL_FROM", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    parallel, _ = build_table(source)
    assert len(parents) == 240
    pd.testing.assert_frame_equal(serial, parallel)
    assert serial.attrs["fingerprint"] == parallel.attrs["fingerprint"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fault_found_by_a_worker_is_told(
    cache: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, refusal: Callable
) -> None:
    monkeypatch.setattr(index, "PARALLEL_FROM", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    root = make_folder()
    change_pixel(root / "masks" / "c4_1.png", 77)
    assert "mask of image c4_1 holds class id 77" in refusal(lambda: index_of(root))


@pytest.fixture
def pooled() -> Index:
    def rows() -> Iterator[tuple[str, str, int, int, int, int]]:
        for split, image, class_id, pixels in (
            ("test", "z", 1, 2048),
            ("test", "z", 3, 1),
            ("test", "a", 1, 2047),
            ("test", "m", 1, 9000),
            ("test", "m", 2, 5000),
            ("test", "m", IGNORE_ROW, 4000),
            ("train", "t", 1, 9000),
            ("train", "t", 2, 1),
            ("train", "u", 1, 9000),
        ):
            yield split, image, 200, 200, class_id, pixels

    return Index(pd.DataFrame(rows(), columns=TOLD))


def test_pools_are_sorted_and_of_one_split(pooled: Index) -> None:
    assert pooled.pools("test", [1, 2], 1) == {1: ["a", "m", "z"], 2: ["m"]}
    assert pooled.pools("train", [1, 2], 1) == {1: ["t", "u"], 2: ["t"]}


def test_pools_count_an_image_from_min_pixels(pooled: Index) -> None:
    assert pooled.pools("test", [1, 3], 2048) == {1: ["m", "z"], 3: []}
    assert pooled.pools("test", [1], 2049) == {1: ["m"]}


def test_pools_list_a_class_that_is_nowhere(pooled: Index) -> None:
    assert pooled.pools("test", [2, 9], 1) == {2: ["m"], 9: []}


def test_pools_leave_out_images_with_any_pixel_of_some_classes(pooled: Index) -> None:
    assert pooled.pools("train", [1], 2048, without=[2]) == {1: ["u"]}
    assert pooled.pools("test", [1], 1, without=[2, 3]) == {1: ["a"]}
    assert pooled.pools("test", [1], 1, without=[9]) == {1: ["a", "m", "z"]}
