"""Evaluations that are killed, starved, or run at the same time."""

import csv
import errno
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from conftest import write_folder
from fault_commands import Command, Hindrance
from fault_lab import (
    FEW,
    INTERRUPTED,
    OWN,
    SHAPES,
    Lab,
    Outcome,
    board_fault,
    in_journal,
    refusal_fault,
)
from fault_runs import write_runs

from fss_bench.results import ResultStore


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
