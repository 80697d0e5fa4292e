"""Weights of pixels between objects that nearly touch, as in U-Net."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIGMA = 5.0


def border_weights(mask: NDArray[np.bool_], sigma: float = SIGMA) -> NDArray[np.float32]:
    """exp(-(d1 + d2)² / (2 sigma²)), d1 and d2 the distances to the two nearest objects' borders.

    Ronneberger, Fischer and Brox, MICCAI 2015, equation 2, without its factor. An object is a
    connected region of the mask (8 neighbours); its border are its pixels with a pixel beside,
    above or below them that is not of it. With fewer than two objects all weights are 0.

    Args:
        mask: [H, W], true on the class.
        sigma: pixels.

    Returns:
        [H, W] in [0, 1].
    """
    objects, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count < 2:
        return np.zeros(mask.shape, dtype=np.float32)
    nearest = np.full((2, *mask.shape), np.inf)
    for number in range(1, count + 1):
        inside = objects == number
        border = inside & ~ndimage.binary_erosion(inside, border_value=1)
        distance = ndimage.distance_transform_edt(~border)
        nearest = np.sort(np.concatenate([nearest, distance[None]]), axis=0)[:2]
    weights: NDArray[np.float32] = np.exp(-(nearest.sum(axis=0) ** 2) / (2 * sigma**2))
    return weights.astype(np.float32)
