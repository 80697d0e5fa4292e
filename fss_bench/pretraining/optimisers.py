"""The optimiser of a recipe."""

from typing import Any

import torch
from torch import nn

from fss_bench.pretraining.lars import Lars
from fss_bench.pretraining.recipes import Recipe


def create_optimiser(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the parameters that get gradients; its rate is set later.

    Args:
        recipe: `decay` says whether vectors, such as biases and batch norm, decay too.
        module: what is trained.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    decay = recipe.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": decay if recipe.decay == "all" else 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.sgd_momentum)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return Lars(
        groups,
        lr=recipe.lr,
        momentum=recipe.sgd_momentum,
        trust=recipe.lars_trust,
        lr_inside=recipe.lars_lr == "inside",
    )
