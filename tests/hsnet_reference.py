"""HSNet's head by its formulas, on 6-D tensors of all pairs [B, C, h, w, h', w'] and permutes."""

from typing import Any

import torch
from torch import Tensor

from fss_bench.backbone import Features
from fss_bench.correlation import CenterPivotConv4d, Pairs
from fss_bench.methods.hsnet import HSNet
from fss_bench.ops import foreground, resize_corners


def as_6d(pairs: Pairs) -> Tensor:
    """All pairs [1, C, h, w, h', w'], with the zeros that rows leave out."""
    rows, where = pairs
    padded = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
    return padded[where].permute(2, 3, 4, 0, 1)[None]


def from_6d(values: Tensor, inside: Tensor | None = None) -> Pairs:
    """Pairs out of [1, C, h, w, h', w'], those of support cells `inside` [h', w'], or of all."""
    seen = torch.ones(values.shape[-2:], dtype=torch.bool) if inside is None else inside
    where = torch.full(seen.shape, -1)
    where[seen] = torch.arange(int(seen.sum()))
    return Pairs(values[0].permute(3, 4, 0, 1, 2)[seen].contiguous(), where)


def slow_correlation(query: Tensor, support: Tensor) -> Tensor:
    """[n, C, h, w] and [n, C, h', w'] to [1, n, h, w, h', w']."""
    pairs = _unit(query).transpose(1, 2) @ _unit(support)
    return pairs.clamp(min=0).reshape(1, len(query), *query.shape[-2:], *support.shape[-2:])


def permuted_conv(layer: CenterPivotConv4d, pairs: Tensor) -> Tensor:
    """Both planes as 2D convolutions of all pairs, permuted for each."""
    pivots = pairs[..., :: layer.stride, :: layer.stride]
    batch, _, *sizes = pivots.shape
    over_query = layer.conv1(pivots.permute(0, 4, 5, 1, 2, 3).flatten(0, 2))
    over_query = over_query.unflatten(0, (batch, *sizes[2:])).permute(0, 3, 4, 5, 1, 2)
    over_support = layer.conv2(pairs.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
    over_support = over_support.unflatten(0, (batch, *sizes[:2])).permute(0, 3, 1, 2, 4, 5)
    return over_query + over_support


def slow_block(block: Any, pairs: Tensor) -> Tensor:
    """A `SqueezeBlock`, with torch's own norm and ReLU."""
    for layer in block:
        convolves = isinstance(layer, CenterPivotConv4d)
        pairs = permuted_conv(layer, pairs) if convolves else layer(pairs)
    return pairs


def slow_resize(pairs: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """Over the support, then over the query, to the four sizes."""
    pairs = _resize_last(pairs, (size[2], size[3]))
    turned = pairs.permute(0, 1, 4, 5, 2, 3)
    return _resize_last(turned, (size[0], size[1])).permute(0, 1, 4, 5, 2, 3)


def slow_head(method: HSNet, support: Features, mask: Tensor, query: Features) -> Tensor:
    """Logits [1, 2, H, W] of one shot of features [1, C, h, w] a level and a mask [H, W]."""
    stages = []
    for stage in method.stages:
        asked, shown = (torch.cat([maps[name] for name in stage]) for maps in (query, support))
        size = (shown.shape[-2], shown.shape[-1])
        weights = resize_corners(foreground(mask)[None, None].to(shown.dtype), size)
        stages.append(slow_correlation(asked, shown * weights))
    c3 = slow_block(method.encoder_c3, stages[0])
    c4 = slow_block(method.encoder_c4, stages[1])
    c5 = slow_block(method.encoder_c5, stages[2])
    merged = slow_block(method.merge_c4, slow_resize(c5, c4.shape[2:]) + c4)  # type: ignore[arg-type]
    merged = slow_block(method.merge_c3, slow_resize(merged, c3.shape[2:]) + c3)  # type: ignore[arg-type]
    fine = method.decoder1(merged.mean(dim=(-2, -1)))
    fine = resize_corners(fine, (2 * fine.shape[-2], 2 * fine.shape[-1]))
    return resize_corners(method.decoder2(fine), (mask.shape[-2], mask.shape[-1]))


def _resize_last(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return resize_corners(maps.flatten(1, 3), size).reshape(*maps.shape[:4], *size)


def _unit(maps: Tensor) -> Tensor:
    flat = maps.flatten(2)
    return flat / (torch.linalg.vector_norm(flat, dim=1, keepdim=True) + 1e-5)
