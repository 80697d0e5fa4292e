"""How alike support and query maps are, without parameters: what PFENet, BAM and MSANet compare.

All of it is computed in fp32, autocast or not: positions are selected by comparing mask values
with their mean, and sums run over thousands of cells. No product of all cells with all cells is
held: both kinds of pairs are summed up in chunks.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

from fss_bench.ops import resize_corners

Size = tuple[int, int]
P = ParamSpec("P")
CHUNK = 1 << 22
"""Pairs of cells that are held at once (16 MB)."""


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


@in_fp32
def similarity_map(query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    """Mean cosine, negative ones counting as 0, of query cells with cells inside each mask.

    Args:
        query: [1, C, h, w].
        support: [K, C, h', w'].
        masks: [K, 1, h', w'] in [0, 1].

    Returns:
        [K, 1, h, w] in [0, 1]; zeros where a mask is empty.
    """
    cells = _unit(query[0].flatten(1).float())
    maps = []
    for features, weights in zip(support.flatten(2), masks.flatten(1), strict=True):
        kept = inside(weights)
        chosen = _unit(features.float()[:, kept] * weights[kept])
        total = cells.new_zeros(cells.shape[1])
        for part in torch.split(chosen, max(1, CHUNK // cells.shape[1]), dim=1):
            total = total + (part.T @ cells).relu().sum(dim=0)
        maps.append(total / max(1, len(kept)))
    return torch.stack(maps).reshape(len(support), 1, *query.shape[-2:])


@in_fp32
def prior_masks(query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    """Highest cosine of query cells with masked support cells, stretched to [0, 1] in each map.

    Args:
        query: [1, C, h, w].
        support: [K, C, h', w'].
        masks: [K, 1, H, W] in [0, 1]; they multiply the features.

    Returns:
        [K, 1, h, w] in [0, 1]; zeros where a mask is empty.
    """
    cells = query[0].flatten(1).float()
    lengths = cells.norm(dim=0)
    sized = resize_corners(masks.float(), (support.shape[-2], support.shape[-1])).flatten(1)
    priors = []
    for features, weights in zip(support.flatten(2), sized, strict=True):
        kept = weights > 0
        # a cell that the mask leaves out is zero: its cosine with every query cell is 0
        peaks = [] if bool(kept.all()) else [torch.zeros_like(lengths)]
        chosen = features.float()[:, kept] * weights[kept]
        for part in (
            torch.split(chosen, max(1, CHUNK // len(lengths)), dim=1) if chosen.numel() else ()
        ):
            cosines = part.T @ cells / (part.norm(dim=0)[:, None] * lengths + 1e-7)
            peaks.append(cosines.amax(dim=0))
        best = torch.stack(peaks).amax(dim=0)
        priors.append((best - best.min()) / (best.max() - best.min() + 1e-7))
    return torch.stack(priors).reshape(len(support), 1, *query.shape[-2:])


@in_fp32
def gram_distances(query: Tensor, support: Tensor) -> Tensor:
    """How unlike in style images are: distance of their normalised Gram matrices.

    Args:
        query: [1, C, h, w].
        support: [K, C, h, w].

    Returns:
        [K], Frobenius norms of the differences over C.
    """
    differences = _gram(query.float()) - _gram(support.float())
    distances: Tensor = differences.flatten(1).norm(dim=1) / query.shape[1]
    return distances


def _gram(maps: Tensor) -> Tensor:
    """Cosines [K, C, C] of the channels of maps [K, C, h, w]."""
    channels = maps.flatten(2)
    lengths = channels.norm(dim=2)
    cosines: Tensor = channels @ channels.mT / (lengths[:, :, None] * lengths[:, None] + 1e-7)
    return cosines


def _unit(cells: Tensor) -> Tensor:
    """Columns of [C, N] over their lengths plus 1e-5."""
    columns: Tensor = cells / (cells.norm(dim=0) + 1e-5)
    return columns
