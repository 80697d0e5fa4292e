"""Elastic deformation of images and masks alike, by a coarse grid of displacements."""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 3


def displacements(images: Tensor, labels: Tensor, size: float, *key: int) -> Tensor:
    """Displacement of every pixel [S, 2, H, W], x then y, in pixels.

    Vectors on a 3x3 grid over the image are drawn from a Gaussian and interpolated bicubically
    (Ronneberger, Fischer and Brox, MICCAI 2015, section 3.1). The draw depends on the support's own
    pixels and labels and on the key: neither on its place among the supports nor on anything else.

    Args:
        images: [S, 3, H, W].
        labels: [S, H, W].
        size: deviation of the Gaussian in pixels.
        key: further numbers that the draw depends on.
    """
    grids = []
    for image, label in zip(images.cpu(), labels.cpu(), strict=True):
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8)
        digest.update(image.contiguous().numpy().tobytes())
        digest.update(label.contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()[:7], "big"))
        grids.append(size * torch.randn(2, GRID, GRID, generator=generator))
    shape = (images.shape[-2], images.shape[-1])
    grid = torch.stack(grids).to(images.device)
    return F.interpolate(grid, size=shape, mode="bicubic", align_corners=True)


def deform(maps: Tensor, shift: Tensor, nearest: bool = False) -> Tensor:
    """Maps [S, C, H, W] whose pixel at x is what they had at x + shift(x).

    What lies outside is mirrored at the edge.

    Args:
        maps: float.
        shift: [S, 2, H, W] in pixels; see `displacements`.
        nearest: whether values are kept as they are instead of interpolated bilinearly.
    """
    height, width = maps.shape[-2:]
    rows = torch.arange(height, device=maps.device).view(1, -1, 1)
    columns = torch.arange(width, device=maps.device).view(1, 1, -1)
    x = (2 * (columns + shift[:, 0]) + 1) / width - 1
    y = (2 * (rows + shift[:, 1]) + 1) / height - 1
    return F.grid_sample(
        maps,
        torch.stack([x, y], dim=-1),
        mode="nearest" if nearest else "bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
