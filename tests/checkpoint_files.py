"""Small checkpoints in our form, of PANet on EfficientNet-Lite0 with random weights."""

from pathlib import Path
from typing import Any

from torch import nn

from fss_bench import create_backbone, create_dataset, create_method
from fss_bench.checkpoint import Checkpoint, TrainedOn
from fss_bench.conversion import save_checkpoint
from fss_bench.layout import Variant

SMALL = "tf_efficientnet_lite0"
NAMES = tuple(f"class{i}" for i in range(1, 5))
"""Classes of `make_folder`, in two folds."""


def new(seed: int = 0, **options: Any) -> nn.Module:
    """PANet on random weights."""
    return create_method("panet", create_backbone(SMALL, weights="none", seed=seed), **options)


def write_checkpoint(
    path: Path,
    seed: int = 7,
    fold: int | None = None,
    protocol: str = "standard",
    shots: tuple[int, ...] | None = None,
    **options: Any,
) -> nn.Module:
    """Write one, trained on a fold of `make_folder` where that is given; what was written."""
    method = new(seed, **options)
    variant = Variant(SMALL, options, "tuned", shots)
    made = Checkpoint(f"official{seed}.pth", f"{seed:064d}", "made", "panet", variant, protocol)
    base = NAMES[2:] if fold == 0 else NAMES[:2]
    known = None if fold is None else TrainedOn("folder", fold, base)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(method, path, made, known)
    return method


def own_arguments(root: Path) -> list[Any]:
    """Command line for a quick evaluation on `make_folder`."""
    own = ["--dataset", "folder", "--data-root", root, "--rule", "min_pixels=1"]
    return [*own, "--episodes", 2, "--option", "input_size=64"]


def own_dataset(root: Path) -> Any:
    """The dataset of `own_arguments`."""
    return create_dataset("folder", root)
