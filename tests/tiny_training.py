"""Training runs of a second: shapes at 32 pixels, a tiny backbone."""

from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from fss_bench.compute import Compute
from fss_bench.dataset import SegDataset, create_dataset
from fss_bench.training.config import TrainConfig


@cache
def shapes() -> SegDataset:
    """The embedded dataset, its index built once."""
    return create_dataset("shapes")


def tiny_config(output: Path, workers: int = 0, **changes: Any) -> TrainConfig:
    """PANet, 6 steps of 2 episodes, validated on 4 episodes after every third."""
    recipe = {"steps": 6, "batch_size": 2, "lr": 0.01, **changes.pop("recipe", {})}
    return TrainConfig(
        **{
            "method": "panet",
            "dataset": shapes(),
            "backbone": "test_resnet",
            "weights": "none",
            "options": {"input_size": 32},
            "output": output,
            "compute": Compute("cpu", workers=workers),
            "validation_episodes": 4,
            "validate_every": 3,
            "recipe": recipe,
            **changes,
        }
    )


def weights(output: Path, name: str = "fold0", step: int = 6) -> dict[str, Tensor]:
    """The weights after a step, not the chosen ones."""
    return load_file(output / name / "checkpoints" / f"step-{step:08d}.safetensors")
