"""`tests/plugin`, a package of its own with a method, a dataset and a backbone, installed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

PACKAGE = Path(__file__).parent / "plugin"
RUN = "tiny_means --dataset tiny_squares --backbone tiny_pool --weights none"
COMMANDS = {
    "evaluate": f"evaluate {RUN} --fold all --episodes 4 --ways 2 --output OUT --json --quiet",
    "train": f"train {RUN} --fold 0 --steps 2 --validation none --workers 0 --output OUT/trained "
    "--json --quiet",
    "trained": f"evaluate {RUN.rpartition(' --backbone')[0]} --fold 0 --episodes 4 "
    "--checkpoint OUT/trained/fold0.safetensors --output OUT --json --quiet",
    "check": "check-method tiny_means --backbone tiny_pool --option input_size=32 --json",
    "checked on the tiny network": "check-method tiny_means --json",
    "index": "data index --dataset tiny_squares",
}
DRIVER = """
import contextlib, io, json, sys
from fss_bench.cli import main
answers = {}
for name, command in json.loads(sys.stdin.read()).items():
    out = io.StringIO()
    sys.argv = ["fss-bench", *command.split()]
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as end:
        answers[name] = [end.code, out.getvalue()]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed; this one's stays as it is."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    how = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*pip, *how, str(PACKAGE)], check=True)
    return {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def answers(environment: dict[str, str], output: Path) -> dict[str, Any]:
    """Status and stdout of every command, all in one process, where torch is loaded once."""
    commands = {name: line.replace("OUT", str(output)) for name, line in COMMANDS.items()}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert {name: status for name, (status, _) in found.items() if status} == {}, done.stderr
    return {name: text for name, (_, text) in found.items()}


@pytest.mark.parametrize(
    ("what", "line"),
    [
        (
            "methods",
            "tiny_means: pixels go to the class with the nearest mean; how sharply is learnt; "
            '"A tiny paper", Tiny 2026 [fss-tiny]',
        ),
        ("datasets", "tiny_squares: a square of one of eight colours"),
        ("backbones", "tiny_pool: colours averaged over squares; nothing is learnt. [fss-tiny]"),
    ],
)
def test_it_is_listed_and_not_imported(environment: dict[str, str], what: str, line: str) -> None:
    code = (
        "import sys; from fss_bench.cli import app\n"
        f"app(['list', {what!r}], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('fss_tiny', 'torch')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert line in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_it_is_evaluated_and_on_the_leaderboard(answers: dict[str, Any], output: Path) -> None:
    runs = json.loads(answers["evaluate"])["runs"]
    assert [(r["method"], r["backbone"], r["fold"]) for r in runs] == [
        ("tiny_means", "tiny_pool", 0),
        ("tiny_means", "tiny_pool", 1),
    ]
    assert all(r["dataset"]["name"].startswith("tiny_squares@32-") for r in runs)
    assert all(r["metrics"]["miou"] > 0.5 for r in runs)  # colours are told apart
    board = pd.read_csv(output / "leaderboard.csv")
    (row,) = board[board["weights"] == "none"].to_dict("records")
    assert row["method"] == "tiny_means"
    assert row["runs"] == " ".join(r["run_id"] for r in runs)
    assert row["miou"] == pytest.approx(100 * sum(r["metrics"]["miou"] for r in runs) / 2, abs=0.01)


def test_it_is_trained_and_its_checkpoint_evaluated(answers: dict[str, Any], output: Path) -> None:
    assert json.loads(answers["train"])["trained"]
    (run,) = json.loads(answers["trained"])["runs"]
    assert run["checkpoint"]["layout"] == "fss_bench"
    assert (run["method"], run["backbone"]) == ("tiny_means", "tiny_pool")
    assert len(pd.read_csv(output / "leaderboard.csv")) == 2


@pytest.mark.parametrize("name", ["check", "checked on the tiny network"])
def test_it_keeps_the_contract(answers: dict[str, Any], name: str) -> None:
    report = json.loads(answers[name])
    assert report["passed"]
    outcomes = {check["check"]: check["outcome"] for check in report["checks"]}
    assert set(outcomes.values()) == {"passed"}
    assert len(outcomes) == 21
    assert report["backbone"] == ("tiny_pool" if name == "check" else "test_resnet")


def test_its_dataset_is_indexed(answers: dict[str, Any]) -> None:
    assert "test: 32 images, 32 pairs of image and class" in answers["index"]
