"""MoCo v2 on real photographs: it learns, on a CPU, within minutes, what random weights lack."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fss_bench.compute import Compute
from fss_bench.pretraining.setup import PretrainConfig
from fss_bench.pretraining.trainer import pretrain

pytestmark = pytest.mark.slow

OPTIONS = {
    "image_size": 48,
    "batch_size": 64,
    "bn_groups": 2,
    "queue_size": 128,
    "momentum": 0.99,
    "lr": 0.24,
    "temperature": 0.1,
}
EPOCHS = 20
STANDARD_ERRORS = 3


@pytest.fixture(scope="module")
def photographs(shared: Path) -> Path:
    return shared / "data" / "voc_mini" / "JPEGImages"


@pytest.fixture(scope="module")
def classes(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs in a folder a class: that of most labelled pixels."""
    root = tmp_path_factory.mktemp("classes")
    for file in sorted((shared / "data" / "voc_mini" / "SegmentationClass").glob("*.png")):
        labels = np.array(Image.open(file))
        class_id = int(np.bincount(labels[(labels > 0) & (labels < 255)]).argmax())
        folder = root / f"{class_id:02d}"
        folder.mkdir(exist_ok=True)
        photograph = file.parents[1] / "JPEGImages" / f"{file.stem}.jpg"
        (folder / photograph.name).symlink_to(photograph)
    return root


def run(
    photographs: Path, classes: Path | None, output: Path, epochs: int, seed: int, **changes: float
) -> list:
    config = PretrainConfig(
        method="moco",
        version=2,
        backbone="resnet10t",
        images=(photographs,),
        output=output,
        knn=classes,
        knn_every=epochs,
        seed=seed,
        compute=Compute("cpu", workers=0),
        options={**OPTIONS, "epochs": epochs, **changes},
    )
    pretrain(config)
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def losses_of(log: list) -> list[float]:
    """The mean loss of each epoch."""
    return [entry["loss"] for entry in log if entry["kind"] == "epoch"]


def test_moco_learns_from_photographs(photographs: Path, classes: Path, tmp_path: Path) -> None:
    """Loss falls, and kNN accuracy rises by more than the noise of three seeds."""
    # what a network has that does not learn, once the queue holds its keys
    idle = losses_of(run(photographs, None, tmp_path / "idle", epochs=4, seed=0, lr=1e-9))[2:]
    gains = []
    for seed in range(3):
        log = run(photographs, classes, tmp_path / str(seed), EPOCHS, seed)
        assert fmean(losses_of(log)[-3:]) < fmean(idle)
        before, after = (entry["knn"] for entry in log if entry["kind"] == "knn")
        gains.append(after - before)
    error = np.std(gains, ddof=1) / len(gains) ** 0.5
    assert fmean(gains) > STANDARD_ERRORS * error, gains
    assert min(gains) > 0, gains


def test_killed_in_the_middle_it_ends_with_the_same_weights(
    photographs: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(photographs, None, whole, epochs=3, seed=0)
    words = [
        *(sys.executable, "-m", "fss_bench", "pretrain", "moco", "--images", str(photographs)),
        *("--backbone", "resnet10t", "--epochs", "3", "--output", str(broken), "--workers", "0"),
        *("--save-every", "4", "--device", "cpu", "--quiet"),
        *(word for key, value in OPTIONS.items() for word in ("--option", f"{key}={value}")),
    ]
    process = subprocess.Popen(words, start_new_session=True)
    while process.poll() is None and not _steps(broken) > 10:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (broken / "weights.safetensors").exists()
    subprocess.run(words, check=True)
    first, second = (load_file(folder / "weights.safetensors") for folder in (whole, broken))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def _steps(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b'"kind": "step"') if log.exists() else 0
