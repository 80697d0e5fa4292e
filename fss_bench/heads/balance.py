"""Class balance by median frequency."""

import torch
from torch import Tensor


def median_frequency_weights(labels: Tensor, classes: int) -> Tensor:
    """Weight of every class: median of the frequencies over its own; 0 of a class without a pixel.

    The frequency of a class is its share of the pixels of the images that show it, ignored pixels
    left out; the median, over the classes shown, is the mean of the middle two where they are even.
    Eigen and Fergus, ICCV 2015; used by SegNet (TPAMI 2017).

    Args:
        labels: [S, H, W] long, 255 ignore.
        classes: P.

    Returns:
        [P] float.
    """
    pixels = torch.stack([(labels == c).sum(dim=(1, 2)) for c in range(classes)]).double()  # [P, S]
    valid = (labels != 255).sum(dim=(1, 2))  # [S]
    shown = (pixels > 0) * valid
    frequency = pixels.sum(dim=1) / shown.sum(dim=1).clamp(min=1)
    present = frequency > 0
    weights = torch.zeros_like(frequency)
    if present.any():
        weights[present] = frequency[present].quantile(0.5) / frequency[present]
    return weights.float()
