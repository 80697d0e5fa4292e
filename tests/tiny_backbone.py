"""A backbone without weights, whose features are pixels, and an episode made for it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench.backbone import Backbone, Features, Level, WeightsInfo

RED, BLUE, GREEN = (1.0, 0.1, 0.0), (0.0, 0.0, 1.0), (0.6, 0.6, 0.0)


class PixelBackbone(Backbone):
    """Levels are the image averaged over squares of the stride, their side rounded up or down."""

    def __init__(self, strides: Sequence[int] = (2, 4, 8, 16), ceil: bool = True) -> None:
        levels = {f"c{s.bit_length() - 1}": Level(3, s) for s in strides}
        super().__init__(
            *("pixels", levels, (0, 0, 0), (1, 1, 1), WeightsInfo("none", None)),
            default_level=next(iter(levels)),
            default_size=32,
        )
        self.ceil = ceil

    def extract(self, images: Tensor, levels: Sequence[str]) -> Features:
        return {
            name: F.avg_pool2d(images, self.levels[name].stride, ceil_mode=self.ceil)
            for name in levels
        }


def scene(boxes: Sequence[tuple[int, int]], size: int = 32, side: int = 8) -> tuple[Tensor, Tensor]:
    """A picture [3, S, S], red above and blue below, with green squares, and their mask [S, S].

    The mean of red and blue is less like red than green is: class means take red for green.
    """
    colours = torch.tensor([RED, BLUE, GREEN])
    image = colours[0].view(3, 1, 1).repeat(1, size, size)
    image[:, size // 2 :] = colours[1].view(3, 1, 1)
    mask = torch.zeros(size, size, dtype=torch.uint8)
    for top, left in boxes:
        image[:, top : top + side, left : left + side] = colours[2].view(3, 1, 1)
        mask[top : top + side, left : left + side] = 1
    return image, mask


def episodes(batch: int, ways: int, shots: int, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Random supports [B, N, K, 3, S, S], their masks with ignored pixels, queries [B, 3, S, S]."""
    generator = torch.Generator().manual_seed(size)
    support = torch.rand(batch, ways, shots, 3, size, size, generator=generator)
    masks = torch.zeros(batch, ways, shots, size, size, dtype=torch.uint8)
    masks[..., 5:20, 3:17] = 1
    masks[..., 19:21, 3:17] = 255
    support[:, :, :, 0] += masks == 1
    return support, masks, torch.rand(batch, 3, size, size, generator=generator)
