"""`fss-bench train` as a user meets it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fss_bench.cli import main

TINY = (
    "--fold 0 --backbone test_resnet --weights none --option input_size=32 --steps 6 "
    "--batch-size 2 --lr 0.01 --validation-episodes 4 --validate-every 3 --workers 0"
)


def words(output: Path, *more: str) -> list[str]:
    return ["train", "panet", *TINY.split(), "--output", str(output), *more]


def fss(arguments: list[str], monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["fss-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status


def test_trains_and_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fss(words(tmp_path / "out"), monkeypatch)
    told = capsys.readouterr()
    assert "step 6/6, loss" in told.err
    file = tmp_path / "out" / "fold0.safetensors"
    assert str(file) in told.out
    command = told.out.splitlines()[-1]
    assert command == f"fss-bench evaluate panet --dataset shapes --fold 0 --checkpoint {file}"
    results = tmp_path / "results"
    more = ["--episodes", "2", "--output", str(results), "--json", "--quiet"]
    fss([*command.split()[1:], *more], monkeypatch)
    run = json.loads(capsys.readouterr().out)["runs"][0]
    assert run["checkpoint"]["training"]["steps"] == 6
    assert run["weights"]["source"] == "trained"
    fss(["convert", "--inspect", str(file)], monkeypatch)
    assert "panet on test_resnet" in capsys.readouterr().out


def test_json_and_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--validation", "none", "--steps", "1", "--json", "--quiet")
    for trained in (True, False):
        fss(words(tmp_path, *more), monkeypatch)
        told = capsys.readouterr()
        assert told.err == ""
        (found,) = json.loads(told.out)["trained"]
        assert found["trained"] is trained
        assert Path(found["checkpoint"]).is_file()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("--steps 0", "recipe steps=0: it must be 1 or more"),
        ("--fold 9", "fold 9 is out of range"),
        ("--stage base", "unknown stage of PANet 'base'"),
        ("--recipe lr=1", "--lr 0.01 and --recipe lr=1: give one of them"),
        ("--recipe steep=1", "did you mean"),
        ("--recipe power=2", "counts only with schedule=poly"),
        ("--checkpoint x.pth", "--weights none and --checkpoint x.pth"),
        ("--validation test", "validation"),
        ("--keep 0", "--keep 0: it must be 1 or more"),
        ("--validation-episodes 0", "--validation-episodes 0"),
        ("--batch-size 3 --accumulate 2", "a divisor of the batch of 3"),
        ("--shots 1000", "1000-shot episodes need"),
        ("--backbone-option frozen=true", "train_backbone"),
        ("--protocol hsnett", "hsnet"),
    ],
)
def test_mistakes_are_one_line(
    more: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fss(words(tmp_path / "out", "--quiet", *more.split()), monkeypatch, status=2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert text in error
    assert not (tmp_path / "out").exists()


def _lines(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow
def test_killed_runs_end_with_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL at random moments, until a run comes to its end."""
    more = ("--steps", "30", "--save-every", "2", "--validate-every", "10", "--quiet")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    start = [sys.executable, "-m", "fss_bench"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*start, *words(whole, *more)], check=True, env=environment)
    rng, kills = random.Random(0), 0
    while True:
        wanted = _lines(broken / "fold0") + rng.randint(1, 8)
        process = subprocess.Popen(
            [*start, *words(broken, *more)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        while process.poll() is None and kills < 5 and _lines(broken / "fold0") < wanted:
            time.sleep(0.002)
        time.sleep(0.05 * rng.random())
        if kills < 5 and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.communicate()
            continue
        assert process.communicate()[1] == b""
        assert process.returncode == 0
        break
    assert kills > 0
    for name in ("fold0.safetensors", "fold0/checkpoints/step-00000030.safetensors"):
        one, other = load_file(whole / name), load_file(broken / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_and_goes_on(tmp_path: Path, number: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder: Path) -> "subprocess.Popen[str]":
        more = ("--steps", "30", "--validate-every", "30", "--workers", "1")
        return subprocess.Popen(
            [sys.executable, "-m", "fss_bench", *words(folder, *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )

    def steps_of(folder: Path) -> int:
        log = folder / "fold0" / "log.jsonl"
        return log.read_bytes().count(b'"kind": "step"') if log.exists() else 0

    process = start(broken)
    while steps_of(broken) < 4 and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, number)  # as a terminal does: the workers get it too
    out, errors = process.communicate()
    assert process.returncode == 130, errors
    assert out == ""
    assert errors.splitlines()[-1] == "interrupted: the same command goes on from here"
    assert "Traceback" not in errors
    assert not (broken / "fold0.safetensors").exists()
    kept = [int(f.stem[5:]) for f in (broken / "fold0" / "checkpoints").glob("step-*.state")]
    assert 4 <= max(kept) < 30
    for folder in (broken, whole):
        process = start(folder)
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    last = "fold0/checkpoints/step-00000030.safetensors"
    one, other = load_file(whole / last), load_file(broken / last)
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--precision", "fp16"), ("--precision", "bf16"), ("--compile",)])
def test_quicker_ways_of_training_learn_alike(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Without the alignment term, whose hard regions flip by a rounding."""
    gentle = ("--option", "align=false", "--lr", "0.001", "--validation", "none", "--quiet")
    losses = []
    for name, options in (("plain", ()), ("quick", more)):
        command = [sys.executable, "-m", "fss_bench", *words(tmp_path / name, *gentle, *options)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        lines = (tmp_path / name / "fold0" / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert more == ("--compile",) or losses[0] != losses[1]


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    """Two processes with half the batch each: the loss curve of one with all of it."""
    one, two = tmp_path / "one", tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    more = ("--quiet", "--batch-size", "4")
    alone = [sys.executable, "-m", "fss_bench", *words(one, *more)]
    subprocess.run(alone, check=True, env=environment)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, "-m", "fss_bench", *words(two, *more)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fold0.safetensors") == 2  # the file, and the command that uses it
    logs = []
    for folder in (one, two):
        lines = (folder / "fold0" / "log.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines if '"step"' in line])
    assert len(logs[0]) == len(logs[1]) > 6
    for mine, theirs in zip(*logs, strict=True):
        key = "loss" if mine["kind"] == "step" else "miou"
        assert theirs[key] == pytest.approx(mine[key], rel=1e-3, abs=1e-3)
