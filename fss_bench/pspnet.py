"""PSPNet's head on a backbone's last map. Zhao et al., https://arxiv.org/abs/1612.01105."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
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


class PSPHead(nn.Sequential):
    """The pyramid, and a classifier that starts with a 3x3 convolution.

    Where nothing learns, the convolution's part on the averages is taken on their few cells and
    spread from there: a convolution of a map resized from 6x6 is linear in 36 cells.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] to [B, classes, h, w]."""
        pyramid, classifier = cast(tuple[PyramidPooling, nn.Sequential], self)
        first: Any = classifier[0]
        if torch.is_grad_enabled() and (maps.requires_grad or first.weight.requires_grad):
            return classifier(pyramid(maps))  # type: ignore[no-any-return]
        cells = [part(maps) for part in pyramid.features]
        own, *others = torch.split(
            first.weight, [maps.shape[1], *(grid.shape[1] for grid in cells)], dim=1
        )
        joined = F.conv2d(maps, own, padding=1)
        for grid, weight in zip(cells, others, strict=True):
            joined = joined + spread_convolution(grid, weight, (maps.shape[-2], maps.shape[-1]))
        return classifier[1:](joined)  # type: ignore[no-any-return]


def spread_convolution(cells: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A 3x3 convolution, zeros around, of a small grid resized bilinearly, corners aligned.

    Every tap is a 1x1 convolution of the grid, then moved by a row and a column at most.

    Args:
        cells: [B, C, h, w].
        weight: [C2, C, 3, 3].
        size: (H, W) that the grid is resized to.

    Returns:
        [B, C2, H, W].
    """
    rows, columns = (
        _spread(cells.shape[-2], size[0], cells),
        _spread(cells.shape[-1], size[1], cells),
    )
    taps = torch.einsum("ocij,bcyx->boiyjx", weight, cells)
    return rows @ taps.flatten(4, 5).flatten(2, 3).to(rows.dtype) @ columns.mT


def _spread(cells: int, size: int, like: Tensor) -> Tensor:
    """What each place [size] that a kernel of 3 is at takes of [3, cells]: [size, 3 cells]."""
    ones = torch.eye(cells, dtype=like.dtype, device=like.device)[None]
    resized = F.interpolate(ones, size, mode="linear", align_corners=True)[0]  # [cells, size]
    padded = F.pad(resized, (1, 1))
    return torch.cat([padded[:, tap : tap + size] for tap in range(3)]).mT


def psp_head(channels: int, classes: int) -> PSPHead:
    """Class scores [B, classes, h, w] from a map [B, channels, h, w]; class 0 is background."""
    width = max(1, channels // len(BINS))
    return PSPHead(
        PyramidPooling(channels, width),
        nn.Sequential(
            nn.Conv2d(channels + len(BINS) * width, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(WIDTH, classes, 1),
        ),
    )
