"""Faults that are injected on purpose, with what is promised of each.

A case is a number: it decides the moment and the kind. Its outcome says how often something was
injected, and what happened in place of what is promised: nothing, if all is well.
"""

import csv
import errno
import json
import math
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pandas as pd
import torch
from conftest import made_run, write_folder
from fault_commands import Command, Hindrance
from fault_runs import write_runs
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.report.console import board_rows
from fss_bench.report.table import to_csv
from fss_bench.results import ResultStore

EVALUATE = (
    "evaluate panet --workers 0 --quiet --backbone resnet18 --weights none "
    "--option level=c3 --option input_size=64 --device cpu --fold 0"
).split()
SHAPES = "--dataset shapes --shots 1,2 --episodes 40".split()
OWN = "--rule min_pixels=1 --shots 1 --episodes 60 --dataset folder --data-root".split()
FEW = "--dataset shapes --shots 1 --episodes 8".split()
INTERRUPTED = "interrupted: the same command goes on from here"
WRITERS = "8 writers x 50 runs in one folder"
SAME = "the same command ends with the table of an undisturbed run"
Tables = dict[str, pd.DataFrame]


class Outcome(NamedTuple):
    """How often a fault was injected, and what happened against the promise."""

    times: int
    found: str = ""


class Lab:
    """A folder for what commands print, with the tables of undisturbed runs."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._whole: dict[str, Tables] = {}
        self._lock = Lock()

    def start(self, root: Path, *words: str, hindrance: Hindrance | None = None) -> Command:
        """An evaluation."""
        words = (*EVALUATE, *words, "--output", str(root))
        return Command([*words], self.work, hindrance or Hindrance())

    def whole(self, words: list[str]) -> Tables:
        """Tables of an undisturbed run; the last word, where the data are, does not count."""
        key = " ".join(words[:8])
        with self._lock:
            if key not in self._whole:
                root = self.work / f"whole-{len(self._whole)}"
                command = self.start(root, *words)
                if command.status():
                    raise RuntimeError(command.text)
                self._whole[key] = tables(root)
        return self._whole[key]

    def goes_on(self, root: Path, words: list[str]) -> str:
        """What is wrong after the same command once more."""
        command = self.start(root, *words)
        if command.status():
            return f"once more: status {command.status()}: {command.text[-200:]}"
        found, whole = tables(root), self.whole(words)
        if found.keys() != whole.keys() or any(not found[k].equals(whole[k]) for k in whole):
            return "once more: another table"
        if left := [*root.glob(".partial/*/*"), *root.glob(".*.tmp")]:
            return f"left behind: {left}"
        return board_fault(root)


def tables(root: Path) -> Tables:
    """The episode tables of a results folder without times, by number of shots."""
    return {
        str(run.record["shots"]): run.episodes.drop(columns="ms").astype(str)
        for run in ResultStore(root).runs()
    }


def in_journal(root: Path) -> int:
    """How many records unfinished runs have."""
    return sum(file.read_bytes().count(b"\n") for file in root.glob(".partial/*/episodes.jsonl"))


def refusal_fault(command: Command) -> str:
    """What is wrong with the end of a command that met a fault."""
    status, text = command.status(), command.text
    told = [line for line in text.splitlines() if line.startswith("error: ")]
    fair = status == 0 or (status == 2 and len(told) == 1 and text.endswith(told[0] + "\n"))
    return "" if fair and "Traceback" not in text else f"status {status}: {text[-300:]}"


def board_fault(root: Path) -> str:
    """What is wrong with a leaderboard."""
    file = root / "leaderboard.csv"
    expected = to_csv(board_rows(root, print))
    return "" if file.read_text(encoding="utf-8") == expected else "another leaderboard"


def killed(lab: Lab, number: int, root: Path) -> Outcome:
    rng, kills, last = random.Random(number), 0, 0
    lab.whole(SHAPES)
    for _ in range(5):
        how = f"--batch-size {rng.choice('137')} --workers {rng.choice('0012')}".split()
        command = lab.start(root, *SHAPES, *how, "--cache-gb", rng.choice("01"))
        target = last + rng.randint(0, 15)
        command.wait(lambda target=target: in_journal(root) >= target)
        time.sleep(rng.random() * 0.05)
        command.send(signal.SIGKILL)
        if command.status() == 0:
            break
        if command.status() != -signal.SIGKILL:
            return Outcome(kills, f"status {command.status()}: {command.text[-300:]}")
        kills += 1
        now = in_journal(root)
        if now < last and not list(ResultStore(root).runs()):
            return Outcome(kills, f"{last - now} records were lost")
        last = now
    return Outcome(kills, lab.goes_on(root, SHAPES))


def stopped(by: signal.Signals, lab: Lab, number: int, root: Path) -> Outcome:
    rng = random.Random(number)
    command = lab.start(root, *SHAPES, "--workers", rng.choice("001"))
    target = rng.randint(0, 60)
    command.wait(lambda: in_journal(root) >= target or bool(list(root.glob("runs/*"))))
    time.sleep(rng.random() * 0.05)
    command.send(by)
    if command.status() == 0:
        return Outcome(0, lab.goes_on(root, SHAPES))
    lines = command.text.splitlines()
    if command.status() != 130 or lines[-1:] != [INTERRUPTED] or "Traceback" in command.text:
        return Outcome(1, f"status {command.status()}: {command.text[-300:]}")
    return Outcome(1, lab.goes_on(root, SHAPES))


def board_killed(lab: Lab, number: int, root: Path) -> Outcome:
    rng, file = random.Random(number), root / "leaderboard.csv"
    command = Command(partial(write_runs, root, 0, 40), lab.work)
    command.wait(lambda: bool(list(root.glob("runs/**/run.json"))))
    time.sleep(rng.random() * 0.3)
    command.send(signal.SIGKILL)
    if command.status() == 0:
        return Outcome(0)
    if file.exists():
        text = file.read_text(encoding="utf-8")
        widths = {len(row) for row in csv.reader(text.splitlines())}
        if len(widths) != 1 or not text.endswith("\n"):
            return Outcome(1, "half a leaderboard")
    write_runs(root, 60, 1)
    left = [str(path) for path in root.glob(".leaderboard.csv.*.tmp")]
    return Outcome(1, f"left behind: {left}" if left else board_fault(root))


def operation_fails(lab: Lab, number: int, root: Path) -> Outcome:
    errors = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
    hindrance = Hindrance(1 + number % 80, errors[number // 80 % len(errors)], str(root))
    command = lab.start(root, *FEW, "--save-predictions", hindrance=hindrance)
    found = refusal_fault(command)
    return Outcome(int(command.met), found or lab.goes_on(root, FEW))


def file_too_large(lab: Lab, number: int, root: Path) -> Outcome:
    size = random.Random(number).randint(50, 12_000)
    command = lab.start(root, *FEW, hindrance=Hindrance(largest_file=size))
    return Outcome(int(command.status() != 0), refusal_fault(command) or lab.goes_on(root, FEW))


def may_mount(folder: Path) -> bool:
    """Whether this user may make small disks."""
    return _mount(folder, "size=64k") and not subprocess.call(["umount", str(folder)])


def _mount(folder: Path, options: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "fss-bench-test", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def full_disk(lab: Lab, number: int, root: Path) -> Outcome:
    size = 4 * random.Random(number).randint(1, 14)
    if not _mount(root, f"size={size}k"):
        raise PermissionError(f"may not mount {root}")
    try:
        command = lab.start(root, *SHAPES)
        found = refusal_fault(command)
        if command.status() and not any(w in command.text for w in ("No space left", "free space")):
            found = found or f"another error: {command.text[-200:]}"
        subprocess.check_call(["mount", "-o", "remount,size=64m", str(root)])
        return Outcome(int(command.status() != 0), found or lab.goes_on(root, SHAPES))
    finally:
        subprocess.check_call(["umount", str(root)])


def data_vanishes(lab: Lab, number: int, root: Path) -> Outcome:
    rng = random.Random(number)
    tree = write_folder(root / "tree", per_class=12)
    words, results = [*OWN, str(tree)], root / "results"
    lab.whole(words)
    how = f"--batch-size {rng.choice('14')} --workers {rng.choice('02')}".split()
    command = lab.start(results, *how, *words)
    target = rng.randint(0, 40)
    command.wait(lambda: in_journal(results) >= target)
    tree.rename(root / "elsewhere")
    found = refusal_fault(command)
    (root / "elsewhere").rename(tree)
    return Outcome(int(command.status() != 0), found or lab.goes_on(results, words))


def same_command(lab: Lab, number: int, root: Path) -> Outcome:
    commands = [lab.start(root, *FEW) for _ in range(4)]
    for command in commands:
        fair = command.status() == 0 or "another process is working on run" in command.text
        if found := refusal_fault(command) or ("" if fair else command.text[-200:]):
            return Outcome(len(commands), found)
    if all(command.status() for command in commands):
        return Outcome(len(commands), "none of them did the work")
    return Outcome(len(commands), lab.goes_on(root, FEW))


def one_index(lab: Lab, number: int, root: Path) -> Outcome:
    write_folder(root / "tree", per_class=5)
    cache = {"FSS_BENCH_CACHE": str(root / "cache")}
    words = ["data", "index", "--dataset", "folder", "--data-root", str(root / "tree")]
    commands = [Command(words, lab.work, environment=cache) for _ in range(6)]
    wrong = [command.text[-200:] for command in commands if command.status()]
    files = [path.name for path in (root / "cache").rglob("*.parquet")]
    if not wrong and (len(files) != 1 or list((root / "cache").rglob("*.tmp"))):
        wrong = [f"the cache holds {files}"]
    if not wrong and len({command.text.splitlines()[-1] for command in commands}) != 1:
        wrong = ["they say different things"]
    return Outcome(len(commands), "".join(wrong[:1]))


def many_writers(lab: Lab, number: int, root: Path, each: int = 50) -> Outcome:
    many, one = root / "many", root / "one"
    commands = [
        Command(partial(write_runs, many, first * each, each), lab.work) for first in range(8)
    ]
    wrong = [command.text[-300:] for command in commands if command.status()]
    write_runs(one, 0, 8 * each, boards=1)
    if (many / "leaderboard.csv").read_bytes() != (one / "leaderboard.csv").read_bytes():
        wrong.append("another leaderboard than that of one writer")
    if left := list(many.glob(".leaderboard.csv.*.tmp")):
        wrong.append(f"left behind: {left}")
    return Outcome(8 * each, "; ".join(wrong))


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


def logits_not_finite(lab: Lab, number: int, root: Path) -> Outcome:
    """Some of an episode's, in one of twelve; a run that counts it takes up what the first left."""
    from fss_bench import Compute, create_dataset, evaluate

    rng = random.Random(number)
    method = _Failing(rng.randrange(12), rng.choice((math.nan, math.inf, -math.inf)))
    shapes, store = create_dataset("shapes"), ResultStore(root)
    try:
        evaluate(method, shapes, episodes=12, store=store)
    except FssBenchError as error:
        text = str(error)
    else:
        return Outcome(1, "a run was made of it")
    if "NaN or infinite logits in episode" not in text or "\n" in text or list(store.runs()):
        return Outcome(1, text)
    if len(list(root.glob(".partial/*/failed-episode-*.safetensors"))) != 1:
        return Outcome(1, "no copy of its input")
    method.calls = 0
    counted = evaluate(
        method, shapes, episodes=12, compute=Compute(failed_episodes="count"), store=store
    )
    (inter, union), *_ = counted.episodes.query("failed")[["inter_fg", "union_fg"]].to_numpy()
    good = counted.record["failed"] == 1 and inter == 0 < union
    return Outcome(1, "" if good else f"counted as {inter} / {union}")


class _Failing(nn.Module):
    """Takes bright pixels for the way; one number of one of its answers is not finite."""

    input_size = 32

    def __init__(self, fails_at: int, value: float) -> None:
        super().__init__()
        self.fails_at, self.value, self.calls = fails_at, value, 0

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        way = query.mean(1) - 0.5
        logits = torch.stack([-way, way], dim=1)
        if self.calls == self.fails_at + 1:  # the first call counts what it costs
            logits[0, self.calls % 2, 3, 5] = self.value
        self.calls += 1
        return logits


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: what happens.
        promise: what is promised then.
        inject: makes a case.
        cases: how many the campaign makes.
    """

    name: str
    promise: str
    inject: Callable[[Lab, int, Path], Outcome]
    cases: int


REFUSED = "one line and status 2, or it is not needed; " + SAME
FAULTS = (
    Fault("SIGKILL at a random moment of an evaluation", f"no record is lost; {SAME}", killed, 60),
    Fault("SIGTERM", f"status 130; {SAME}", partial(stopped, signal.SIGTERM), 60),
    Fault("Ctrl-C", f"status 130; {SAME}", partial(stopped, signal.SIGINT), 60),
    Fault(
        "SIGKILL while leaderboards are written",
        "the old or the new leaderboard; the next update is whole and leaves nothing behind",
        board_killed,
        100,
    ),
    Fault("a file operation fails", REFUSED, operation_fails, 150),
    Fault("a file may not grow", REFUSED, file_too_large, 60),
    Fault("the disk is full", REFUSED, full_disk, 40),
    Fault("the data vanish in the middle", REFUSED, data_vanishes, 60),
    Fault("one command, four at a time", f"one works, others say so; {SAME}", same_command, 20),
    Fault("six processes index one tree", "one index, one answer", one_index, 20),
    Fault(WRITERS, "the leaderboard of one writer", many_writers, 1),
    Fault(
        "logits that are NaN or infinite",
        "the run stops in one line and keeps the input, or counts the episode as wrong everywhere",
        logits_not_finite,
        100,
    ),
    Fault(
        "a byte of a journal changes",
        "records before it are kept, it and what follows is done again",
        journal_damaged,
        3000,
    ),
    Fault("a digit of a score changes", "the run is refused in one line", score_changed, 2000),
)
