"""FCN-32s parts that co-FCN and guided networks share: annotation grids, 7x7 layer, decoder.

Shelhamer, Long, Darrell, TPAMI 2017. On a backbone whose first convolution is padded by 81 the 7x7
layer and the fixed decoder line up as published; on any other the layer is padded, annotations are
averaged over cells, and the decoder is left to the caller, who resizes logits anyway.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone

STRIDE, KERNEL = 32, 64


def bilinear_kernel() -> Tensor:
    """[64, 64] weights of the fixed decoder, 1 - |i - 31.5| / 32 in each direction."""
    ramp = 1 - (torch.arange(KERNEL) - (KERNEL - 1) / 2).abs() / STRIDE
    return ramp[:, None] * ramp


def is_aligned(backbone: Backbone) -> bool:
    """Whether the backbone is padded as FCN-32s is."""
    return getattr(backbone, "first_padding", 1) == 81


def seven_by_seven(backbone: Backbone, width: int) -> nn.Conv2d:
    """The layer fc6: c5 to `width` channels; not padded where the backbone was."""
    padding = 0 if is_aligned(backbone) else 3
    return nn.Conv2d(backbone.size_of("c5").channels, width, 7, padding=padding)


def annotation_grid(annotations: Tensor, cells: tuple[int, int], aligned: bool) -> Tensor:
    """Annotations at feature resolution, each summing to 1 where there is any.

    Args:
        annotations: [B, P, H, W] with 1 where annotated.
        cells: (h, w) of the features.
        aligned: whether the features are FCN-32s's.

    Returns:
        [B, P, h, w]; zeros for an annotation without a pixel.
    """
    maps = annotations.float()
    if aligned:
        kernel = (bilinear_kernel() / STRIDE**2).to(maps)[None, None]
        padded = F.pad(maps.flatten(0, 1)[:, None], (0, STRIDE - 1, 0, STRIDE - 1))
        grid = F.conv2d(padded, kernel, stride=STRIDE)
        grid = grid.reshape(*maps.shape[:2], *grid.shape[-2:])
    else:
        grid = F.adaptive_avg_pool2d(maps, cells)
    return grid / (1e-6 + grid.sum(dim=(-2, -1), keepdim=True))


def decode(scores: Tensor, size: tuple[int, int], aligned: bool) -> Tensor:
    """Scores [B, P, h, w] to [B, P, H, W] by the fixed decoder; unaligned ones are left alone."""
    if not aligned:
        return scores
    channels = scores.shape[1]
    kernel = bilinear_kernel().to(scores).expand(channels, 1, KERNEL, KERNEL)
    full = F.conv_transpose2d(scores, kernel, stride=STRIDE, groups=channels)
    return full[..., : size[0], : size[1]]


def two_annotations(masks: Tensor) -> Tensor:
    """Masks [..., H, W] with 1, 0 and 255 to background and foreground, [..., 2, H, W] float."""
    return torch.stack([masks == 0, masks == 1], dim=-3).float()
