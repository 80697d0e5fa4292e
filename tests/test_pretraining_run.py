"""Whole pretraining runs: resumed, killed, shared by processes, refused."""

import errno
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretraining_ranks import on_ranks
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_pretraining import RECIPES, make_images, tiny_config
from torch import Tensor, nn
from torch import distributed as dist

from fss_bench import create_backbone
from fss_bench.compute import Compute
from fss_bench.distributed import World, find_world, joined
from fss_bench.errors import FssBenchError, ResultsError
from fss_bench.pretraining import trainer as trainer_module
from fss_bench.pretraining.curves import curves_png, figures_of
from fss_bench.pretraining.encoder import Encoder
from fss_bench.pretraining.objective import Objective, Outcome
from fss_bench.pretraining.setup import PretrainConfig, build_start
from fss_bench.pretraining.state import Folder
from fss_bench.pretraining.trainer import Trainer, pretrain
from fss_bench.pretraining.watching import Pretrained, Tick, Watch

TIMES = ("seconds",)
KILLS = 2


class CrashError(Exception):
    """What ends a run in the middle."""


def crash_after(step: int) -> Watch:
    def check(tick: Tick) -> None:
        if tick.step == step:
            raise CrashError

    return Watch(step=check)


def log_of(folder: Folder) -> list[dict[str, Any]]:
    """The log without times."""
    return [{k: v for k, v in e.items() if k not in TIMES} for e in folder.entries()]


def assert_same(one: Folder, other: Folder) -> None:
    """Equal weights, bit for bit, and equal logs."""
    first, second = load_file(one.weights), load_file(other.weights)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert log_of(one) == log_of(other)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def plot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that these runs do the plot takes longest: one test draws it."""
    if request.function is not test_files_of_a_run:
        monkeypatch.setattr("fss_bench.pretraining.finishing.curves_png", lambda *_: b"a plot")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for seed, name in enumerate(("ant", "bee")):
        make_images(folder / name, 3, seed)
    return folder


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pretrained]:
    """The run of a method by `tiny_config`, made once for all tests, which leave it as it is."""

    @cache
    def run(method: str) -> Pretrained:
        return pretrain(tiny_config(method, images, tmp_path_factory.mktemp(method)))

    return run


Finished = Callable[[str], Pretrained]


@pytest.mark.parametrize("stop", [3, 5])
def test_resumed_run_equals_an_uninterrupted_one(
    images: Path, tmp_path: Path, stop: int, finished: Finished
) -> None:
    """Stopped at the end of an epoch, and in the middle of one, after the checkpoint of step 4."""
    whole = finished("moco-2")
    broken = tiny_config("moco-2", images, tmp_path / "broken", save_every=2)
    with pytest.raises(CrashError):
        pretrain(broken, crash_after(stop))
    assert not Folder(tmp_path / "broken").weights.exists()
    told: list[str] = []
    steps: list[int] = []
    resumed = pretrain(broken, Watch(note=told.append, step=lambda tick: steps.append(tick.step)))
    assert steps[0] == (5 if stop == 5 else 3)
    assert told == [f"going on from step {steps[0] - 1} of 6, epoch {1 + (steps[0] - 1) // 3} of 2"]
    assert_same(whole.folder, resumed.folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", RECIPES)
def test_every_method_resumes_bit_for_bit(
    images: Path, labelled: Path, tmp_path: Path, method: str
) -> None:
    options: dict[str, Any] = {"knn": labelled, "knn_every": 1}
    whole = pretrain(tiny_config(method, images, tmp_path / "whole", **options))
    for save_every, stop in ((1, 2), (2, 5), (3, 4), (4, 3), (5, 6)):
        output = tmp_path / f"{save_every}"
        broken = tiny_config(method, images, output, save_every=save_every, **options)
        with pytest.raises(CrashError):
            pretrain(broken, crash_after(stop))
        assert_same(whole.folder, pretrain(broken).folder)


def arguments(method: str, images: Path, output: Path) -> list[str]:
    """The command line of `tiny_config`, with more epochs."""
    config = tiny_config(method, images, output, options={"epochs": 8}, save_every=2)
    words = [sys.executable, "-m", "fss_bench", "pretrain", config.method, "--images", images]
    words += ["--output", output, "--backbone", config.backbone, "--save-every", 2]
    words += ["--workers", 1, "--device", "cpu"]
    if config.version:
        words += ["--version", config.version]
    for name, value in config.options.items():
        words += ["--option", f"{name}={value}"]
    return [str(word) for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("method", RECIPES)
def test_killed_runs_end_with_the_same_weights(images: Path, tmp_path: Path, method: str) -> None:
    """SIGKILL to the whole process group at random moments, until a run comes to its end."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pretrain(tiny_config(method, images, whole, options={"epochs": 8}))
    rng, kills = random.Random(method), 0
    while not (broken / "weights.safetensors").exists():
        before = _lines(broken)
        process = subprocess.Popen(
            arguments(method, images, broken),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wanted = before + rng.randint(3, 9)
        while process.poll() is None and kills < KILLS and _lines(broken) < wanted:
            time.sleep(0.005)
        time.sleep(0.1 * rng.random())
        if kills < KILLS and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills > 0
    assert_same(Folder(whole), Folder(broken))


def _lines(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_and_goes_on(images: Path, tmp_path: Path, number: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pretrain(tiny_config("moco-2", images, whole, options={"epochs": 8}))
    words = arguments("moco-2", images, broken)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while _lines(broken) < 6 and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, number)  # as a terminal does: the workers get it too
    out, errors = process.communicate()
    assert process.returncode == 130, errors
    assert out == ""
    last = errors.splitlines()[-1]
    assert last == "interrupted: the same command goes on from here"
    assert "Traceback" not in errors
    step = torch.load(broken / "checkpoint.pt", weights_only=True)["step"]
    assert step >= 4
    subprocess.run(words, check=True, capture_output=True)
    assert_same(Folder(whole), Folder(broken))


def test_training_moves_the_weights(images: Path, tmp_path: Path, finished: Finished) -> None:
    """So that equal weights are no accident; another seed has others."""
    short = {"options": {"epochs": 1}}
    runs = [
        load_file(finished("moco-2").folder.weights),
        load_file(
            pretrain(tiny_config("moco-2", images, tmp_path, seed=1, **short)).folder.weights
        ),
        {f"query.{k}": v for k, v in start_of(images, tmp_path / "start").items()},
    ]
    name = next(n for n in runs[0] if n.startswith("query.") and n.endswith("conv1.weight"))
    assert not torch.equal(runs[0][name], runs[1][name])
    assert not torch.equal(runs[0][name], runs[2][name])
    momentum = name.replace("query.", "momentum.")
    assert not torch.equal(runs[0][name], runs[0][momentum])


def start_of(images: Path, output: Path) -> dict[str, Tensor]:
    """The trunk before its first step, with the seed of `tiny_config`."""
    trunk = open_trainer(tiny_config("moco-2", images, output)).objective.encoder.trunk
    return trunk.state_dict()


def test_workers_do_not_matter(images: Path, tmp_path: Path, finished: Finished) -> None:
    alone = finished("npid")
    helped = pretrain(tiny_config("npid", images, tmp_path / "2", workers=2))
    assert_same(alone.folder, helped.folder)


def test_files_of_a_run(images: Path, labelled: Path, tmp_path: Path) -> None:
    run = pretrain(
        tiny_config("moco-2", images, tmp_path, knn=labelled, knn_every=1, options={"lr": 0.1})
    )
    kinds = [entry["kind"] for entry in run.folder.entries()]
    assert kinds == [
        *("start", "knn"),
        *("step", "step", "step", "epoch", "knn"),
        *("step", "step", "step", "epoch", "knn"),
    ]
    epochs = [entry for entry in run.folder.entries() if entry["kind"] == "epoch"]
    steps = [entry for entry in run.folder.entries() if entry["kind"] == "step"]
    for i, epoch in enumerate(epochs):
        for name in ("loss", "accuracy"):
            mean = sum(step[name] for step in steps[3 * i : 3 * i + 3]) / 3
            assert epoch[name] == pytest.approx(mean)
    # cosine by epoch of the rate for 8 images: 0.1 * 8 / 256, then half of it
    assert [entry["lr"] for entry in epochs] == pytest.approx([0.003125, 0.0015625])
    assert run.figures["loss_last"] == epochs[-1]["loss"]
    assert {"knn_before", "knn", "knn_momentum"} <= run.figures.keys()
    assert run.folder.curves.read_bytes().startswith(b"\x89PNG")
    record = json.loads(run.folder.record.read_text())
    assert record["recipe"]["queue_size"] == 16
    assert record["images"] == 24
    assert record["skipped"] == 0
    assert record["finished"] is not None
    assert record["figures"] == run.figures
    assert record["environment"]["lightly"]


def test_weights_are_those_of_the_encoders(images: Path, tmp_path: Path) -> None:
    run = pretrain(tiny_config("moco-2", images, tmp_path))
    tensors = load_file(run.folder.weights)
    names = set(create_trunk().state_dict())
    assert set(tensors) == {f"{p}.{name}" for p in ("query", "momentum") for name in names}
    with safe_open(run.folder.weights, "pt") as file:
        about = json.loads(file.metadata()["fss_bench_weights"])
    assert about["method"] == "moco"
    assert about["version"] == 2
    assert about["backbone"] == "test_resnet"
    assert (about["epochs"], about["steps"], about["images"]) == (2, 6, 24)
    assert len(about["mean"]) == len(about["std"]) == 3
    assert re.fullmatch("[0-9a-f]{64}", about["images_sha256"])
    assert about["recipe"]["temperature"] == 0.2
    state = torch.load(run.folder.checkpoint, weights_only=True)
    for name in names:
        stored = state["objective"][f"encoder.trunk.{name}"]
        assert torch.equal(stored, tensors[f"query.{name}"])


def create_trunk() -> nn.Module:
    import timm

    return timm.create_model("test_resnet", num_classes=0)


def test_weights_load_as_a_backbones(images: Path, tmp_path: Path) -> None:
    run = pretrain(tiny_config("simclr", images, tmp_path))
    backbone = create_backbone("test_resnet", run.folder.weights)
    tensors = load_file(run.folder.weights)
    model = backbone.model.state_dict()  # type: ignore[union-attr, operator]
    for name, tensor in model.items():
        assert torch.equal(tensor, tensors[f"query.{name}"]), name


def test_training_starts_from_weights(images: Path, tmp_path: Path) -> None:
    first = pretrain(tiny_config("npid", images, tmp_path / "a"))
    second = tiny_config("npid", images, tmp_path / "b", weights=str(first.folder.weights))
    trainer = open_trainer(second)
    there = load_file(first.folder.weights)
    for name, tensor in trainer.objective.encoder.trunk.state_dict().items():
        assert torch.equal(tensor, there[f"query.{name}"])


def test_starting_weights_are_not_loaded_again(
    images: Path, tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "start.safetensors"
    file.write_bytes(finished("npid").folder.weights.read_bytes())
    config = tiny_config("npid", images, tmp_path / "run", weights=str(file), save_every=1)
    with pytest.raises(CrashError):
        pretrain(config, crash_after(3))
    state = torch.load(config.folder / "checkpoint.pt", weights_only=True)
    assert state["config"]["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr("fss_bench.weights.load_weights", broken)
        assert pretrain(config).trained
    file.write_bytes(finished("moco-2").folder.weights.read_bytes())
    with pytest.raises(FssBenchError, match=r"weights_sha256 [0-9a-f]{64} there and"):
        pretrain(config)


def test_the_first_layout_is_handed_on(images: Path, tmp_path: Path, finished: Finished) -> None:
    """Weights pretrained from weights that were pretrained: what the first needed stays needed."""
    first = finished("npid").folder.weights
    assert build_start(tiny_config("npid", images, tmp_path, weights=str(first))).layout == "timm"


def test_the_network_is_left_in_training(images: Path, tmp_path: Path) -> None:
    assert build_start(tiny_config("moco-2", images, tmp_path)).trunk.training


def test_groups_are_checked_before_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fss_bench.pretraining.preparation.take_pictures", broken)
    options = {"batch_size": 9, "queue_size": 18}
    with pytest.raises(FssBenchError, match="cannot be split into 2, 4 or 8"):
        pretrain(tiny_config("moco-2", images, tmp_path, options=options))
    with pytest.raises(FssBenchError, match="bn_groups=2: 9 images"):
        pretrain(tiny_config("moco-2", images, tmp_path, options={**options, "bn_groups": 2}))


@pytest.mark.parametrize("place", ["write_weights", "write_curves", "write_record"])
def test_killed_while_it_writes_its_results_a_run_writes_them_anew(
    images: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("npid", images, tmp_path, options={"epochs": 1})
    write = getattr(Folder, place)

    def crash(folder: Folder, *content: Any) -> None:
        if place != "write_record" or content[0]["finished"]:
            raise CrashError
        write(folder, *content)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, place, crash)
        with pytest.raises(CrashError):
            pretrain(config)
    assert json.loads((tmp_path / "pretrain.json").read_text())["finished"] is None
    done = pretrain(config)
    assert done.trained
    record = json.loads(done.folder.record.read_text())
    assert record["finished"]
    again = pretrain(config)
    assert not again.trained
    assert again.record == record == done.record


def test_results_are_on_the_disk_before_they_have_their_names(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []  # inodes, which files that are gone may have had before
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: (synced.append(os.fstat(f).st_ino), sync(f))[1])
    done = pretrain(tiny_config("npid", images, tmp_path, options={"epochs": 1}))
    places = [done.folder.checkpoint, done.folder.weights, done.folder.curves, done.folder.record]
    last = {inode: i for i, inode in enumerate(synced)}
    order = [last[file.stat().st_ino] for file in places]
    assert order == sorted(order)
    folder = tmp_path.stat().st_ino
    assert [synced[i + 1] for i in order] == [folder] * 4


def test_a_log_without_epochs_is_named(tmp_path: Path) -> None:
    entries = [{"loss": 1.0}, {"kind": "epoch"}, {"kind": "start", "images": 3}]
    with pytest.raises(ResultsError, match=r"log\.jsonl has no line of an epoch"):
        figures_of(entries, tmp_path / "log.jsonl")
    numbers = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "lr": 0.1, "seconds": 2.0}
    figures = figures_of([*entries, {"kind": "epoch", **numbers}], tmp_path / "log.jsonl")
    assert (figures["loss_last"], figures["seconds"]) == (1.0, 2.0)
    assert curves_png(entries, "nothing to show").startswith(b"\x89PNG")


def open_trainer(config: PretrainConfig) -> Trainer:
    folder = Folder(config.folder)
    folder.prepare(resume=True).release()
    return Trainer(config, find_world(), torch.device("cpu"), folder, Watch())


def test_another_configuration_is_refused(images: Path, tmp_path: Path) -> None:
    config = tiny_config("moco-2", images, tmp_path, options={"epochs": 1})
    pretrain(config)
    before = config.folder.joinpath("checkpoint.pt").read_bytes()
    other = tiny_config(
        "moco-2", images, tmp_path, options={"epochs": 1, "temperature": 0.5}, seed=3
    )
    with pytest.raises(FssBenchError) as caught:
        pretrain(other)
    text = str(caught.value)
    assert "seed 0 there and 3 here; temperature 0.2 there and 0.5 here" in text
    assert "--no-resume" in text
    assert "\n" not in text
    assert config.folder.joinpath("checkpoint.pt").read_bytes() == before


def test_other_images_are_refused(images: Path, tmp_path: Path) -> None:
    own = make_images(tmp_path / "own")
    config = tiny_config("npid", own, tmp_path / "run", options={"epochs": 1})
    pretrain(config)
    make_images(own, 1, seed=9)
    with pytest.raises(FssBenchError, match="images_sha256"):
        pretrain(config)


def test_a_finished_run_is_left_alone(images: Path, tmp_path: Path) -> None:
    config = tiny_config("npid", images, tmp_path, options={"epochs": 1})
    first = pretrain(config)
    times = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir() if f.name[0] != "."}
    second = pretrain(config)
    assert first.trained
    assert not second.trained
    assert second.figures == first.figures
    assert {f: f.stat().st_mtime_ns for f in times} == times
    first.folder.weights.unlink()  # as after a kill between the last checkpoint and the weights
    assert pretrain(config).trained
    assert first.folder.weights.exists()


def test_no_resume_starts_over(images: Path, tmp_path: Path) -> None:
    config = tiny_config("npid", images, tmp_path, options={"epochs": 1})
    first = pretrain(config)
    log = log_of(first.folder)
    other = tiny_config("npid", images, tmp_path, options={"epochs": 1}, seed=1, resume=False)
    assert pretrain(other).trained
    assert log_of(first.folder) != log
    with pytest.raises(CrashError):
        pretrain(replace(config, resume=False), crash_after(1))
    assert pretrain(config).trained
    assert log_of(first.folder) == log


def test_two_processes_never_share_a_folder(images: Path, tmp_path: Path) -> None:
    config = tiny_config("npid", images, tmp_path)
    lock = Folder(tmp_path).prepare(resume=True)
    try:
        with pytest.raises(ResultsError, match="another process is pretraining"):
            pretrain(config)
    finally:
        lock.release()


class Plain(Objective):
    """Squared distance of two embeddings; no batch norm, so that a batch is its parts' sum."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        head = nn.Linear(trunk.num_features, 4)  # type: ignore[arg-type]
        self.encoder = Encoder(trunk, head, (0.5,) * 3, (0.5,) * 3)
        self.momentum_encoder = None

    def forward(self, first: Tensor, second: Tensor | None, indices: Tensor) -> Outcome:
        self.eval()
        loss = (self.encoder(first) - 1 - self.encoder(second)).square().mean()
        return Outcome(loss, torch.zeros(()))


def test_accumulated_batches_equal_a_large_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "create_objective", lambda r, trunk, *_: Plain(trunk))
    options = {"momentum": 0.9, "queue_size": 24, "lr": 1.0}
    large = pretrain(
        tiny_config("moco-2", images, tmp_path / "1", options={**options, "batch_size": 24})
    )
    parts = pretrain(
        tiny_config(
            "moco-2", images, tmp_path / "3", options={**options, "batch_size": 8}, accumulate=3
        )
    )
    assert [e["loss"] for e in large.folder.entries() if e["kind"] == "step"] == pytest.approx(
        [e["loss"] for e in parts.folder.entries() if e["kind"] == "step"], rel=1e-5
    )
    one, other = (load_file(run.folder.weights) for run in (large, parts))
    names = start_of(images, tmp_path / "2")
    moved = max((one[f"query.{n}"] - names[n]).abs().max().item() for n in names)
    apart = max((one[f"query.{n}"] - other[f"query.{n}"]).abs().max().item() for n in names)
    assert moved > 1e-3
    assert apart < 1e-2 * moved  # sums in another order; a wrong scale is as far as it moved


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_precisions(images: Path, tmp_path: Path, precision: str, finished: Finished) -> None:
    compute = Compute("cpu", precision)
    config = tiny_config("moco-2", images, tmp_path / "a", compute=compute, save_every=2)
    run = pretrain(config)
    tensors = load_file(run.folder.weights)
    assert {t.dtype for t in tensors.values()} == {torch.float32, torch.int64}
    full = finished("moco-2")
    assert run.figures["loss_last"] == pytest.approx(full.figures["loss_last"], rel=0.05)
    assert run.figures["loss_last"] != full.figures["loss_last"]
    state = torch.load(run.folder.checkpoint, weights_only=True)
    assert bool(state["scaler"]) == (precision == "fp16")
    broken = replace(config, output=tmp_path / "c")
    with pytest.raises(CrashError):
        pretrain(broken, crash_after(5))
    assert_same(run.folder, pretrain(broken).folder)


def test_a_loss_that_is_no_number_stops_the_run(images: Path, tmp_path: Path) -> None:
    config = tiny_config("simclr", images, tmp_path, save_every=1, options={"warmup_epochs": 0})
    poisoned: list[bytes] = []

    def poison(tick: Tick) -> None:
        if tick.step == 2:
            with torch.no_grad():
                next(trainer.objective.encoder.parameters()).fill_(torch.nan)

    folder = Folder(tmp_path)
    folder.prepare(resume=True).release()
    trainer = Trainer(config, find_world(), torch.device("cpu"), folder, Watch(step=poison))
    save = folder.save

    def keep(state: Mapping[str, Any]) -> None:
        if state["step"] < 2:
            save(state)
            poisoned.append(folder.checkpoint.read_bytes())

    object.__setattr__(folder, "save", keep)
    with pytest.raises(FssBenchError, match="the loss of step 3 is nan") as caught:
        trainer.run()
    names = {picture.name for picture in trainer.job.pictures.usable}
    named = set(re.findall(r"\d{3}\.jpg", str(caught.value)))
    assert len(named) == 8
    assert named == {trainer.job.pictures.usable[i].name for i in trainer.plan.forwards(2)[0]}
    assert named < names
    assert folder.checkpoint.read_bytes() == poisoned[-1]


def test_a_full_disk_leaves_the_checkpoint_before(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Finished
) -> None:
    config = tiny_config("npid", images, tmp_path, save_every=2)
    whole = torch.save
    kept: list[bytes] = []

    def fill(state: Any, file: Any) -> None:
        if state["step"] == 4:
            kept.append((tmp_path / "checkpoint.pt").read_bytes())
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fill)
        with pytest.raises(ResultsError, match="No space left on device") as caught:
            pretrain(config)
    assert "goes on from the last checkpoint" in str(caught.value)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept[0]
    assert not list(tmp_path.glob(".checkpoint*"))
    assert_same(pretrain(config).folder, finished("npid").folder)


def test_a_damaged_checkpoint_is_named(images: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ResultsError, match=r"checkpoint\.pt cannot be read.*--no-resume"):
        pretrain(tiny_config("npid", images, tmp_path))


def test_an_image_lost_while_training_is_named(tmp_path: Path) -> None:
    own = make_images(tmp_path / "own")
    config = tiny_config("npid", own, tmp_path / "run")

    def lose(tick: Tick) -> None:
        for file in own.iterdir():
            file.unlink()

    with pytest.raises(FssBenchError, match=r"\.jpg is missing"):
        pretrain(config, Watch(step=lose))


def test_no_generator_is_left_changed(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    random.seed(1)
    pretrain(tiny_config("moco-2", images, tmp_path / "a", options={"epochs": 1}))
    after = torch.rand(1).item(), random.random()
    torch.manual_seed(1)
    random.seed(1)
    assert after == (torch.rand(1).item(), random.random())


def digest_of(trainer: Trainer) -> str:
    """Of what must be equal in all processes: parameters and the state beside them."""
    digest = hashlib.sha256()
    tensors = {**dict(trainer.objective.named_parameters()), **trainer.objective.extra_state()}
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("method", RECIPES)
def test_two_processes_agree(images: Path, labelled: Path, tmp_path: Path, method: str) -> None:
    config = tiny_config(method, images, tmp_path / "run", knn=labelled, save_every=2, accumulate=1)
    Folder(config.folder).prepare(resume=True).release()

    def train(rank: int) -> tuple[str, int]:
        world = find_world()
        assert (world.rank, world.size) == (rank, 2)
        watch = crash_after(5)  # in both
        trainer = Trainer(config, world, torch.device("cpu"), Folder(config.folder), watch)
        with pytest.raises(CrashError):
            trainer.run()
        trainer = Trainer(config, world, torch.device("cpu"), Folder(config.folder), Watch())
        assert trainer.run().trained
        return digest_of(trainer), trainer.step

    (tmp_path / "ranks").mkdir()
    one, other = on_ranks(train, tmp_path / "ranks")
    assert one == other
    assert one[1] == 6

    def train_whole(rank: int) -> str:
        whole = replace(config, output=tmp_path / "whole")
        Folder(whole.folder).root.mkdir(exist_ok=True)
        trainer = Trainer(whole, find_world(), torch.device("cpu"), Folder(whole.folder), Watch())
        trainer.run()
        return digest_of(trainer)

    (tmp_path / "more").mkdir()
    assert on_ranks(train_whole, tmp_path / "more") == [one[0], one[0]]
    assert_same(Folder(tmp_path / "run"), Folder(tmp_path / "whole"))


class BrokenError(FssBenchError):
    """What a test breaks."""


def broken(*_: object) -> None:
    raise BrokenError("no space")


@pytest.mark.slow
def test_a_failure_of_the_first_process_ends_both(
    images: Path, labelled: Path, tmp_path: Path
) -> None:
    """Wherever it fails alone, the other neither waits nor speaks."""
    places = ("append", "save", "write_record", "write_weights", "write_curves", "cut_log")

    def fail(rank: int) -> list[str]:
        found = []
        for place in (*places, "knn", "loss"):
            config = tiny_config("npid", images, tmp_path / place, options={"epochs": 1})
            with pytest.MonkeyPatch.context() as patch:
                if place in places and rank == 0:
                    patch.setattr(Folder, place, broken)
                if place == "knn":
                    config = replace(config, knn=labelled)
                    patch.setattr("fss_bench.pretraining.knn.knn_accuracy", broken)
                if place == "loss":
                    patch.setattr(trainer_module, "math", SimpleNamespace(isfinite=lambda _: False))
                found.append(_ending(config))
        return found

    (tmp_path / "ranks").mkdir()
    first, second = on_ranks(fail, tmp_path / "ranks")
    assert first == [*["BrokenError"] * (len(places) + 1), "FssBenchError"]
    assert second == ["ToldElsewhereError"] * len(first)


def _ending(config: PretrainConfig) -> str:
    try:
        pretrain(config)
    except Exception as error:
        return type(error).__name__
    return "none"


@pytest.mark.slow
def test_torchrun_says_a_failure_once(images: Path, tmp_path: Path) -> None:
    """Of the first process alone, at its end; the other had a broken connection to tell of."""
    (tmp_path / "weights.safetensors").mkdir()
    words = arguments("npid", images, tmp_path)[1:]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(start, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "cannot write to" in lines[0]
    assert "gloo" not in done.stderr


@pytest.mark.slow
def test_a_process_that_goes_away_is_not_told_of_by_the_other(tmp_path: Path) -> None:
    def leave(rank: int) -> str:
        dist.destroy_process_group()
        meeting = f"file://{tmp_path}/again"
        patch = pytest.MonkeyPatch()
        begin = dist.init_process_group
        patch.setattr(
            dist, "init_process_group", partial(begin, init_method=meeting, rank=rank, world_size=2)
        )
        world = World(rank, 2, rank)
        found = ""
        try:
            with joined(world, torch.device("cpu")):
                world.wait()
                if rank == 0:
                    raise ZeroDivisionError
                world.wait()
        except Exception as error:
            found = type(error).__name__
        patch.undo()
        begin("gloo", init_method=f"{meeting}-2", rank=rank, world_size=2)
        return found

    (tmp_path / "ranks").mkdir()
    ends = on_ranks(leave, tmp_path / "ranks")
    assert ends == ["ZeroDivisionError", "ToldElsewhereError"]


def test_processes_add_up_once_a_step(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, wishes to stop and lost images travel together."""
    sums: list[int] = []
    monkeypatch.setattr(World, "total", lambda self, v: (sums.append(len(v)), v)[1])
    pretrain(tiny_config("npid", images, tmp_path, options={"epochs": 1}))
    assert sums == [4, 4, 4]


def test_no_other_gpu_is_seeded(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = open_trainer(tiny_config("moco-2", images, tmp_path, options={"epochs": 1}))
    seeded: list[int] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeded.append)
    torch.random.manual_seed(0)
    assert seeded == [0]  # what it would do
    trainer.run()
    assert seeded == [0]


@pytest.mark.slow
def test_torchrun(images: Path, tmp_path: Path) -> None:
    """Two processes as a user starts them: one speaks; another number of them is refused."""
    words = arguments("moco-2", images, tmp_path)[1:]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(start, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights.safetensors") == 2  # the file, and the command that uses it
    again = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "processes 2 there and 1 here" in again.stderr


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"RANK": "0"}, "RANK are set and WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not"),
        (
            {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
            "RANK='2', WORLD_SIZE='2', LOCAL_RANK='0': start several processes with torchrun",
        ),
        ({"RANK": "a", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK='a'"),
    ],
)
def test_half_set_variables_are_refused(
    variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert find_world().size == 1
    if len(variables) > 1:
        variables = {**variables, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FssBenchError, match=re.escape(text)):
        find_world()


def test_a_foreign_checkpoint_is_refused(images: Path, tmp_path: Path) -> None:
    config = tiny_config("npid", images, tmp_path / "out")
    pretrain(config)
    file = tmp_path / "out" / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    torch.save({"format": state["format"]}, file)
    with pytest.raises(ResultsError, match="it lacks config"):
        pretrain(config)
    state["objective"].popitem()
    torch.save(state, file)
    with pytest.raises(ResultsError, match="does not fit the network"):
        pretrain(config)


def test_a_damaged_line_of_the_log_costs_no_weights(images: Path, tmp_path: Path) -> None:
    config = tiny_config("npid", images, tmp_path / "out")
    done = pretrain(config)
    lines = done.folder.log.read_bytes().splitlines(keepends=True)
    lines[1] = bytes(len(lines[1]) - 1) + b"\n"
    done.folder.log.write_bytes(b"".join(lines))
    done.folder.weights.unlink()
    assert pretrain(config).folder.weights.is_file()
