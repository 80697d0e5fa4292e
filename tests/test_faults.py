"""Runs that are killed, stopped, or written by many at once end as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fss_bench.results import ResultStore, Run

EVALUATE = (
    "evaluate panet --dataset shapes --fold 0 --shots 1,2 --episodes 60 --workers 0 --quiet "
    "--backbone resnet18 --weights none --option level=c3 --option input_size=64 --device cpu"
).split()
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from fault_runs import write_runs
write_runs(Path({root!r}), {first}, {number})
"""


def hear_ctrl_c() -> None:
    """A shell has what it starts in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(words: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def evaluate(output: Path, *words: str) -> "subprocess.Popen[str]":
    return start(["-m", "fss_bench", *EVALUATE, "--output", str(output), *words])


def finished(process: "subprocess.Popen[str]") -> int:
    """Its status; what it printed is read, and shown where a test fails."""
    print(*process.communicate(timeout=300))
    return process.returncode


def tables(root: Path) -> dict[str, pd.DataFrame]:
    """The episode tables of a results folder without times, by setting."""
    return {
        f"{run.record['shots']}-shot": run.episodes.drop(columns="ms").astype(str)
        for run in ResultStore(root).runs()
    }


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> bool:
    return found.keys() == expected.keys() and all(found[k].equals(expected[k]) for k in expected)


def in_journal(root: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in root.rglob("episodes.jsonl"))


@pytest.mark.slow
def test_killed_at_any_moment_a_run_ends_with_the_same_table(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finished(evaluate(whole)) == 0
    rng, kills, last = random.Random(0), 0, 0
    for attempt in range(40):
        size = rng.choice(["1", "3", "7"])
        process = evaluate(killed, "--batch-size", size, "--cache-gb", rng.choice(["0", "1"]))
        target = last + rng.randint(0, 15)
        while process.poll() is None and in_journal(killed) < target:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        status = finished(process)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
        now = in_journal(killed)
        assert now >= last or list(ResultStore(killed).runs()), attempt  # nothing done is lost
        last = now
    else:
        assert finished(evaluate(killed)) == 0
    assert kills >= 4
    assert same(tables(killed), tables(whole))
    assert not list((killed / ".partial").glob("*/episodes.jsonl"))
    boards = [
        (root / "leaderboard.csv").read_text().splitlines()[1].split(",")[:8]
        for root in (killed, whole)
    ]
    assert boards[0] == boards[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    process = evaluate(tmp_path / "r", "--episodes", "3000")
    while process.poll() is None and in_journal(tmp_path) < 5:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: the same command goes on from here"
    assert "Traceback" not in err
    done = in_journal(tmp_path)
    assert done >= 5
    again = evaluate(tmp_path / "r", "--episodes", "3000")
    while again.poll() is None and in_journal(tmp_path) <= done:
        time.sleep(0.01)
    assert in_journal(tmp_path) > done  # it took up what was there
    again.kill()
    again.communicate()


@pytest.mark.slow
def test_many_writers_leave_the_leaderboard_of_one(tmp_path: Path) -> None:
    from fault_runs import write_runs

    writers, each = 8, 3
    code = [
        WRITER.format(
            tests=str(Path(__file__).parent),
            root=str(tmp_path / "many"),
            first=n * each,
            number=each,
        )
        for n in range(writers)
    ]
    processes = [start(["-c", text]) for text in code]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    write_runs(tmp_path / "one", 0, writers * each)
    boards = [(tmp_path / name / "leaderboard.csv").read_bytes() for name in ("many", "one")]
    assert boards[0] == boards[1]
    assert boards[0].count(b"\n") == 1 + writers * each // 2
    assert not list((tmp_path / "many").glob(".leaderboard.csv.*.tmp"))


def test_a_leaderboard_that_a_killed_process_left_half_written_is_no_harm(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    from fault_runs import write_runs

    (tmp_path / ".leaderboard.csv.999.tmp").write_text("rank,meth")
    write_runs(tmp_path, 0, 2)
    assert (tmp_path / "leaderboard.csv").read_text().count("\n") == 2
    assert not list(tmp_path.glob(".leaderboard.csv.*.tmp"))


def test_what_follows_a_damaged_record_is_done_again(tmp_path: Path) -> None:
    rows = [{"index": i, "inter": 10 * i} for i in range(4)]
    with ResultStore(tmp_path).partial("abc") as partial:
        partial.append(rows)
        journal = partial.folder / "episodes.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        for damaged in (b"\0" * 20 + b"\n", b"[1]\n", b'{"index": 2, "int\n', b"\xff\xfe\n"):
            journal.write_bytes(lines[0] + lines[1] + damaged + lines[3])
            assert partial.rows() == rows[:2]
            assert journal.read_bytes() == lines[0] + lines[1]
            partial.append(rows[2:])
            assert partial.rows() == rows


def test_a_run_is_replaced_whole_or_not_at_all(
    tmp_path: Path, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fss_bench.errors import ResultsError

    store, before, after = ResultStore(tmp_path), make_run(0.25), make_run(0.5)
    store.write(before)
    move, moves = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        moves.append(target)
        if len(moves) == 2:
            raise OSError(28, "No space left on device")
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_second)
        with pytest.raises(ResultsError, match="No space left"):
            store.write(after)
    (run,) = store.runs()
    assert run.metrics.miou == 0.25
    store.write(after)
    (run,) = store.runs()
    assert run.metrics.miou == 0.5


def test_scores_that_are_not_those_of_the_table_are_refused(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    from fss_bench.errors import ResultsError

    store = ResultStore(tmp_path)
    folder = store.write(make_run(0.25)).path
    assert folder is not None
    content = json.loads((folder / "run.json").read_text())
    for name, value in (("iou", 0.9), ("inter", 1)):
        changed = json.loads(json.dumps(content))
        changed["metrics"]["per_class"]["cat"][name] = value
        (folder / "run.json").write_text(json.dumps(changed))
        with pytest.raises(ResultsError, match="its scores of cat are not those of its table"):
            store.load(folder)
    (folder / "run.json").write_text(json.dumps(content))
    store.load(folder)
