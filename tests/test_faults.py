"""Runs that are killed, stopped, or written by many at once end as if nothing had happened."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from fault_lab import WRITERS, Fault, Lab
from fault_runs import write_runs
from faults import FAULTS
from faults_of_runs import many_writers, may_mount

from fss_bench.results import ResultStore, Run

FAULTS_BY_NAME = {fault.name: fault for fault in FAULTS}
QUICK = (
    "a byte of a journal changes",
    "a digit of a score changes",
    "a server cuts, stalls, lies about lengths, redirects, sends other bytes",
    "an archive's members lead elsewhere",
)
CASES = {"SIGKILL while leaderboards are written": 4, "a file operation fails": 8}
"""In the tests; 2 of the others. The campaign (benchmarks/reliability.py) makes more."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def inject(fault: Fault, lab: Lab, numbers: Iterable[int], folder: Path) -> int:
    """Cases that must go as promised; how often the fault was met."""
    times = 0
    for number in numbers:
        root = folder / str(number)
        root.mkdir()
        outcome = fault.inject(lab, number, root)
        assert outcome.found == "", (fault.name, number)
        times += outcome.times
    return times


@pytest.mark.parametrize("name", QUICK)
def test_wrong_numbers_are_seen(name: str, lab: Lab, tmp_path: Path) -> None:
    assert inject(FAULTS_BY_NAME[name], lab, range(20), tmp_path) > 8


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAULTS_BY_NAME.keys() - {*QUICK, WRITERS}))
def test_a_fault_ends_as_promised(name: str, lab: Lab, tmp_path: Path) -> None:
    if name == "the disk is full" and not may_mount(tmp_path / "disk"):
        pytest.skip("this user may not mount a small disk")
    cases = CASES.get(name, 2)
    rng = random.Random(name)
    assert inject(FAULTS_BY_NAME[name], lab, rng.sample(range(60), cases), tmp_path) > 0


@pytest.mark.slow
def test_many_writers_leave_the_leaderboard_of_one(tmp_path: Path, lab: Lab) -> None:
    assert many_writers(lab, 0, tmp_path, each=4) == (32, "")


def test_a_leaderboard_that_a_killed_process_left_half_written_is_no_harm(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    (tmp_path / ".leaderboard.csv.999.tmp").write_text("rank,meth")
    write_runs(tmp_path, 0, 2)
    assert (tmp_path / "leaderboard.csv").read_text().count("\n") == 2
    assert not list(tmp_path.glob(".leaderboard.csv.*.tmp"))


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


class Killed(BaseException):
    """As SIGKILL: nothing is done after it."""


@pytest.mark.parametrize("kept_before", [False, True])
def test_killed_at_any_step_of_storing_a_run_nothing_is_lost(
    tmp_path: Path,
    make_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    kept_before: bool,
) -> None:
    move = Path.rename
    for step in range(1, 5):
        store, record = ResultStore(tmp_path / str(step)), make_run().record
        if kept_before:
            store.write(make_run(0.25))
        partial = store.partial(record["run_id"])
        partial.append([{"index": 0}])
        partial.predictions.mkdir()
        (partial.predictions / "0.png").write_bytes(b"a prediction")
        moves = []

        def killed_at(
            self: Path, target: Path, step: int = step, moves: list[Path] = moves
        ) -> Path:
            moves.append(target)
            if len(moves) == step:
                raise Killed
            return move(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed_at)
            patch.setattr("shutil.move", lambda source, to: Path(source).rename(to))
            try:
                store.write(make_run(0.5), partial.predictions)
            except Killed:
                pass
            else:
                break
        assert {p.name for p in store.root.iterdir()} <= {"runs", ".partial"}
        store.recover(record)
        found = [run.metrics.miou for run in store.runs()]
        assert found == ([0.25] if kept_before else []), step
        assert partial.rows(with_predictions=True) == [{"index": 0}], step
        assert {p.name for p in partial.folder.parent.iterdir() if p.is_dir()} == {"0123456789ab"}
    else:
        raise AssertionError("it was never stored")
    (run,) = store.runs()
    assert run.metrics.miou == 0.5
    assert run.has_predictions
    assert len(moves) == (3 if kept_before else 2)
