"""Files that change on the disk or come from strangers."""

import hashlib
import json
import random
import warnings
from pathlib import Path

import loopback
from conftest import made_run
from fault_lab import Lab, Outcome
from made_archives import KINDS, MAKERS

from fss_bench.archives import unpack
from fss_bench.downloading import download
from fss_bench.errors import FetchError, FssBenchError
from fss_bench.results import ResultStore
from fss_bench.source import SourceFile
from fss_bench.transfer import Patience


def journal_damaged(lab: Lab, number: int, root: Path) -> Outcome:
    from fss_bench.partial_run import PartialRun

    rng, rows = random.Random(number), [{"index": i, "inter_fg": 12345 + i} for i in range(30)]
    journal = PartialRun(root / "journal")
    journal.append(rows)
    file = journal.folder / "episodes.jsonl"
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] = rng.choice(b"0123456789 \n\0{")
    file.write_bytes(content)
    found = journal.rows()
    good = found == rows[: len(found)]
    return Outcome(1, "" if good else f"byte {place}: a damaged record was taken for a whole one")


def _other_digit(number: float, rng: random.Random) -> float:
    digits = list(str(number))
    place = rng.choice([i for i, digit in enumerate(digits) if digit.isdigit()])
    digits[place] = rng.choice("0123456789")
    return type(number)("".join(digits))


def score_changed(lab: Lab, number: int, root: Path) -> Outcome:
    rng, store = random.Random(number), ResultStore(root)
    folder = store.write(made_run(rng.randint(0, 1000) / 1000)).path
    file = (folder or root) / "run.json"
    content = json.loads(file.read_text())
    metrics = content["metrics"]
    part = rng.choice([metrics, metrics["per_class"]["cat"], metrics["per_class"]["dog"]])
    name = rng.choice([key for key, value in part.items() if isinstance(value, int | float)])
    if name in ("class_id", "episodes"):
        return Outcome(0)
    changed = _other_digit(part[name], rng)
    if abs(changed - part[name]) < 1e-11:
        return Outcome(0)
    part[name] = changed
    file.write_text(json.dumps(content))
    try:
        store.load(file.parent)
    except FssBenchError as error:
        return Outcome(1, "" if "\n" not in str(error) else "a message of several lines")
    return Outcome(1, f"{name} {changed} was read")


def download_disturbed(lab: Lab, number: int, root: Path) -> Outcome:
    """By up to four misbehaviours of a server, before it serves well or for ever."""
    rng = random.Random(number)
    content = random.Random(number // 7).randbytes(rng.choice((1, 5000, 80_000)))
    size = len(content)
    other = bytes([content[0] ^ 1]) + content[1:]
    kinds = [
        *(loopback.cut(rng.randrange(size)), loopback.stall(rng.randrange(size))),
        *(loopback.chunked_and_cut, loopback.ignore_range, loopback.page()),
        *(loopback.say(size + 7), loopback.say(max(size - 1, 0)), loopback.say(None)),
        *map(loopback.status, (403, 404, 408, 416, 429, 500, 503)),
        *map(loopback.redirect, ("file:///etc/passwd", "/file.bin", "http://127.0.0.1:9/x")),
        lambda handler: setattr(handler.server, "content", other) or loopback.serve(handler),
    ]
    target, script = root / "file.bin", [rng.choice(kinds) for _ in range(rng.randint(1, 4))]
    planned = len(script)
    facts = {"size": rng.choice((size, None)), "hashes": {"sha256": _sha256(content)}}
    with loopback.serving(content) as server:
        file = SourceFile("file.bin", f"{server.url}/file.bin", "page", "free", **facts)
        server.script = script
        for _ in range(6):
            try:
                download(file, target, patience=Patience(stall=0.2, tries=2, wait=0.0))
            except FetchError as error:
                if target.exists() or "\n" in str(error):
                    return Outcome(1, f"{error}; left in its place: {target.exists()}")
                if not server.script:
                    server.content = content  # mended
            else:
                break
    good = target.is_file() and target.read_bytes() == content
    return Outcome(planned - len(script), "" if good else "other bytes, or none in six attempts")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


NAMES = "a a/b ../a ../../a /tmp/a a/../../b C:/a C:\\a ..\\a a\0b . .. ./a a//b ~/a a/. \u202ea"


def archive_breaks_out(lab: Lab, number: int, root: Path) -> Outcome:
    """Members with names and kinds that lead elsewhere."""
    rng = random.Random(number)
    entries = [
        (rng.choice(NAMES.split(" ")), rng.choice(sorted(KINDS))) for _ in range(rng.randint(1, 5))
    ]
    form = rng.choice(sorted(MAKERS))
    try:
        with warnings.catch_warnings(action="ignore"):  # names that are there twice
            content = MAKERS[form](entries)
    except ValueError:  # no such archive can be made
        return Outcome(0)
    (root / "archive").write_bytes(content)
    try:
        unpack(root / "archive", root / "in" / "side", ("",))
    except FetchError as error:
        if "\n" in str(error):
            return Outcome(1, "a message of several lines")
    inside = root / "in" / "side"
    outside = [p for p in root.rglob("*") if inside not in (p, *p.parents)]
    links = [p for p in inside.rglob("*") if p.is_symlink()]
    good = {*outside} <= {root / "archive", root / "in"} and not links
    return Outcome(1, "" if good else f"{form} {entries}: {outside} {links}")
