"""How training images and their masks are changed, by albumentations; nothing else imports it.

What comes out depends on the arguments alone. albumentations 2.0.8 needs care for that: its
generators are shared by forked workers, and `Compose.set_random_seed` gives every transform the
same stream, so that a blur and a flip of one probability always come together. Here each transform
is made for its image, and seeded by a key of its own.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fss_bench.backbone import IMAGENET_MEAN
from fss_bench.episodes import digest_int, draw
from fss_bench.errors import FssBenchError
from fss_bench.geometry import place_image, place_mask
from fss_bench.images import IGNORE
from fss_bench.protocols import EvaluationProtocol

MEAN_COLOUR = tuple(round(255 * share) for share in IMAGENET_MEAN)
"""What is put around an image: close to 0 once a backbone has normalised it."""
BLUR_SIDE, BLUR_SIGMA = 5, 1.1
"""Pixels; the sigma is OpenCV's own for this side, 0.3 * ((side - 1) / 2 - 1) + 0.8."""
CROPS = 10
"""Crops tried for one that shows the class."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """How a training image and its masks are changed: scale, rotation, blur, flip, place.

    Attributes:
        place: `"warp"` to the square by the protocol's resize rule, or `"crop"`: a random square of
            the image at its own size, padded where it is smaller (image: `MEAN_COLOUR`, masks:
            255).
        scale: range of the factor of both sides before a crop; goes with `"crop"`.
        rotate: largest angle in degrees, to both sides; new corners are filled like a crop's pad.
        blur: probability of a Gaussian blur of 5 x 5 pixels.
        flip: probability of a horizontal flip.

    Raises:
        FssBenchError: a value out of range.
    """

    place: str = "warp"
    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    blur: float = 0.0
    flip: float = 0.5

    def __post_init__(self) -> None:
        if self.place not in ("warp", "crop"):
            raise FssBenchError(f"place={self.place!r}: it must be warp or crop")
        pair = isinstance(self.scale, tuple) and len(self.scale) == 2
        if not pair or not all(_within(factor, 0.01, 100) for factor in self.scale):
            raise FssBenchError(
                f"scale={self.scale!r}: it must be two factors from 0.01 to 100, as (0.9, 1.1)"
            )
        if self.scale[0] > self.scale[1]:
            raise FssBenchError(f"scale={self.scale!r}: the smaller factor comes first")
        if self.place == "warp" and tuple(self.scale) != (1, 1):
            raise FssBenchError(
                f"scale={self.scale!r}: a warp undoes it: use place=crop, or leave scale out"
            )
        if not _within(self.rotate, 0, 180):
            raise FssBenchError(f"rotate={self.rotate!r}: it must be 0 to 180 degrees")
        for name in ("blur", "flip"):
            if not _within(getattr(self, name), 0, 1):
                raise FssBenchError(
                    f"{name}={getattr(self, name)!r}: it must be a probability, 0 to 1"
                )

    @property
    def changes_nothing(self) -> bool:
        """Whether images are only brought into their square."""
        return self == Augmentation(flip=0.0)


def augment(
    image: Pixels,
    mask: Pixels,
    side: int,
    augmentation: Augmentation,
    protocol: EvaluationProtocol,
    key: int,
) -> tuple[Tensor, Tensor]:
    """An image and its mask as a training pair.

    Args:
        image: [H, W, 3] RGB; not written to.
        mask: [H, W], 255 is ignore; not written to.
        side: S, px.
        augmentation: what is done.
        protocol: rules of the warp.
        key: the randomness, see `digest_int`.

    Returns:
        Image [3, S, S] in 0 … 255 and mask [S, S] uint8. Where nothing is to be changed they are
        those of `place_image` and `place_mask`.
    """
    square, (target,) = augment_together(image, [mask], side, augmentation, protocol, key)
    return square, target


def augment_together(
    image: Pixels,
    masks: Sequence[Pixels],
    side: int,
    augmentation: Augmentation,
    protocol: EvaluationProtocol,
    key: int,
) -> tuple[Tensor, list[Tensor]]:
    """As `augment` for several masks of one image; the first decides which crop is kept."""
    stacked = np.stack(masks)
    for transform in _transforms(augmentation, side, key):
        changed = transform(image=image, masks=stacked)
        image, stacked = changed["image"], changed["masks"]
    if augmentation.place == "warp":
        square = place_image(image, side, protocol)
        return square, [place_mask(mask, side, protocol) for mask in stacked]
    top, left = _choose_crop(stacked[0], side, key)
    rows, columns = slice(top, top + side), slice(left, left + side)
    square = torch.from_numpy(image[rows, columns].transpose(2, 0, 1).copy())
    return square, [torch.from_numpy(mask[rows, columns].copy()) for mask in stacked]


def prepare(augmentation: Augmentation) -> None:
    """Import what an augmentation needs, so that forked workers have it already."""
    if not augmentation.changes_nothing:
        _albumentations()


def _transforms(augmentation: Augmentation, side: int, key: int) -> list[Any]:
    """Everything before the warp or crop, each with a generator of its own."""
    if augmentation.changes_nothing:
        return []
    a, chosen = _albumentations(), []
    around = {"fill": MEAN_COLOUR, "fill_mask": IGNORE, "p": 1.0}
    if augmentation.scale != (1, 1):
        low, high = augmentation.scale
        chosen.append(a.RandomScale(scale_limit=(low - 1, high - 1), p=1.0))
    if augmentation.rotate:
        chosen.append(a.Rotate(limit=(-augmentation.rotate, augmentation.rotate), **around))
    if augmentation.blur:
        sides, sigmas = (BLUR_SIDE, BLUR_SIDE), (BLUR_SIGMA, BLUR_SIGMA)
        chosen.append(a.GaussianBlur(blur_limit=sides, sigma_limit=sigmas, p=augmentation.blur))
    if augmentation.flip:
        chosen.append(a.HorizontalFlip(p=augmentation.flip))
    if augmentation.place == "crop":
        chosen.append(a.PadIfNeeded(min_height=side, min_width=side, **around))
    for transform in chosen:
        transform.set_random_seed(digest_int(key, type(transform).__name__))
    return chosen


def _choose_crop(mask: Pixels, side: int, key: int) -> tuple[int, int]:
    """Top and left of a random crop with a pixel of a class; of any, after `CROPS` without."""
    height, width = mask.shape
    shown = (mask > 0) & (mask != IGNORE)
    top = left = 0
    for attempt in range(CROPS):
        top = draw(height - side + 1, key, "crop", attempt, "top")
        left = draw(width - side + 1, key, "crop", attempt, "left")
        if shown[top : top + side, left : left + side].any():
            break
    return top, left


def _albumentations() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks PyPI when imported
    import albumentations  # type: ignore[import-untyped]

    return albumentations


def _within(value: Any, least: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and least <= value <= most
