"""Similarity of every query cell with every support cell, and 4D convolution over the pairs."""

import torch
from torch import Tensor, nn

from fss_bench.ops import resize_corners


def correlation(query: Tensor, support: Tensor) -> Tensor:
    """Cosine similarity, negative ones set to 0, of all pairs of cells, block by block.

    Args:
        query: [n, C, h, w], a map of each block.
        support: [n, C, h', w'].

    Returns:
        [n, h, w, h', w'] in [0, 1]; 0 where a cell is zero in all channels.
    """
    pairs = _unit(query).transpose(1, 2) @ _unit(support)
    return pairs.clamp(min=0).reshape(len(query), *query.shape[-2:], *support.shape[-2:])


def _unit(maps: Tensor) -> Tensor:
    """Maps [n, C, h, w] to unit vectors [n, C, h w]; 1e-5 is added to their lengths."""
    flat = maps.flatten(2).float()  # squares overflow fp16
    lengths: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return flat / (lengths + 1e-5)


class CenterPivotConv4d(nn.Module):
    """4D convolution whose kernel is cut to two planes through its centre.

    For a query cell and a support cell, `conv1` sees the query cell's neighbours paired with that
    support cell, `conv2` the support cell's neighbours paired with that query cell; the two are
    added. The support side can be strided.

    Args:
        inputs, outputs: channels.
        kernel: odd side of both kernels; the padding keeps the query's size.
        stride: over the support; its side n becomes ceil(n / stride).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, pairs: Tensor) -> Tensor:
        """Pairs [B, C, h, w, h', w'] to [B, C2, h, w, ceil(h' / stride), ceil(w' / stride)]."""
        pivots = pairs[..., :: self.stride, :: self.stride]
        batch, _, *sizes = pivots.shape
        over_query = self.conv1(pivots.permute(0, 4, 5, 1, 2, 3).flatten(0, 2))
        over_query = over_query.unflatten(0, (batch, *sizes[2:])).permute(0, 3, 4, 5, 1, 2)
        over_support = self.conv2(pairs.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
        over_support = over_support.unflatten(0, (batch, *sizes[:2])).permute(0, 3, 1, 2, 4, 5)
        return over_query + over_support  # type: ignore[no-any-return]


def resize_pairs(pairs: Tensor, like: Tensor) -> Tensor:
    """Pairs [B, C, h, w, h', w'] to the four sizes of another such tensor.

    Bilinear with align_corners=True over the query, and over the support where its size differs.
    """
    if pairs.shape[4:] != like.shape[4:]:
        pairs = _resize_last(pairs, (like.shape[4], like.shape[5]))
    turned = pairs.permute(0, 1, 4, 5, 2, 3)
    return _resize_last(turned, (like.shape[2], like.shape[3])).permute(0, 1, 4, 5, 2, 3)


def _resize_last(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, i, j, h, w] to [B, C, i, j, *size]."""
    return resize_corners(maps.flatten(1, 3), size).reshape(*maps.shape[:4], *size)
