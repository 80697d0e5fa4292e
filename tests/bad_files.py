"""Protocols, runs, journals and checkpoints as they should not be."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from bad_data import READ, Attempt, Case, WrongReadingError
from conftest import made_run

from fss_bench.partial_run import PartialRun
from fss_bench.protocol_files import read_protocol
from fss_bench.results import ResultStore
from fss_bench.weight_files import read_state_dict

DEEP = 100_000

PROTOCOLS: dict[str, tuple[str, bytes]] = {
    "empty": (READ, b""),
    "cut": ("cannot be read as TOML", b'base = "hsn'),
    "not UTF-8": ("cannot be read as TOML", b'name = "caf\xe9"'),
    f"nested {DEEP:,} deep": ("cannot be read as TOML", b"a = " + b"[" * DEEP),
    "of tables in tables": ("unknown protocol rule 'a'", b"[" + b".".join([b"a"] * 3000) + b"]\n"),
    "with a rule twice": ("cannot be read as TOML", b"episodes = 5\nepisodes = 6\n"),
    "with a number of 5,000 digits": ("cannot be read as TOML", b"episodes = " + b"9" * 5000),
    "with an unknown rule": ("did you mean 'episodes'", b"episode = 5"),
    "with a text for a number": ("episodes", b'episodes = "many"'),
    "with an unknown base": ("did you mean 'hsnet'", b'base = "hsnett"'),
}


def _protocol_case(fault: str) -> Case:
    promised, content = PROTOCOLS[fault]

    def prepare(root: Path) -> Attempt:
        file = root / "mine.toml"
        file.write_bytes(content)
        command = ("protocols", "diff", file, "standard")
        return Attempt(lambda: read_protocol(file), command)

    return Case(f"protocol {fault}", "TOML", promised, prepare)


def _record(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        record = json.loads((folder / "run.json").read_text())
        change(record)
        (folder / "run.json").write_text(json.dumps(record))

    return damage


def _written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _cut(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def _endless(folder: Path) -> None:
    """A table of a million equal rows, which takes a few kilobytes."""
    pd.DataFrame({"index": np.zeros(10**6, np.int64)}).to_parquet(folder / "episodes.parquet")
    assert (folder / "episodes.parquet").stat().st_size < 10_000


def _gone(folder: Path) -> None:
    (folder / "episodes.parquet").unlink()


RUNS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "record that is cut": ("cannot be read", _cut("run.json")),
    "record that is empty": ("cannot be read", _written("run.json", b"")),
    "record that is not UTF-8": ("cannot be read", _written("run.json", b'{"a": "\xe9"}')),
    f"record nested {DEEP:,} deep": ("cannot be read", _written("run.json", b"[" * DEEP)),
    "record that is a list": ("cannot be read", _written("run.json", b"[]")),
    "record of another version": ("schema_version", _record(lambda r: r.update(schema_version=9))),
    "record of another score": (
        "scores of cat are not those",
        _record(lambda r: r["metrics"]["per_class"]["cat"].update(inter=1)),  # type: ignore[index]
    ),
    "table that is cut": ("cannot be read", _cut("episodes.parquet")),
    "table that is empty": ("cannot be read", _written("episodes.parquet", b"")),
    "table that is text": ("cannot be read", _written("episodes.parquet", b"index,iou\n1,0.5\n")),
    "table of a million rows": ("1000000 rows for 4 episodes", _endless),
    "table that is gone": ("cannot be read", _gone),
}


def _run_case(fault: str) -> Case:
    promised, damage = RUNS[fault]

    def prepare(root: Path) -> Attempt:
        store = ResultStore(root / "results")
        folder = store.write(made_run()).path
        assert folder is not None
        damage(folder)
        return Attempt(lambda: store.load(folder), ("leaderboard", "--results", root / "results"))

    return Case(fault, "runs", promised, prepare)


JOURNALS: dict[str, bytes] = {
    "journal with half a line": b'00000000 {"ind',
    "journal with a line of NULs": bytes(40) + b"\n",
    f"journal with a line nested {DEEP:,} deep": b"00000000 " + b"[" * DEEP + b"\n",
    "journal with a line that is not UTF-8": b'00000000 "\xff"\n',
    "journal with a line that is no record": b'[1]\n{"index": 2}\n',
    "journal with a record of another checksum": b'00000000 {"index": 2}\n',
}
"""What comes after two good records."""


def _journal_case(fault: str) -> Case:
    """What was written whole before the damage is kept; the rest is evaluated again."""

    def prepare(root: Path) -> Attempt:
        partial = PartialRun(root / "partial")
        partial.append([{"index": 0}, {"index": 1}])
        with (partial.folder / "episodes.jsonl").open("ab") as file:
            file.write(JOURNALS[fault])

        def read() -> None:
            if [row["index"] for row in partial.rows()] != [0, 1]:
                raise WrongReadingError("other records")

        return Attempt(read)

    return Case(fault, "JSONL", READ, prepare)


def _zip(compressed: bool, **contents: bytes) -> bytes:
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(f"archive/{name.replace('_', '.')}", content)
    return stream.getvalue()


def _safetensors(header: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header


def _tensor(shape: list[int], end: int) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


CHECKPOINTS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "empty": (".pth", "is empty", lambda: b""),
    "web page": (".pth", "is a web page", lambda: b"<!DOCTYPE html><html></html>"),
    "cut": (".pth", "is truncated", lambda: _zip(False, data_pkl=b"x" * 999)[:500]),
    "that runs a program": (
        ".pth",
        "holds Python objects",
        lambda: _zip(False, data_pkl=b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.", version=b"3\n"),
    ),
    "that unpacks to 64 MB": (
        ".pth",
        "unpacks to 6710",
        lambda: _zip(True, data_pkl=b"\x80\x02}.", data=bytes(1 << 26), version=b"3\n"),
    ),
    "with a header of 2^63 bytes": (
        ".safetensors",
        "not a readable checkpoint",
        lambda: _safetensors(b"{}", (1 << 63) - 1),
    ),
    "with a tensor of 10^18 numbers": (
        ".safetensors",
        "not a readable checkpoint",
        lambda: _safetensors(_tensor([10**9, 10**9], 4 * 10**18)),
    ),
    "with a tensor larger than its bytes": (
        ".safetensors",
        "not a readable checkpoint",
        lambda: _safetensors(_tensor([10**6], 4)) + bytes(4),
    ),
    f"with a header nested {DEEP:,} deep": (
        ".safetensors",
        "not a readable checkpoint",
        lambda: _safetensors(b'{"a":' * DEEP),
    ),
}


def _checkpoint_case(fault: str) -> Case:
    suffix, promised, make = CHECKPOINTS[fault]

    def prepare(root: Path) -> Attempt:
        file = root / f"weights{suffix}"
        file.write_bytes(make())
        return Attempt(lambda: read_state_dict(file), ("convert", "--inspect", file))

    return Case(f"checkpoint {fault}", "checkpoints", promised, prepare)


def cases() -> Iterator[Case]:
    yield from (_protocol_case(fault) for fault in PROTOCOLS)
    yield from (_run_case(fault) for fault in RUNS)
    yield from (_journal_case(fault) for fault in JOURNALS)
    yield from (_checkpoint_case(fault) for fault in CHECKPOINTS)
