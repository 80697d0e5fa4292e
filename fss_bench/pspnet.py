"""PSPNet's head on a backbone's last map. Zhao et al., https://arxiv.org/abs/1612.01105."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fss_bench.ops import resize_corners

BINS = (1, 2, 3, 6)
WIDTH = 512
"""Channels before the classifier."""


class PyramidPooling(nn.Module):
    """A map beside its averages over grids of several sizes.

    Args:
        channels: of the map.
        width: of each average after its 1x1 convolution.
        bins: cells of the grids in each direction.
    """

    def __init__(self, channels: int, width: int, bins: Sequence[int] = BINS) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(size),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for size in bins
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C + bins * width, h, w]."""
        size = (maps.shape[-2], maps.shape[-1])
        return torch.cat([maps, *(resize_corners(part(maps), size) for part in self.features)], 1)


def psp_head(channels: int, classes: int) -> nn.Sequential:
    """Class scores [B, classes, h, w] from a map [B, channels, h, w]; class 0 is background."""
    width = max(1, channels // len(BINS))
    return nn.Sequential(
        PyramidPooling(channels, width),
        nn.Sequential(
            nn.Conv2d(channels + len(BINS) * width, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(WIDTH, classes, 1),
        ),
    )
