"""What pretraining minimises: the interface of an objective, and `create_objective`."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.encoder import Encoder
from fss_bench.pretraining.recipes import Recipe

EXTRA = ("lightly",)
"""What pip installs with `fss-bench[pretrain]` alone."""


class Outcome(NamedTuple):
    """Result of one forward pass."""

    loss: Tensor
    """Scalar, mean over the batch of this rank."""

    accuracy: Tensor
    """Scalar in [0, 1]: share of queries whose positive has the highest logit."""


class Objective(nn.Module):
    """A loss over views of images, with the encoder that it trains.

    Randomness, such as shuffles and noise, comes from torch's global generator: seed it before each
    forward pass, and a run does not depend on what went before. Losses are computed in single
    precision, whatever autocast gives the encoder.
    """

    views: ClassVar[int] = 2
    """Views of an image that `forward` takes: 2, or 1."""

    encoder: Encoder
    """Trained by gradient."""

    momentum_encoder: Encoder | None
    """Moving average of `encoder`, or None."""

    def start_step(self, progress: float) -> None:
        """Prepare an optimiser step, once, before its first forward pass.

        Args:
            progress: share of the training done, in [0, 1).
        """

    def forward(self, first: Tensor, second: Tensor | None, indices: Tensor) -> Outcome:
        """Loss and accuracy of a batch; with gradients on, the state beside the weights moves on.

        Args:
            first, second: views [B, 3, S, S] in [0, 1]; `second` is None where `views` is 1.
            indices: [B], numbers of the images in the data set, from 0.
        """
        raise NotImplementedError

    def extra_state(self) -> dict[str, Tensor]:
        """Copies of what a checkpoint needs beside `state_dict()`; the same on all ranks."""
        return {name: tensor.clone() for name, tensor in self._extra_tensors().items()}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `extra_state` gave.

        Raises:
            FssBenchError: other names or shapes than this objective has.
        """
        own = self._extra_tensors()
        wanted, given = _shapes(own), _shapes(state)
        if wanted != given:
            raise FssBenchError(
                f"the checkpoint holds {given or 'no state'} beside the weights instead of "
                f"{wanted or 'none'}: resume with the options it was made with"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _extra_tensors(self) -> dict[str, Tensor]:
        """Live buffers that `state_dict()` leaves out, by name."""
        return {}


def momentum_at(recipe: Recipe, progress: float) -> float:
    """Momentum of the key encoder at `progress` in [0, 1).

    Constant, or by MoCo v3 a half cosine that ends at 1: 1 - (1 + cos(pi progress)) / 2 (1 - m).
    """
    if recipe.momentum_schedule == "constant":
        return recipe.momentum
    return 1 - (1 - recipe.momentum) * (1 + math.cos(math.pi * progress)) / 2


def full_precision(like: Tensor) -> torch.autocast:
    """No autocast on a tensor's device: logits over a temperature need all digits."""
    return torch.autocast(like.device.type, enabled=False)


def check_extra() -> None:
    """See that what pretraining needs beside the rest is there.

    Raises:
        FssBenchError: names what is not installed.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise FssBenchError(
            f"pretraining needs {' and '.join(missing)}, which is not installed: "
            "pip install 'fss-bench[pretrain]'"
        )


def create_objective(
    recipe: Recipe, trunk: nn.Module, mean: Sequence[float], std: Sequence[float], images: int
) -> Objective:
    """The objective of a recipe.

    Args:
        recipe: method, version and their constants.
        trunk: a timm model without classifier; it is trained in place.
        mean, std: normalisation of images in [0, 1].
        images: number of images in the data set.

    Raises:
        FssBenchError: an extra is not installed, or recipe and trunk do not go together.
    """
    check_extra()
    if recipe.method == "npid":
        from fss_bench.pretraining.npid import NPID

        return NPID(recipe, trunk, mean, std, images)
    if recipe.method == "simclr":
        from fss_bench.pretraining.simclr import SimCLR

        return SimCLR(recipe, trunk, mean, std)
    if recipe.version == 3:
        from fss_bench.pretraining.moco_v3 import MoCoV3

        return MoCoV3(recipe, trunk, mean, std)
    from fss_bench.pretraining.moco import MoCo

    return MoCo(recipe, trunk, mean, std)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in sorted(tensors.items())}
