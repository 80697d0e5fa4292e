"""How alike support and query maps are, without parameters: what PFENet, BAM and MSANet compare.

All of it is computed in fp32, autocast or not: positions are selected by comparing mask values
with their mean, and sums run over thousands of cells. Each image is reduced on its own to rows,
one a cell; no product of all cells with all cells is held: pairs are summed up in chunks.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench.ops import resize_corners
from fss_bench.products import convolves, product_over_rows

Size = tuple[int, int]
P = ParamSpec("P")
CHUNK = 1 << 21
"""Pairs of cells of one block that are held at once (8 MB): a CPU's caches hold them."""


GROUP = 512
"""Channels that are added up in one go. Deep cells are much alike, and stretching their cosines to
[0, 1] makes differences large: sums over more channels would round too much."""


def in_fp32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run a function of tensors without autocast; it converts its arguments itself."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)).device
        with torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def chained_masks(masks: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Masks at the sizes of successive maps, each resized from the one before.

    The first resize is to twice the first size. A resize at once gives other values, and other
    positions above the mean.

    Args:
        masks: [K, 1, H, W] float.
        sizes: (h, w) of the maps, shallow to deep.

    Returns:
        [K, 1, h, w] for each size.
    """
    found = []
    masks = resize_corners(masks.float(), (2 * sizes[0][0], 2 * sizes[0][1]))
    for size in sizes:
        masks = resize_corners(masks, size)
        found.append(masks)
    return found


def inside(weights: Tensor) -> Tensor:
    """Indices of the entries of a mask [N] that are no less than the mean of the positive ones."""
    positive = weights[weights > 0]
    if not len(positive):
        return torch.zeros(0, dtype=torch.long, device=weights.device)
    # of equal values the mean may round to more than any of them
    return torch.nonzero(weights >= torch.minimum(positive.mean(), weights.max()))[:, 0]


@in_fp32
def masked_means(maps: Tensor, masks: Tensor) -> Tensor:
    """Means [K, C, 1, 1] of maps [K, C, h, w] under masks [K, 1, h, w]; areas get 0.0005 more."""
    sums = (maps.float() * masks).sum(dim=(2, 3), keepdim=True)
    return sums / (masks.sum(dim=(2, 3), keepdim=True) + 0.0005)


def unit_cells(maps: Sequence[Tensor]) -> Tensor:
    """The cells of n blocks' maps [1, C, h, w] as unit vectors [n, h, w, C], contiguous."""
    _, channels, *size = maps[0].shape
    rows = torch.empty(len(maps), *size, channels, dtype=torch.float32, device=maps[0].device)
    for block, one in enumerate(maps):
        rows[block].copy_(one[0].permute(1, 2, 0))
    return _unit(rows)


def unit_cells_inside(maps: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Those inside a mask, times the mask, as unit vectors [n, J, C], contiguous.

    Args:
        maps: [1, C, h, w] of n blocks.
        mask: [h, w] in [0, 1]; see `inside`.
    """
    kept = inside(mask.flatten())
    weights = mask.flatten()[kept, None]
    return torch.stack([_unit(_chosen(one, kept) * weights) for one in maps])


@in_fp32
def mean_cosines(query: Tensor, kept: Tensor) -> Tensor:
    """Mean cosine, negative ones counting as 0, of query cells with support cells, by blocks.

    Args:
        query: [n, h, w, C] unit vectors.
        kept: [n, J, C] unit vectors.

    Returns:
        [n, h, w] in [0, 1]; zeros where J is 0.
    """
    cells = query.flatten(1, 2)
    if convolves(cells, kept):
        sums = [_positive_sums(*block)[None] for block in zip(cells, kept, strict=True)]
    else:
        parts = _chunks(kept, cells.shape[1])
        sums = [torch.stack([(cells @ part.mT).relu().sum(dim=2) for part in parts]).sum(dim=0)]
    return (torch.cat(sums) / max(1, kept.shape[1])).reshape(query.shape[:3])


def _positive_sums(cells: Tensor, kept: Tensor) -> Tensor:
    """Sums [N] of what is positive in the products of rows [N, C] with rows [J, C]."""
    total = cells.new_zeros(len(cells))
    for part in _chunks(kept, len(cells)):
        total += product_over_rows(part, cells).mT.relu_().sum(dim=1)
    return total


@in_fp32
def cells_under(maps: Tensor, mask: Tensor) -> Tensor:
    """Cells of maps [1, C, h, w] times a mask [h, w], those that it leaves out as one: [P, C].

    What it leaves out is zero: its cosine with every query cell is 0.
    """
    kept = torch.nonzero(mask.flatten() > 0)[:, 0]
    chosen = _chosen(maps, kept) * mask.flatten()[kept, None]
    left_out = chosen.new_zeros(int(len(kept) < mask.numel()), chosen.shape[1])
    return torch.cat([chosen, left_out])


def grouped(rows: Tensor) -> Tensor:
    """Rows [..., C] by groups of at most 512 channels, zeros added: [g, ..., c], contiguous."""
    channels = rows.shape[-1]
    groups = -(-channels // GROUP)
    padded = F.pad(rows, (0, -channels % groups))
    return torch.stack(padded.chunk(groups, dim=-1))


@in_fp32
def highest_cosines(query: Tensor, support: Tensor, of_query: Tensor, of_support: Tensor) -> Tensor:
    """Highest cosine of every query cell with support cells, stretched to [0, 1].

    Args:
        query: [g, h, w, c]; see `grouped`.
        support: [g, P, c], P at least 1.
        of_query: [h, w] lengths.
        of_support: [P] lengths.

    Returns:
        [h, w] in [0, 1]; zeros where all are equal.
    """
    cells, lengths = query.flatten(1, 2), of_query.reshape(-1, 1)
    peaks = []
    parts = (_chunks(rows, len(lengths)) for rows in (support, of_support[:, None]))
    for part, others in zip(*parts, strict=True):
        products = [product_over_rows(*group).mT for group in zip(part, cells, strict=True)]
        cosines = torch.stack(products).sum(dim=0) / (lengths * others[:, 0] + 1e-7)
        peaks.append(cosines.amax(dim=1))
    best = torch.stack(peaks).amax(dim=0)
    stretched: Tensor = (best - best.min()) / (best.max() - best.min() + 1e-7)
    return stretched.reshape(of_query.shape)


@in_fp32
def gram(maps: Tensor) -> Tensor:
    """Cosines [C, C] of the channels of maps [1, C, h, w]."""
    channels = maps.float()[0].flatten(1)
    lengths = channels.norm(dim=1)
    cosines: Tensor = product_over_rows(channels, channels) / (lengths[:, None] * lengths + 1e-7)
    return cosines


@in_fp32
def gram_distance(one: Tensor, other: Tensor) -> Tensor:
    """How unlike in style images are: Frobenius norm of the difference of [C, C], over C."""
    distance: Tensor = (one - other).norm() / len(one)
    return distance


def _chunks(rows: Tensor, cells: int) -> Sequence[Tensor]:
    """Rows [..., M, C] in parts of about one size, whose pairs with so many cells are held."""
    return rows.chunk(max(1, -(-rows.shape[-2] * cells // CHUNK)), dim=-2)


def _chosen(maps: Tensor, kept: Tensor) -> Tensor:
    """Rows [M, C] of the cells of maps [1, C, h, w] at M positions."""
    return maps[0].flatten(1).mT[kept].float()


@in_fp32
def _unit(rows: Tensor) -> Tensor:
    """Rows [..., C] over their lengths plus 1e-5; in place where nothing learns."""
    lengths = rows.norm(dim=-1, keepdim=True) + 1e-5
    return rows / lengths if rows.requires_grad else rows.div_(lengths)
