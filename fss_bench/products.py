"""Matrix products in full precision at the rate of the machine's convolutions.

On many CPUs torch multiplies matrices with another library than it convolves with, and that one
reaches less than half of the other's rate (measured: docs/performance.md). A 1x1 convolution is the
same product.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product [M, N] of [M, C] and [C, N].

    Rows of the result are contiguous, and so should those of `b` be.
    """
    if not convolves(a, b) or not all((*a.shape, *b.shape)):
        return a @ b
    return F.conv2d(b[None, :, :, None], a[:, :, None, None])[0, :, :, 0]


def product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product [M, N] of a [M, C] and the transpose of b [N, C].

    Columns of the result are contiguous. The faster of the two where M is below a few hundred.
    """
    if not convolves(a, b) or not all((*a.shape, *b.shape)):
        return a @ b.mT
    pixels = b.reshape(1, len(b), 1, -1).permute(0, 3, 1, 2)  # channels last, without a copy
    return F.conv2d(pixels, a[:, :, None, None])[0, :, :, 0]


def linear(cells: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of cells [n, N, C]: [n, N, C2]."""
    if not convolves(cells, weight) or not cells.numel() or not weight.numel():
        return F.linear(cells, weight, bias)
    pixels = cells.reshape(len(cells), cells.shape[1], 1, -1).permute(0, 3, 1, 2)
    maps = F.conv2d(pixels, weight[:, :, None, None], bias)
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def convolves(*factors: Tensor) -> bool:
    """Whether products of these are convolutions: on a CPU, in fp32, where nothing learns.

    Gradients are left to the matrix product's own: they are a digit nearer to those of published
    code.
    """
    return (
        all(one.device.type == "cpu" and one.dtype == torch.float32 for one in factors)
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and any(one.requires_grad for one in factors))
    )
