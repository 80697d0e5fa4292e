"""Damaged files for every reader: each must be read, or refused in one line.

A case is a number: it decides which good file is damaged and how, so that a finding can be made
again from its reader and number alone.
"""

import json
import random
import shutil
import string
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fss_bench.errors import FssBenchError

Read = Callable[[Path], object]
WORDS = (
    *(b"\0", b"\xff\xff\xff\xff", b"\xff\xfe", b"-1", b"NaN", b"1e999", b"null", b"{}", b"[]"),
    *(b"[" * 3000, b'{"a":' * 1500, b"9" * 5000, b"\xed\xa0\x80", b"../../etc", b'"', b"\r\n"),
    *(struct.pack("<Q", 2**63 - 1), struct.pack(">I", 2**31 - 1), b"inf", b"<!ENTITY a '&a;&a;'>"),
)


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: what it reads.
        suffix: of its files.
        seeds: good files.
        read: the reader.
    """

    name: str
    suffix: str
    seeds: tuple[bytes, ...]
    read: Read

    def content(self, number: int) -> bytes:
        """The file of a case."""
        rng = random.Random(f"{self.name} {number}")
        content = bytearray(rng.choice(self.seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            rng.choice(DAMAGES)(content, rng)
        return bytes(content)

    def outcome(self, number: int, file: Path) -> str:
        """`read`, `refused`, or what went wrong in a case."""
        file.write_bytes(self.content(number))
        try:
            with warnings.catch_warnings(action="ignore"):  # Pillow's, of odd metadata
                self.read(file)
        except FssBenchError as error:
            text = str(error)
            fair = text.strip() and "\n" not in text and len(text) < 2000
            return "refused" if fair else f"a message of {len(text)} characters: {text[:80]!r}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:160]}"
        return "read"


def _flip(content: bytearray, rng: random.Random) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _byte(content: bytearray, rng: random.Random) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.randrange(256)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randint(0, len(content)) :]


def _drop(content: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(content))
    del content[start : start + rng.choice((1, 2, 4, 40))]


def _insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(content))
    content[start:start] = rng.choice(WORDS)


def _double(content: bytearray, rng: random.Random) -> None:
    start = rng.randint(0, len(content))
    part = content[start : start + rng.choice((1, 8, 80))]
    content[start:start] = part


def _number(content: bytearray, rng: random.Random) -> None:
    """Another number in place of one written in digits."""
    places = [i for i, byte in enumerate(content) if chr(byte) in string.digits]
    if places:
        start = rng.choice(places)
        word = rng.choice((b"-1", b"0", b"256", b"99999999999", b"1.5", b"1e400", b'"x"', b"true"))
        content[start : start + 1] = word


DAMAGES = (_flip, _byte, _cut, _drop, _insert, _double, _number)


def targets(work: Path) -> list[Target]:
    """All readers; `work` is a folder of theirs."""
    return [
        Target("photograph", ".img", tuple(_pictures("RGB")), _reader("images", "read_image")),
        Target("label map", ".png", tuple(_pictures("P")), _reader("images", "read_label_map")),
        Target("mask", ".png", tuple(_pictures("L")), _reader("images", "read_binary_mask")),
        Target("protocol", ".toml", (PROTOCOL,), _reader("protocol_files", "read_protocol")),
        Target("published results", ".csv", (_published(),), _load_published),
        Target("COCO annotations", ".json", (COCO,), _reader("coco_masks", "read_annotations")),
        Target("hsnet list", ".txt", (b"2007_000033__01\n2007_000061__04\n" * 20,), _pairs),
        Target("record of a run", ".json", (_run(work)[0],), _run_reader(work, "run.json")),
        Target(
            "table of a run", ".parquet", (_run(work)[1],), _run_reader(work, "episodes.parquet")
        ),
        Target("journal", ".jsonl", (_journal(work),), _journal_reader(work)),
        Target(
            "checkpoint", ".pth", tuple(_checkpoints()), _reader("weight_files", "read_state_dict")
        ),
        Target(
            "safetensors",
            ".safetensors",
            (_safetensors(),),
            _reader("weight_files", "read_state_dict"),
        ),
        Target("zip archive", ".zip", (_zip(),), _unpacker(work / "zip")),
        Target("tar archive", ".tar", (_tar("w"), _tar("w:gz")), _unpacker(work / "tar")),
    ]


TABLE, STATE = "episodes.parquet", "read_state_dict"
PROTOCOL = b'name = "mine"\nbase = "standard"\nepisodes = 200\nquery_ignore = "background"\n'
COCO = json.dumps(
    {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 48, "width": 64} for i in range(4)],
        "annotations": [
            {
                "id": i,
                "image_id": i % 4,
                "category_id": 1 + i % 2,
                "iscrowd": i % 3 == 0,
                "segmentation": {"size": [48, 64], "counts": [100, 200, 2772]}
                if i % 3 == 0
                else [[1, 1, 20, 1, 20, 20, 1, 20]],
            }
            for i in range(6)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
).encode()
RECORDS = [{"index": i, "class_ids": [1], "inter_fg": 3} for i in range(20)]


def _reader(module: str, name: str) -> Read:
    from importlib import import_module

    found: Read = getattr(import_module(f"fss_bench.{module}"), name)
    return found


def _pictures(mode: str) -> Iterable[bytes]:
    pixels = np.random.RandomState(0).randint(0, 21, (24, 32), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture = picture.convert(mode) if mode != "P" else picture
    kinds = {"RGB": ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"), "P": ("PNG",), "L": ("PNG",)}
    for kind in kinds[mode]:
        content = BytesIO()
        if mode == "P":
            picture.putpalette(list(range(256)) * 3)
        picture.save(content, kind)
        yield content.getvalue()


def _published() -> bytes:
    from fss_bench.published import FILE_COLUMNS

    numbers = "42.3,58.0,51.1,41.2,48.1,66.5,verified,verified,verified"
    line = f'PANet,VGG16,pascal5i,panet,1,1,{numbers},"P, 2019",T1,'
    return ("\n".join([",".join(FILE_COLUMNS), *[line] * 3]) + "\n").encode()


def _load_published(file: Path) -> object:
    from fss_bench.published import load_published

    return load_published(file)


def _pairs(file: Path) -> object:
    from fss_bench.published_orders import _read_pairs

    return _read_pairs(file)


def _run(work: Path) -> tuple[bytes, bytes]:
    """Record and table of a good run."""
    from conftest import made_run

    from fss_bench.results import ResultStore

    folder = ResultStore(work / "good").write(made_run()).path
    assert folder is not None
    return (folder / "run.json").read_bytes(), (folder / "episodes.parquet").read_bytes()


def _run_reader(work: Path, name: str) -> Read:
    """Reads a run whose one file is damaged, and makes a leaderboard of it."""
    from fss_bench.leaderboard import build_rows
    from fss_bench.report.table import to_csv
    from fss_bench.results import ResultStore

    folder = work / f"damaged-{name}"
    folder.mkdir(exist_ok=True)
    for other, content in zip(("run.json", "episodes.parquet"), _run(work), strict=True):
        (folder / other).write_bytes(content)

    def read(file: Path) -> object:
        (folder / name).write_bytes(file.read_bytes())
        return to_csv(build_rows([ResultStore(work).load(folder)]))

    return read


def _journal(work: Path) -> bytes:
    from fss_bench.partial_run import PartialRun

    partial = PartialRun(work / "journal")
    partial.append(RECORDS)
    content = (partial.folder / "episodes.jsonl").read_bytes()
    partial.discard()
    return content


def _journal_reader(work: Path) -> Read:
    from fss_bench.partial_run import PartialRun

    def read(file: Path) -> object:
        partial = PartialRun(work / "journal")
        partial.folder.mkdir(exist_ok=True)
        (partial.folder / "episodes.jsonl").write_bytes(file.read_bytes())
        rows = partial.rows()
        assert rows == RECORDS[: len(rows)], "a damaged record was taken for a whole one"
        assert rows == partial.rows(), "reading changed what is read"
        return rows

    return read


def _checkpoints() -> Iterable[bytes]:
    import torch

    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}
    for content, old in ((state, False), ({"state_dict": state, "epoch": 3}, False), (state, True)):
        stream = BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=not old)
        yield stream.getvalue()


def _safetensors() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a.weight": torch.arange(12.0).reshape(3, 4)}, {"fss_bench": "{}"})


MEMBERS = {"a/1.txt": b"one" * 200, "a/b/2.txt": b"", "dd/out": b"out"}
"""Two other bytes, and the last is above the folder."""


def _zip() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in MEMBERS.items():
            made.writestr(name, content)
    return stream.getvalue()


def _tar(mode: str) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as made:  # type: ignore[call-overload]
        for name, content in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, BytesIO(content))
    return stream.getvalue()


def _unpacker(work: Path) -> Read:
    """Unpacks into a folder and looks for what is outside of it, or is no file."""
    from fss_bench.archives import unpack

    def read(file: Path) -> object:
        shutil.rmtree(work, ignore_errors=True)
        try:
            return unpack(file, work / "in")
        finally:
            assert [p.name for p in work.iterdir()] == ["in"], "something is outside"
            assert not any(p.is_symlink() for p in work.rglob("*")), "there is a link"

    return read
