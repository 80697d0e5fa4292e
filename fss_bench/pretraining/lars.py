"""LARS: a step size per tensor, in proportion to its norm.

You, Gitman, Ginsburg, 2017, https://arxiv.org/abs/1708.03888, as MoCo v3 and SimCLR released it:
https://github.com/facebookresearch/moco-v3, https://github.com/google-research/simclr. timm's own
divides by |g| + w |p| where both of them divide by |g + w p|, so it cannot stand in for them.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """Stochastic gradient descent with trust ratios.

    With g' = r (g + w p), where r = trust |p| / |g + w p|, and 1 where a norm is 0:
    MoCo v3 has v <- m v + g', p <- p - lr v (`lr_inside` off), SimCLR has v <- m v + lr g',
    p <- p - v (`lr_inside` on). They differ while the learning rate changes. Tensors of one
    dimension, biases and the scales of normalisation, neither decay nor are they rescaled.

    Args:
        params: tensors or groups of them.
        lr: learning rate.
        momentum: m, in [0, 1).
        weight_decay: w.
        trust: trust coefficient.
        lr_inside: whether the momentum gathers steps with the learning rate in them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        lr_inside: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "lr_inside": lr_inside,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; `closure` computes the loss anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        inside, outside = (group["lr"], 1.0) if group["lr_inside"] else (1.0, group["lr"])
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity: Tensor = state["momentum_buffer"]
        direction = _scaled_gradient(parameter, group["weight_decay"], group["trust"])
        velocity.mul_(group["momentum"]).add_(direction, alpha=inside)
        parameter.sub_(velocity, alpha=outside)


def _scaled_gradient(parameter: Tensor, weight_decay: float, trust: float) -> Tensor:
    assert parameter.grad is not None
    if parameter.ndim <= 1:
        return parameter.grad
    decayed = parameter.grad.add(parameter, alpha=weight_decay)
    length, slope = parameter.norm(), decayed.norm()
    ratio = torch.where((length > 0) & (slope > 0), trust * length / slope, 1.0)
    return decayed * ratio
