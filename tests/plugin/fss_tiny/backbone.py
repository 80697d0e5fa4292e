"""tiny_pool: colours averaged over squares; nothing is learnt."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from fss_bench.backbone import Backbone, Features, Level, WeightsInfo
from fss_bench.weights import Weights


class TinyPool(Backbone):
    def __init__(self, weights: Weights = "none") -> None:
        levels = {"c3": Level(3, 8), "c4": Level(3, 16)}
        super().__init__(
            "tiny_pool",
            levels,
            (0.5,) * 3,
            (0.5,) * 3,
            WeightsInfo("none", None),
            default_level="c3",
        )

    def extract(self, images: Tensor, levels: Sequence[str]) -> Features:
        return {
            name: F.avg_pool2d(images, self.levels[name].stride, ceil_mode=True) for name in levels
        }
