"""Where faults are injected: an evaluation of ours, and what must be so after it was disturbed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pandas as pd
from fault_commands import Command, Hindrance

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
