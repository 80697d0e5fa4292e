"""Attention whose values are masks, and the position encoding that goes with it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean_attention(
    query: Tensor, key: Tensor, masks: Tensor, dropout: float = 0.0
) -> Tensor:
    """Mean of masks over the keys, weighted by softmax(query key^T / sqrt(d)).

    Without dropout the masks are padded with zeros to the heads' width: fused kernels want keys and
    values of one width, and then the [N, M] weights are never in memory. With dropout they are, so
    that it draws its numbers as the plain formula does.

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
    means = []
    for columns in torch.split(values, width, dim=-1):
        count = columns.shape[-1]
        padded = F.pad(columns, (0, width - count)).expand(batch, heads, -1, -1)
        means.append(F.scaled_dot_product_attention(query, key, padded)[..., :count])
    return torch.cat(means, dim=-1)


def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Sines (even columns) and cosines (odd) of positions 0, 1, ..., [length, width] in [-1, 1].

    Angles are float32 whatever else is computed in: they reach thousands of radians, and published
    weights were trained with the roundings of float32.
    """
    columns = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    rates = torch.exp(columns * (-math.log(10000.0) / width))
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
