"""What a head is fitted with: cross entropy on supports, entropy and class shares on the query."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench.ops import interpolation_matrix


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [S, P, h, w] to [S, P, H, W], bilinear with align_corners=False.

    As two products of matrices, since torch's own has a gradient that does not repeat on a GPU.
    """
    rows = interpolation_matrix(logits.shape[-2], size[0], logits)
    columns = interpolation_matrix(logits.shape[-1], size[1], logits)
    return rows @ logits @ columns.T


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean cross entropy of pixels by weight: sum of weight times -log p, over the sum of weights.

    Args:
        logits: [S, P, h, w], resized to the labels' size.
        labels: [S, H, W] long channel numbers; where the weight is 0, anything.
        weights: [S, H, W] float, 0 where a pixel does not count.

    Returns:
        A scalar; 0 where no pixel counts.
    """
    large = upsample(logits, (labels.shape[-2], labels.shape[-1])).log_softmax(dim=1)
    known = labels.masked_fill(weights == 0, 0)
    wanted = F.one_hot(known, logits.shape[1]).movedim(-1, 1) * weights[:, None]
    return -(wanted * large).sum() / weights.sum().clamp(min=1e-12)


def mean_entropy(logits: Tensor) -> Tensor:
    """Mean over the cells of logits [B, P, h, w] of the entropy of their classes, in nats."""
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def class_shares(logits: Tensor) -> Tensor:
    """Mean probability of every class over the cells of logits [B, P, h, w]: [P], sums to 1."""
    return logits.softmax(dim=1).mean(dim=(0, 2, 3))


def divergence(shares: Tensor, believed: Tensor) -> Tensor:
    """Kullback-Leibler divergence of class shares [P] from those believed [P], in nats."""
    floor = torch.finfo(shares.dtype).tiny
    return (shares * (shares.clamp(min=floor) / believed.clamp(min=floor)).log()).sum()
