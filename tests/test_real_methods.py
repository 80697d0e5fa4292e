"""Every method from the command line on real photographs, untrained and with a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity import recipe_tensor

from fss_bench import create_backbone, create_method
from fss_bench.checkpoint import layouts
from fss_bench.registry import methods

DATASETS = {"pascal5i": "voc_mini", "coco20i": "coco_mini"}
PUBLISHED = {
    "panet": ("panet", "vgg16_panet", {}),
    "sgone": ("sgone", "vgg16_sgone", {}),
    "cofcn": ("cofcn", "vgg16_fcn32s", {}),
    "guided": ("guided", "vgg16_fcn32s", {}),
    "hsnet": ("hsnet", "resnet50", {}),
    "dcama": ("dcama", "resnet50", {}),
    "msanet": ("msanet", "resnet50_deepstem", {}),
}


def command(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fss_bench", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", methods.names())
def test_evaluates_untrained(shared: Path, tmp_path: Path, method: str, dataset: str) -> None:
    shown = command(
        *("evaluate", method, "--dataset", dataset, "--fold", "0", "--episodes", "2", "--quiet"),
        *("--data-root", str(shared / "data" / DATASETS[dataset]), "--shots", "1,2"),
        *("--backbone", "tf_efficientnet_lite0", "--weights", "packaged", "--json"),
        *("--output", str(tmp_path)),
    )
    runs = json.loads(shown)["runs"]
    assert [run["shots"] for run in runs] == [1, 2]
    assert all(0 <= run["metrics"]["miou"] < 1 for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("method", PUBLISHED)
def test_evaluates_a_converted_checkpoint(shared: Path, tmp_path: Path, method: str) -> None:
    name, backbone, options = PUBLISHED[method]
    layout = layouts()[name]
    empty = create_method(method, create_backbone(backbone, weights="none"), **options)
    state = {
        "module." + layout.published(key): value
        if key.endswith("num_batches_tracked")
        else recipe_tensor(layout.published(key), value.shape)
        for key, value in empty.state_dict().items()
    }
    torch.save({"state_dict": state}, tmp_path / "published_fold0.pth")
    converted = tmp_path / "fold0.safetensors"
    command("convert", str(tmp_path / "published_fold0.pth"), str(converted))
    scores = []
    for file in (tmp_path / "published_fold0.pth", converted):
        shown = command(
            *("evaluate", method, "--dataset", "pascal5i", "--fold", "0", "--episodes", "1"),
            *("--data-root", str(shared / "data" / "voc_mini"), "--checkpoint", str(file)),
            *("--output", str(tmp_path / file.stem), "--json", "--quiet"),
        )
        (run,) = json.loads(shown)["runs"]
        assert run["backbone"] == backbone
        assert run["checkpoint"]["sha256"]
        scores.append(run["metrics"]["per_class"])
    assert scores[0] == scores[1]
