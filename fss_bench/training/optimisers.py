"""The optimiser of a recipe, and the average of weights."""

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fss_bench.errors import FssBenchError
from fss_bench.training.recipe import Recipe

FACTOR = "rate_factor"
"""Key of a parameter group: the factor on its learning rate."""


def create_optimiser(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the parameters that get gradients; its rate is set later.

    Raises:
        FssBenchError: there are none, or a pattern of `rates` fits none.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    used = set()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            pattern, factor = _rate_of(name, recipe)
            used.add(pattern)
            groups.setdefault(factor, []).append(parameter)
    if not groups:
        raise FssBenchError(
            "there is nothing to learn: the method has no parameters of its own; add --recipe "
            "train_backbone=true"
        )
    idle = [pattern for pattern, _ in recipe.rates if pattern not in used]
    if idle:
        raise FssBenchError(
            f"recipe rates: {idle[0]} fits no parameter that learns (or an earlier pattern takes "
            "them all): leave it out"
        )
    listed: list[dict[str, Any]] = [{"params": p, FACTOR: f} for f, p in groups.items()]
    decay = recipe.weight_decay
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            listed,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=decay,
        )
    kind = torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW
    return kind(listed, lr=recipe.lr, weight_decay=decay)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate` times its own factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group[FACTOR]


def average_of(module: nn.Module, keep: float) -> AveragedModel:
    """A copy of a module that keeps this share of itself whenever it is updated.

    Buffers, such as statistics of batch norm, are taken over as they are.
    """
    update = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=update, use_buffers=False)


def _rate_of(name: str, recipe: Recipe) -> tuple[str | None, float]:
    for pattern, factor in recipe.rates:
        if fnmatchcase(name, pattern):
            return pattern, factor
    return None, 1.0
