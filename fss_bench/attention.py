"""Attention whose values are masks, and the position encoding that goes with it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench.products import convolves, product_over_rows

QUERIES, KEYS = 256, 2304
"""Whose weights are held at once where kernels are not fused: what a CPU's caches hold."""


def masked_mean_attention(
    query: Tensor, key: Tensor, masks: Tensor, dropout: float = 0.0
) -> Tensor:
    """Mean of masks over the keys, weighted by softmax(query key^T / sqrt(d)).

    On a GPU, and where gradients are needed, the masks are padded with zeros to the heads' width:
    fused kernels want keys and values of one width, and then the [N, M] weights are never in
    memory. On a CPU that doubles the products for one column of masks: there the weights are held
    a chunk at a time. With dropout all are, so that it draws its numbers as the plain formula does.

    Args:
        query: [B, heads, N, d].
        key: [B, heads, M, d].
        masks: [B or 1, M, P], each column a mask in [0, 1].
        dropout: probability that a weight, after the softmax, is dropped.

    Returns:
        [B, heads, N, P], without dropout in [0, 1].
    """
    batch, heads, _, width = query.shape
    values = masks.to(query.dtype)[:, None]
    if dropout > 0:
        scores = (width**-0.5 * query) @ key.transpose(-2, -1)  # scaled first: fp16 overflows late
        weights = F.dropout(scores.float().softmax(dim=-1), dropout)
        return weights.to(query.dtype) @ values
    if convolves(query, key, masks) and key.shape[2] * masks.shape[-1]:
        return _in_chunks(query, key, masks.expand(batch, -1, -1))
    means = []
    for columns in torch.split(values, width, dim=-1):
        count = columns.shape[-1]
        padded = F.pad(columns, (0, width - count)).expand(batch, heads, -1, -1)
        means.append(F.scaled_dot_product_attention(query, key, padded)[..., :count])
    return torch.cat(means, dim=-1)


def _in_chunks(query: Tensor, key: Tensor, masks: Tensor) -> Tensor:
    """The same by chunks of queries and keys, for every batch and head."""
    batch, heads, cells, width = query.shape
    found = query.new_empty(batch, heads, masks.shape[-1], cells)
    scaled = query * (width**-0.5 * math.log2(math.e))  # powers of 2 are the quicker ones
    for b in range(batch):
        columns = torch.split(masks[b], KEYS)
        for h in range(heads):
            keys = torch.split(key[b, h], KEYS)
            for start in range(0, cells, QUERIES):
                asked = scaled[b, h, start : start + QUERIES]
                parts = [_part(asked, *pair) for pair in zip(keys, columns, strict=True)]
                peaks, sums = (torch.stack(each) for each in zip(*parts, strict=True))
                sums = (sums * (peaks - peaks.amax(dim=0)).exp2()[:, None]).sum(dim=0)
                found[b, h, :, start : start + QUERIES] = sums[1:] / sums[0]
    return found.mT


def _part(query: Tensor, key: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """What some keys give to some queries: their largest score [N], and sums [1 + P, N].

    The sums are of 2^(score - largest) alone, and times each mask. torch adds them up in parts; a
    matrix product would lose a digit.
    """
    scores = product_over_rows(query, key).mT  # [M, N]
    peaks = scores.amax(dim=0)
    weights = scores.sub_(peaks).exp2_()
    sums = [weights.sum(dim=0)]
    for column in masks[:, 1:].mT:
        sums.append((weights * column[:, None]).sum(dim=0))
    sums.insert(1, weights.mul_(masks[:, :1]).sum(dim=0))
    return peaks, torch.stack(sums)


def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Sines (even columns) and cosines (odd) of positions 0, 1, ..., [length, width] in [-1, 1].

    Angles are float32 whatever else is computed in: they reach thousands of radians, and published
    weights were trained with the roundings of float32.
    """
    columns = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    rates = torch.exp(columns * (-math.log(10000.0) / width))
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
