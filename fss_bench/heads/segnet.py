"""SegNet's decoder: max-unpooling with the places of the encoder's maxima."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Level
from fss_bench.errors import FssBenchError
from fss_bench.heads.head import Head, blank_classifier, pyramid, stride_list

WIDEST = 512


class SegNetHead(Head):
    """Badrinarayanan, Kendall and Cipolla, TPAMI 2017: unpool, then convolution, BN, ReLU.

    The maps of the deepest level are pooled once more, and the way back mirrors VGG-16: three
    convolutions where maps are 256 channels wide or wider, else two, the last of them to the width
    of the next finer level. By default all levels of stride 16 and below are used.

    The levels of `vgg16` and `vgg16_bn` are the maps before their 2x2 pools: there the places are
    those of the network's own pools. Other networks have no such pools, and the places are those
    that 2x2 max pools of their levels' maps would have; that is not SegNet but its decoder on
    another encoder. Maps wider than 512 are first averaged over neighbouring channels to 512.

    Args:
        levels: finest first; every stride is twice the one before.
        classes: background and ways.

    Raises:
        FssBenchError: strides that do not double.
    """

    def __init__(self, levels: Sequence[Level], classes: int) -> None:
        super().__init__()
        if any(2 * fine.stride != deep.stride for fine, deep in pairwise(levels)):
            raise FssBenchError(
                f"head=segnet takes levels whose strides double, got {stride_list(levels)}: name "
                "the levels between, as in --option level=c2+c3+c4"
            )
        widths = [min(level.channels, WIDEST) for level in levels]
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(width, width) for _ in range(depth(width) - 1)), block(width, to))
            for to, width in pairwise(widths)
        )
        finest = widths[0]
        last = [block(finest, finest) for _ in range(depth(finest) - 1)]
        self.stages.insert(0, nn.Sequential(*last, blank_classifier(finest, classes, 3)))

    @classmethod
    def choose(cls, backbone: Backbone) -> list[str]:
        names = pyramid(backbone)
        return [name for name in names if backbone.levels[name].stride <= 16] or names

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [S, P, H, W] of maps [S, C, h, w], at the side of the finest."""
        below = [*maps[1:], None]
        pools = [max_pool(narrow(fine), deep) for fine, deep in zip(maps, below, strict=True)]
        decoded = pools[-1][0]
        for stage, fine, (_, places) in reversed([*zip(self.stages, maps, pools, strict=True)]):
            decoded = stage(max_unpool(decoded, places, (fine.shape[-2], fine.shape[-1])))
        return decoded


def depth(width: int) -> int:
    """Convolutions of a stage of VGG-16 with maps of this width."""
    return 3 if width >= 256 else 2


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def narrow(maps: Tensor) -> Tensor:
    """Maps [S, C, h, w] of at most 512 channels: wider ones averaged over neighbouring channels."""
    if maps.shape[1] <= WIDEST:
        return maps
    cells = F.adaptive_avg_pool1d(maps.flatten(2).transpose(1, 2), WIDEST)
    return cells.transpose(1, 2).reshape(len(maps), WIDEST, *maps.shape[-2:])


def max_pool(maps: Tensor, below: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maxima of 2x2 windows and their places in the map [S, C, h, w], a number in 0 … h w - 1 each.

    Odd sides are rounded as the network does it on the way to its next level `below`; up where
    there is none.

    Raises:
        FssBenchError: the next level has another side.
    """
    up = below is None or below.shape[-1] > maps.shape[-1] // 2
    values, places = F.max_pool2d(maps, 2, ceil_mode=up, return_indices=True)
    if below is not None and values.shape[-2:] != below.shape[-2:]:
        raise FssBenchError(
            f"head=segnet needs maps of half the side of the level before, got {maps.shape[-1]} "
            f"and {below.shape[-1]} cells: choose another --backbone, such as vgg16_bn"
        )
    return values, places


def max_unpool(maps: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Put maps [S, C, h, w] back at the places of maxima in [S, C, H, W]; zeros elsewhere."""
    large = maps.new_zeros(*maps.shape[:2], size[0] * size[1])
    large = large.scatter(2, places.flatten(2), maps.flatten(2))
    return large.reshape(*maps.shape[:2], *size)
