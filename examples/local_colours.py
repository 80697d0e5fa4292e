"""local_colours: mean and spread of the colours around each cell; no weights."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, cat

from fss_bench.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    Features,
    Level,
    WeightsInfo,
    backbones,
)
from fss_bench.errors import WeightsError
from fss_bench.weights import Weights


@backbones.register("local_colours")
class LocalColours(Backbone):
    def __init__(self, weights: Weights = "none") -> None:
        if weights != "none":
            raise WeightsError(f"local_colours has no weights {weights!r}: use --weights none")
        levels = {"c2": Level(6, 4), "c3": Level(6, 8), "c4": Level(6, 16)}
        info = WeightsInfo("none", None)
        super().__init__("local_colours", levels, IMAGENET_MEAN, IMAGENET_STD, info)

    def extract(self, images: Tensor, levels: Sequence[str]) -> Features:
        return {name: _statistics(images, self.levels[name].stride) for name in levels}


def _statistics(images: Tensor, stride: int) -> Tensor:
    """[B, 3, H, W] to [B, 6, h, w]."""
    mean = F.avg_pool2d(images, stride, ceil_mode=True)
    square = F.avg_pool2d(images.square(), stride, ceil_mode=True)
    return cat([mean, (square - mean.square()).clamp(min=0).sqrt()], dim=1)
