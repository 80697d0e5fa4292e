"""SBD's `.mat` files become the label maps that everybody uses, to the last pixel."""

import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sbd_files import write_mat
from scipy.io import loadmat, savemat
from test_cli import complaint, fss_bench

from fss_bench import mat_files
from fss_bench.errors import DatasetError
from fss_bench.sbd import convert, read_mat

Refusal = Callable[[Callable[[], object]], str]
LABELS = np.array([[0, 1, 20], [5, 0, 0]], np.uint8)
ONE_BY_ONE = struct.pack("<ii", 1, 1)
BORDERED = np.array([[0, 1, 255], [5, 255, 0]], np.uint8)


def write_tree(
    root: Path, sbd: dict[str, NDArray[np.uint8]], voc: dict[str, NDArray[np.uint8]]
) -> tuple[Path, Path]:
    """Both sources, with every other image in each list."""
    for folder in ("sbd/cls", "voc/SegmentationClass", "voc/ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name, labels in sbd.items():
        write_mat(root / "sbd/cls" / f"{name}.mat", labels)
    for name, labels in voc.items():
        Image.fromarray(labels).save(root / "voc/SegmentationClass" / f"{name}.png")
    for folder, names in (("sbd", list(sbd)), ("voc/ImageSets/Segmentation", list(voc))):
        (root / folder / "train.txt").write_text("\n".join(names[::2]) + "\n")
        (root / folder / "val.txt").write_text("\n".join(names[1::2]) + "\n")
    return root / "sbd", root / "voc"


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    return write_tree(tmp_path, {"a": LABELS, "b": LABELS.T}, {"a": BORDERED, "c": BORDERED})


def read(file: Path) -> list[list[int]]:
    with Image.open(file) as picture:
        assert picture.mode == "P"
        return np.asarray(picture).tolist()


def test_all_maps_are_written_and_voc_wins(tree: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    output = tmp_path / "deep" / "SegmentationClassAug"
    assert convert(*tree, output, lambda done, total: seen.append((done, total))) == 3
    assert read(output / "a.png") == read(output / "c.png") == BORDERED.tolist()
    assert read(output / "b.png") == LABELS.T.tolist()
    assert [p.name for p in output.parent.iterdir()] == ["SegmentationClassAug"]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_colours_are_those_of_voc(tree: tuple[Path, Path], tmp_path: Path) -> None:
    convert(*tree, tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as picture:
        colours = np.array(picture.convert("RGB"))
    assert colours[0].tolist() == [[0, 0, 0], [128, 0, 0], [224, 224, 192]]
    assert colours[1, 0].tolist() == [128, 0, 128]


def break_text(sbd: Path, voc: Path) -> str:
    (sbd / "cls" / "b.mat").write_bytes(b"<html>not found</html>" * 20)
    return "b.mat is no annotation of SBD"


def break_truncated(sbd: Path, voc: Path) -> str:
    file = sbd / "cls" / "b.mat"
    file.write_bytes(file.read_bytes()[:-60])
    return "b.mat is no annotation of SBD"


def break_empty(sbd: Path, voc: Path) -> str:
    (sbd / "cls" / "b.mat").write_bytes(b"")
    return "b.mat is no annotation of SBD"


def break_foreign(sbd: Path, voc: Path) -> str:
    savemat(sbd / "cls" / "b.mat", {"GTinst": {"Segmentation": LABELS}})
    return "b.mat is no annotation of SBD"


def break_type(sbd: Path, voc: Path) -> str:
    savemat(sbd / "cls" / "b.mat", {"GTcls": {"Segmentation": LABELS.astype(float)}})
    return "b.mat is no annotation of SBD"


def break_class(sbd: Path, voc: Path) -> str:
    write_mat(sbd / "cls" / "b.mat", np.full((2, 2), 21, np.uint8))
    return "b.mat holds class id 21, VOC has 1 to 20"


def break_listed(sbd: Path, voc: Path) -> str:
    (sbd / "cls" / "b.mat").unlink()
    return "lacks 1 of the 2 maps listed"


def break_voc(sbd: Path, voc: Path) -> str:
    (voc / "SegmentationClass" / "c.png").unlink()
    return "lacks 1 of the 2 maps listed"


def break_list(sbd: Path, voc: Path) -> str:
    (sbd / "val.txt").unlink()
    return "val.txt is missing"


def break_colours(sbd: Path, voc: Path) -> str:
    Image.new("RGB", (3, 2)).save(voc / "SegmentationClass" / "c.png")
    return "c.png has mode RGB"


BREAKS: Sequence[Callable[[Path, Path], str]] = (
    *(break_text, break_truncated, break_empty, break_foreign, break_type, break_class),
    *(break_listed, break_voc, break_list, break_colours),
)


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_refused_and_nothing_is_left(
    tree: tuple[Path, Path],
    tmp_path: Path,
    damage: Callable[[Path, Path], str],
    refusal: Refusal,
) -> None:
    reason = damage(*tree)
    before = sorted(tmp_path.iterdir())
    assert reason in refusal(lambda: convert(*tree, tmp_path / "out"))
    assert sorted(tmp_path.iterdir()) == before


def outcome(file: Path) -> str:
    try:
        labels = read_mat(file)
    except DatasetError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return "refused"
    assert labels.dtype == np.uint8
    return "read"


def test_every_damaged_byte_and_every_cut_is_read_or_refused(tmp_path: Path) -> None:
    """scipy's reader ends the process at some of these."""
    good, file = tmp_path / "good.mat", tmp_path / "damaged.mat"
    savemat(good, {"GTcls": {"Segmentation": LABELS}})  # not compressed: no checksum catches it
    content = good.read_bytes()
    outcomes = []
    for place in range(120, len(content)):
        for value in (0, 255):
            file.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            outcomes.append(outcome(file))
        file.write_bytes(content[:place])
        assert outcome(file) == "refused"
    assert 100 < outcomes.count("refused") < len(outcomes)


def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mat_files, "LARGEST", 30_000)
    write_mat(tmp_path / "a.mat", np.zeros((200, 200), np.uint8))
    assert (tmp_path / "a.mat").stat().st_size < 5000
    assert "larger than any map" in refusal(lambda: read_mat(tmp_path / "a.mat"))


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def struct_of_names(length: int, names: bytes, shape: bytes = ONE_BY_ONE, values: int = 0) -> bytes:
    """A variable `GTcls`, not packed."""
    flags, name = element(6, struct.pack("<II", 2, 0)), element(1, b"GTcls")
    fields = element(5, struct.pack("<i", length)) + element(1, names)
    return element(14, flags + element(5, shape) + name + fields + element(14, b"") * values)


def packed_element(content: bytes) -> bytes:
    data = zlib.compress(content, 9)
    return struct.pack("<II", 15, len(data)) + data


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: struct_of_names(1, bytes(60 << 20)), "names of 1 characters, 62914560 in all"),
        (lambda: struct_of_names(0, b""), "names of 0 characters"),
        (lambda: struct_of_names(-1, b"a"), "names of -1 characters"),
        (lambda: struct_of_names(65, bytes(65)), "names of 65 characters"),
        (lambda: struct_of_names(32, bytes(32), bytes(60 << 20)), "62914560 bytes of sizes"),
        (lambda: struct_of_names(32, bytes(32), values=6 << 20), "no field Segmentation"),
    ],
    ids=["many", "none", "negative", "long", "sizes", "values"],
)
def test_a_small_file_takes_little_memory(
    tmp_path: Path, make: Callable[[], bytes], reason: str, refusal: Refusal
) -> None:
    """What is unpacked counts a few times, a list of all that is in it dozens of times."""
    file = tmp_path / "a.mat"
    file.write_bytes(bytes(124) + b"\x00\x01IM" + packed_element(make()))
    tracemalloc.start()
    try:
        assert reason in refusal(lambda: read_mat(file))
        assert tracemalloc.get_traced_memory()[1] < 5 * mat_files.LARGEST
    finally:
        tracemalloc.stop()


def test_all_that_a_file_unpacks_to_is_bounded(
    tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mat_files, "LARGEST", 30_000)
    other = packed_element(element(1, bytes(9_992)))  # 10,000 bytes
    savemat(tmp_path / "good.mat", {"GTcls": {"Segmentation": LABELS}}, do_compression=True)
    good = (tmp_path / "good.mat").read_bytes()
    file = tmp_path / "a.mat"
    file.write_bytes(good[:128] + other * 2 + good[128:])
    assert np.array_equal(read_mat(file), LABELS)
    file.write_bytes(good[:128] + other * 3 + good[128:])
    assert "larger than any map" in refusal(lambda: read_mat(file))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (7, 5), (64, 48)])
def test_maps_are_read_as_scipy_reads_them(
    tmp_path: Path, shape: tuple[int, int], packed: bool
) -> None:
    labels = np.random.RandomState(0).randint(0, 21, shape, dtype=np.uint8)
    other = {"Boundaries": np.zeros((2, 2)), "Segmentation": labels, "Note": "text"}
    content = {"before": labels[:1], "GTcls": other}
    savemat(tmp_path / "a.mat", content, do_compression=packed)
    found = loadmat(tmp_path / "a.mat")["GTcls"][0, 0]["Segmentation"]
    assert np.array_equal(found, labels)
    assert np.array_equal(read_mat(tmp_path / "a.mat"), labels)


def test_a_folder_that_is_there_is_left_alone(
    tree: tuple[Path, Path], tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "is there already" in refusal(lambda: convert(*tree, tmp_path / "out"))
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_the_command_makes_the_folder_in_voc(tree: tuple[Path, Path]) -> None:
    done = fss_bench("data", "convert-sbd", *tree, "--quiet")
    assert done.stdout == f"{tree[1] / 'SegmentationClassAug'}: 3 label maps\n"
    assert "is there already" in complaint("data", "convert-sbd", *tree)


# --- the real maps


def real_maps(shared: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(shared / "data" / "voc_aug_masks.zip")


def official(shared: Path) -> set[str]:
    """Images of VOC 2012 train and val, whose maps are VOC's own."""
    lists = [shared / "lists/pfenet" / name for name in ("voc_original_train.txt", "val.txt")]
    lines = [line for file in lists for line in file.read_text().split()]
    return {Path(line).stem for line in lines}


def check_round_trip(shared: Path, root: Path, names: Sequence[str]) -> None:
    """`.mat` files and VOC PNGs of these maps are converted back, every pixel."""
    with real_maps(shared) as archive:
        maps = {
            name: np.array(Image.open(BytesIO(archive.read(f"SegmentationClassAug/{name}.png"))))
            for name in names
        }
    own = official(shared)
    voc = {name: labels for name, labels in maps.items() if name in own}
    sbd = {name: np.where(labels == 255, 0, labels) for name, labels in maps.items()}
    count = convert(*write_tree(root, sbd, voc), root / "out")
    assert count == len(maps) == len(list((root / "out").iterdir()))
    for name, labels in maps.items():
        with Image.open(root / "out" / f"{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), labels), name
    shutil.rmtree(root)


def names_of(shared: Path) -> list[str]:
    with real_maps(shared) as archive:
        return sorted(Path(name).stem for name in archive.namelist() if name.endswith(".png"))


def test_real_maps_come_back(shared: Path, tmp_path: Path) -> None:
    names = names_of(shared)
    chosen = names[:: len(names) // 40]
    assert 0 < len(official(shared) & set(chosen)) < len(chosen)
    check_round_trip(shared, tmp_path, chosen)


@pytest.mark.slow
def test_all_real_maps_come_back(shared: Path, tmp_path: Path) -> None:
    names = names_of(shared)
    assert len(names) == 12_031
    check_round_trip(shared, tmp_path, names)


@pytest.mark.slow
def test_exactly_the_maps_of_voc_have_a_border(shared: Path) -> None:
    with real_maps(shared) as archive:
        pictures = {
            name: Image.open(BytesIO(archive.read(f"SegmentationClassAug/{name}.png")))
            for name in names_of(shared)
        }
        bordered = {name for name, picture in pictures.items() if 255 in np.array(picture)}
    assert bordered == official(shared)
    assert len(bordered) == 1464 + 1449
