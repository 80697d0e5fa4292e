"""`fss-bench data fetch` on small archives that are laid out as the published ones."""

import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import loopback
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sbd_files import write_mat
from test_cli import complaint, fss_bench

from fss_bench import create_dataset, downloading, sbd, sources
from fss_bench.completion import things_to_fetch
from fss_bench.datasets import fss1000
from fss_bench.errors import FssBenchError
from fss_bench.file_checks import DIGITS, is_checked_whole
from fss_bench.source import Source, SourceFile
from fss_bench.weight_files import KNOWN_FILES

ALL = {**sources.DATASETS, **sources.WEIGHTS}


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.ones((8, 8), np.uint8)
    Image.fromarray(pixels).convert("RGB" if kind == "JPEG" else "L").save(stream, kind)
    return stream.getvalue()


JPG, PNG = picture("JPEG"), picture("PNG")


def tar(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as made:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def pack(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return stream.getvalue()


def mat(class_id: int) -> bytes:
    """An annotation of SBD: one class all over."""
    with tempfile.TemporaryDirectory() as folder:
        write_mat(Path(folder) / "map.mat", np.full((8, 8), class_id, np.uint8))
        return (Path(folder) / "map.mat").read_bytes()


def voc() -> bytes:
    inside = "VOCdevkit/VOC2012"
    names = {"train": "2007_000001", "val": "2007_000002"}
    members = {f"{inside}/ImageSets/Segmentation/{k}.txt": f"{v}\n" for k, v in names.items()}
    found = {name: text.encode() for name, text in members.items()}
    for name in (*names.values(), "2008_000003"):
        found[f"{inside}/JPEGImages/{name}.jpg"] = JPG
        found[f"{inside}/SegmentationClass/{name}.png"] = PNG
    return tar({**found, f"{inside}/Annotations/2007_000001.xml": b"<a/>"})


def coco(year: str) -> Iterable[tuple[str, bytes]]:
    found = {}
    for number, split in enumerate(("train", "val")):
        image = f"{number:012d}"
        name = f"COCO_{split}2014_{image}.jpg" if year == "2014" else f"{image}.jpg"
        yield f"{split}{year}.zip", pack({f"{split}{year}/": b"", f"{split}{year}/{name}": JPG})
        found[f"annotations/instances_{split}{year}.json"] = b"{}"
    yield f"annotations_trainval{year}.zip", pack({**found, "annotations/captions.json": b""})


LISTS = {"trn": ["cat", "dog"], "val": ["owl"], "test": ["abe's_flyingfish"]}


def published() -> dict[str, bytes]:
    """Small files under the names of the real ones."""
    matlab = {
        "cls/2007_000001.mat": mat(7),
        "cls/2009_000004.mat": mat(5),
        "img/2007_000001.jpg": JPG,
        "train.txt": b"2007_000001\n",
        "val.txt": b"2009_000004\n",
    }
    classes = [name for listed in LISTS.values() for name in listed]
    return {
        "VOCtrainval_11-May-2012.tar": voc(),
        "benchmark.tgz": tar(
            {f"benchmark_RELEASE/dataset/{k}": v for k, v in matlab.items()}, "w:gz"
        ),
        **dict(coco("2014")),
        **dict(coco("2017")),
        **{f"fss-{k}.txt": "".join(f"{n}\n" for n in v).encode() for k, v in LISTS.items()},
        "fewshot_data.zip": pack(
            {
                f"fewshot_data/fewshot_data/{name}/1.{kind}": content
                for name in classes
                for kind, content in (("jpg", JPG), ("png", PNG))
            }
        ),
        "moco_v2_800ep_pretrain.pth.tar": b"weights",
        "vicreg_resnet50.pth": b"other weights",
    }


def described(file: SourceFile, content: bytes) -> SourceFile:
    """With the size and the hashes that the small file has, to as many digits."""
    hashes = {k: hashlib.new(k, content).hexdigest()[: len(v)] for k, v in file.hashes.items()}
    return replace(file, size=len(content) if file.size else None, hashes=hashes)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all files; and tables that describe them."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    contents = published()
    for name, content in contents.items():
        (folder / name).write_bytes(content)

    def small(table: Mapping[str, Source]) -> dict[str, Source]:
        return {
            name: replace(
                source, files=tuple(described(f, contents.get(f.name, b"")) for f in source.files)
            )
            for name, source in table.items()
        }

    monkeypatch.setattr(sources, "DATASETS", small(sources.DATASETS))
    monkeypatch.setattr(sources, "WEIGHTS", small(sources.WEIGHTS))
    monkeypatch.chdir(tmp_path)
    return folder


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_pascal(mirror: Path) -> None:
    done = fss_bench("data", "fetch", "pascal5i", "--mirror", mirror)
    root = Path("VOC2012")
    assert done.stdout.splitlines()[-1] == "use: --dataset pascal5i --data-root VOC2012"
    assert "checked by sha256 and md5 (size, sha256: TensorFlow Datasets" in done.stdout
    maps = {p.stem: np.unique(Image.open(p)).tolist() for p in root.glob("*Aug/*.png")}
    assert maps == {n: [1] for n in ("2007_000001", "2007_000002", "2008_000003")} | {
        "2009_000004": [5]  # VOC's own map wins where both have one
    }
    dataset = create_dataset("pascal5i", root)
    assert list(dataset.list_images("test")) == ["2007_000002"]
    assert set(dataset.list_images("train")) == {"2007_000001", "2008_000003", "2009_000004"}
    assert not (root / "Annotations").exists()
    assert list(root.rglob("*.making*")) == []
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    again = fss_bench("data", "fetch", "pascal5i", "--mirror", mirror)
    assert again.stdout.count("was unpacked before") == 2
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()} == before


def test_only_what_is_missing_is_unpacked(mirror: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "JPEGImages" / "mine.jpg").write_bytes(JPG)
    fss_bench("data", "fetch", "pascal5i", "--mirror", mirror, "--data-root", root, "--quiet")
    assert tree(root / "JPEGImages") == ["mine.jpg"]
    assert len(tree(root / "SegmentationClass")) == 3
    for archive in (root / "archives").glob("*[rz]"):
        archive.unlink()  # no longer needed
    again = fss_bench("data", "fetch", "pascal5i", "--data-root", root)
    assert again.stdout.count("was unpacked before") == 2


def test_an_interrupted_conversion_leaves_no_half(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(file: Path) -> NDArray[np.uint8]:  # of 2009, after three of VOC
        raise KeyboardInterrupt

    monkeypatch.setattr(sbd, "read_mat", stopped)
    done = fss_bench("data", "fetch", "pascal5i", "--mirror", mirror, status=130)
    assert "the same command goes on from here" in done.stderr
    assert not Path("VOC2012/SegmentationClassAug").exists()
    assert Path("VOC2012/SBD/cls").is_dir()


def test_coco_of_both_years_in_one_place(mirror: Path) -> None:
    done = fss_bench(
        "data", "fetch", "coco20i", "coco20i-2017", "--mirror", mirror.as_uri(), "--json"
    )
    told = json.loads(done.stdout)
    assert told["use"] == ["--dataset coco20i --data-root COCO"] * 2
    assert [f["checked"] for f in told["fetched"]] == ["sha256"] * 6
    assert all(f["is_new"] and Path(f["path"]).is_file() for f in told["fetched"])
    for year in ("2014", "2017"):
        assert create_dataset("coco20i", Path("COCO"), year=year).year == year
    assert not Path("COCO/annotations/captions.json").exists()


def test_fss(mirror: Path) -> None:
    done = fss_bench("data", "fetch", "fss1000", "--mirror", mirror)
    assert "fewshot_data.zip: fetched" in done.stdout
    assert "not checked: no hash of it is published, sha256" in done.stdout
    dataset = create_dataset("fss1000", Path("FSS-1000"))
    assert list(dataset.list_images("test")) == ["abe's_flyingfish/1"]
    assert list(dataset.list_images("train")) == ["cat/1", "dog/1"]
    assert Path("FSS-1000/owl").is_dir()
    assert "was unpacked before" in fss_bench("data", "fetch", "fss1000").stdout


def test_an_archive_without_what_it_should_hold(mirror: Path) -> None:
    (mirror / "fewshot_data.zip").write_bytes(pack({"fewshot_data/fewshot_data/cat/1.jpg": JPG}))
    text = complaint_after("data", "fetch", "fss1000", "--mirror", mirror)
    assert "fewshot_data.zip holds no dog, owl, abe's_flyingfish: get fewshot_data.zip as" in text


def complaint_after(*arguments: object) -> str:
    """The one line of a command that fails after it said what went well."""
    (line,) = (
        line
        for line in fss_bench(*arguments, status=2).stderr.splitlines()
        if line.startswith("error: ")
    )
    return line


def test_an_archive_that_wants_out(mirror: Path, tmp_path: Path) -> None:
    (mirror / "fewshot_data.zip").write_bytes(pack({"../../../out": b"x"}))
    text = complaint_after("data", "fetch", "fss1000", "--mirror", mirror)
    assert "holds a member outside of it, ../../../out" in text
    assert not list(tmp_path.rglob("out"))
    assert [p.name for p in Path("FSS-1000").iterdir() if p.name != "archives"] == ["splits"]


def test_no_room_to_unpack(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fss_bench("data", "fetch", "fss1000", "--mirror", mirror)
    shutil.rmtree("FSS-1000/cat")
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: usage)
    text = complaint_after("data", "fetch", "fss1000", "--mirror", mirror)
    assert "FSS-1000 has room for 10 bytes" in text
    assert not Path("FSS-1000/cat").exists()


def test_lists_that_cannot_be_read_are_fetched_again(mirror: Path) -> None:
    Path("FSS-1000/splits/trn.txt").mkdir(parents=True)
    Path("FSS-1000/splits/val.txt").write_bytes(b"\xff\xfe")
    done = fss_bench("data", "fetch", "fss1000", "--dry-run", "--mirror", mirror)
    assert "fewshot_data.zip, size not published: not here" in done.stdout


def test_a_damaged_first_fetch_is_not_recorded(mirror: Path) -> None:
    published, record = (
        mirror / "fewshot_data.zip",
        Path("FSS-1000/archives/fewshot_data.zip.sha256"),
    )
    good = published.read_bytes()
    published.write_bytes(good.replace(JPG, bytes(len(JPG))))
    text = complaint_after("data", "fetch", "fss1000", "--mirror", mirror)
    assert "fewshot_data.zip is damaged" in text
    assert text.endswith("remove it and fetch it again")
    Path("FSS-1000/archives/fewshot_data.zip").unlink()
    published.write_bytes(good)
    fss_bench("data", "fetch", "fss1000", "--mirror", mirror, "--quiet")
    assert record.read_text().split() == [hashlib.sha256(good).hexdigest(), "fewshot_data.zip"]
    shutil.rmtree("FSS-1000/cat")
    Path("FSS-1000/archives/fewshot_data.zip").unlink()
    published.write_bytes(good + b"more")
    text = complaint_after("data", "fetch", "fss1000", "--mirror", mirror)
    assert "as at its first fetch" in text


def test_archives_may_be_on_another_disk(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, root = tmp_path / "disk", tmp_path / "FSS-1000"
    for folder in (disk, root):
        folder.mkdir()
    (root / "archives").symlink_to(disk)
    rename = Path.rename

    def within_a_disk(self: Path, target: Path) -> Path:
        if self.resolve().is_relative_to(disk) != target.resolve().is_relative_to(disk):
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", within_a_disk)
    fss_bench("data", "fetch", "fss1000", "--mirror", mirror, "--quiet")
    assert tree(root / "cat") == ["1.jpg", "1.png"]
    assert (disk / "fewshot_data.zip").is_file()


def test_a_killed_unpacking_is_cleared_away(mirror: Path) -> None:
    left = Path("FSS-1000/.fewshot_data.zip.making/cat")
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"")
    fss_bench("data", "fetch", "fss1000", "--mirror", mirror, "--quiet")
    assert tree(Path("FSS-1000/cat")) == ["1.jpg", "1.png"]
    assert not left.parent.exists()


def test_weights_and_the_flags_to_use_them(mirror: Path, tmp_path: Path) -> None:
    names = ["weights", "moco_v2_800ep", "vicreg"]
    done = fss_bench("data", "fetch", *names, "--mirror", mirror)
    assert "checked by the first 8 digits of md5 (the page)" in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "use: --backbone resnet50 --weights weights/moco_v2_800ep_pretrain.pth.tar",
        "use: --backbone resnet50 --weights weights/vicreg_resnet50.pth",
    ]
    again = fss_bench("data", "fetch", *names, "--mirror", mirror)
    assert "was here, 13 bytes, checked by the record of its first fetch" in again.stdout
    place = tmp_path / "a place"
    done = fss_bench("data", "fetch", "vicreg", "--mirror", mirror, "--data-root", place)
    assert f"--weights '{place}/vicreg_resnet50.pth'" in done.stdout


def test_progress_is_lines_elsewhere_than_on_a_terminal(mirror: Path) -> None:
    done = fss_bench("data", "fetch", "vicreg", "--mirror", mirror)
    assert "vicreg_resnet50.pth: 13 of 13 bytes" in done.stderr
    Path("weights/vicreg_resnet50.pth").unlink()
    assert fss_bench("data", "fetch", "vicreg", "--mirror", mirror, "--quiet").stderr == ""


def test_a_plan_asks_no_server_and_makes_nothing(mirror: Path, tmp_path: Path) -> None:
    with loopback.serving(b"") as server:
        done = fss_bench("data", "fetch", *sources.DATASETS, "--dry-run", "--mirror", server.url)
        assert server.asked == []
    assert tree(tmp_path) == [f"mirror/{name}" for name in sorted(published())]
    assert f"    {server.url}/benchmark.tgz\n" in done.stdout


def test_a_plan_tells_all_in_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = fss_bench("data", "fetch", *sources.DATASETS, "weights", "--dry-run")
    lines = done.stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and "://" not in line] == []
    for source in ALL.values():
        for file in source.files:
            assert f"    {file.url}" in lines
            assert all(f"    {name} {digits}" in lines for name, digits in file.hashes.items())
    assert "  VOCtrainval_11-May-2012.tar, 1,999,639,040 bytes: not here" in lines
    Path("VOC2012/archives").mkdir(parents=True)
    Path("VOC2012/archives/benchmark.tgz.part").write_bytes(b"123")
    done = fss_bench("data", "fetch", "pascal5i", "--dry-run", "--json")
    plan = json.loads(done.stdout)["plan"]
    assert [(f["file"], f["state"]) for f in plan] == [
        ("VOCtrainval_11-May-2012.tar", "not here"),
        ("benchmark.tgz", "3 bytes of it"),
    ]
    assert plan[0]["goes_to"][0] == "VOC2012/JPEGImages"


def test_mistakes_are_one_line(mirror: Path, tmp_path: Path) -> None:
    assert "did you mean 'pascal5i'?" in complaint("data", "fetch", "pascal")
    assert "weights needs names" in complaint("data", "fetch", "weights")
    assert "is no folder here" in complaint("data", "fetch", "vicreg", "--mirror", "/nowhere")
    (tmp_path / "file").write_bytes(b"")
    text = complaint("data", "fetch", "vicreg", "--mirror", mirror, "--data-root", "file")
    assert "choose another --data-root" in text
    (mirror / "vicreg_resnet50.pth").unlink()
    text = complaint("data", "fetch", "vicreg", "--mirror", mirror)
    assert "vicreg_resnet50.pth cannot be read" in text
    with pytest.raises(FssBenchError, match="nothing to fetch: name pascal5i"):
        sources.find_sources([])


def test_names_are_found_and_completed() -> None:
    assert [s.name for s in sources.find_sources(["weights", "densecl", "densecl"])] == ["densecl"]
    assert len(sources.find_sources(["weights"], listing=True)) == len(sources.WEIGHTS)
    assert things_to_fetch("coco") == ["coco20i", "coco20i-2017"]


def test_the_table_is_sound() -> None:
    files = [file for source in ALL.values() for file in source.files]
    assert len({file.name for file in files}) == len(files)
    assert len(ALL) == len(sources.DATASETS) + len(sources.WEIGHTS)
    for file in files:
        assert re.fullmatch(r"[\w.-]+", file.name)
        assert bool(file.hashes) == bool(file.known_from)
        for name, digits in file.hashes.items():
            assert re.fullmatch(r"[0-9a-f]{6,}", digits)
            assert len(digits) in (6, 8, DIGITS[name])
        # what anyone on the way could change must be checked to its last digit
        assert file.url.startswith("https://") or is_checked_whole(file)
        assert file.page.startswith("http")


def test_torchvision_names_hold_the_hash_that_runs_know() -> None:
    for name, source in sources.WEIGHTS.items():
        if name.startswith("torchvision_"):
            (file,) = source.files
            digits = file.hashes["sha256"]
            assert file.name.endswith(f"-{digits}.pth")
            assert source.backbone in KNOWN_FILES[digits]


def test_backbones_of_weights_exist() -> None:
    import timm

    assert {s.backbone for s in sources.WEIGHTS.values()} <= set(timm.list_models())


def test_the_lists_of_fss_are_the_official_ones(shared: Path) -> None:
    names = {}
    for file in sources.DATASETS["fss1000"].files[:-1]:
        content = (shared / "lists" / "hsnet" / "fss" / Path(file.lands).name).read_bytes()
        assert len(content) == file.size
        assert hashlib.sha256(content).hexdigest() == file.hashes["sha256"]
        names[Path(file.lands).stem] = sorted(content.decode().split())
    lines = [f"train {n}" for n in names["trn"]] + [f"test {n}" for n in names["test"]]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == fss1000.OFFICIAL_SPLIT_SHA256
