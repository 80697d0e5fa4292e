"""One's own pictures: supports with what is known of them, and queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fss_bench.errors import FssBenchError, one_line, shorten
from fss_bench.images import UNREADABLE, decode, to_rgb
from fss_bench.own_masks import (
    Mask,
    box_mask,
    file_mask,
    mask_of_values,
    points_mask,
    split_value,
)

Pixels = NDArray[np.uint8]
Picture = str | Path | NDArray[np.uint8]
"""A file, or pixels [H, W, 3] RGB."""
Annotation = str | Path | NDArray[Any]
"""A mask's file, `FILE#8` for its value 8, `box:x0,y0,x1,y1`, `points:x,y;x,y/x,y`, or values
[H, W]."""
ONE_WAY = "object"
"""Name of the way where none is given."""
MOST_WAYS = 254


@dataclass(frozen=True, eq=False)
class Support:
    """A picture whose object is known.

    Attributes:
        name: for messages.
        pixels: [H, W, 3] RGB.
        mask: [H, W], 1 on the object, 0 off it, 255 unlabelled.
        sparse: whether it is a few points alone, which no resize may lose.
    """

    name: str
    pixels: Pixels
    mask: Mask
    sparse: bool = False


Shown = Mapping[str, Sequence[Support]]
"""Way -> its K supports."""


def read_supports(
    pictures: Sequence[Picture], masks: Sequence[Annotation], ways: Sequence[str] = ()
) -> Shown:
    """Supports by way, in the order in which the ways come up.

    Args:
        pictures: K supports of each way.
        masks: of each its annotation.
        ways: of each the name of its way; none if there is one way.

    Raises:
        FssBenchError: a file that cannot be used, or numbers of them that do not go together.
    """
    _check_together(len(pictures), len(masks), ways)
    names = list(ways) or [ONE_WAY] * len(pictures)
    several = len(set(names)) > 1
    found: dict[str, list[Support]] = {}
    for number, (picture, mask, way) in enumerate(zip(pictures, masks, names, strict=True), 1):
        found.setdefault(way, []).append(_read_support(picture, mask, several, number))
    return found


def read_picture(picture: Picture, what: str = "picture") -> Pixels:
    """A photograph as [H, W, 3] uint8 RGB, the way up that its EXIF data say.

    Raises:
        FssBenchError: missing, damaged, no picture, or pixels of another form.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise FssBenchError(
                f"{what} is an array {list(picture.shape)} of {picture.dtype}: it must be "
                "[H, W, 3] of uint8, RGB"
            )
        return picture
    return to_rgb(_open(Path(picture), what), Path(picture))


def title(picture: Picture, number: int = 1) -> str:
    """What a picture is called in messages."""
    return f"array {number}" if isinstance(picture, np.ndarray) else str(picture)


def _check_together(pictures: int, masks: int, ways: Sequence[str]) -> None:
    if not pictures:
        raise FssBenchError("no support: give --support FILE and --mask FILE, once or more")
    if masks != pictures:
        raise FssBenchError(
            f"{pictures} --support and {masks} --mask: give one --mask for every --support, in the "
            "same order"
        )
    if not ways:
        return
    if len(ways) != pictures:
        raise FssBenchError(
            f"{pictures} --support and {len(ways)} --way: give one --way for every --support, in "
            "the same order, or none"
        )
    counts = {way: list(ways).count(way) for way in ways}
    if "" in counts:
        raise FssBenchError("--way '': give it a name")
    if len(counts) > MOST_WAYS:
        raise FssBenchError(f"{len(counts)} ways: a PNG has room for {MOST_WAYS}")
    if len(set(counts.values())) > 1:
        told = shorten((f"{way} {count}" for way, count in counts.items()), 6)
        raise FssBenchError(
            f"ways have different numbers of supports ({told}): give each {min(counts.values())}"
        )


def _read_support(picture: Picture, mask: Annotation, several: bool, number: int) -> Support:
    pixels = read_picture(picture, "support")
    shape = (pixels.shape[0], pixels.shape[1])
    name = title(picture, number)
    text = mask if isinstance(mask, str) else ""
    if text.startswith("box:"):
        return Support(name, pixels, box_mask(text.removeprefix("box:"), shape))
    if text.startswith("points:"):
        return Support(name, pixels, points_mask(text.removeprefix("points:"), shape), sparse=True)
    found = _read_mask(mask, several, number)
    if found.shape != shape:
        raise FssBenchError(
            f"mask {title(mask, number)} is {found.shape[1]}x{found.shape[0]}, its picture {name} "
            f"{shape[1]}x{shape[0]} as it is shown (width x height): make the mask at that size"
        )
    return Support(name, pixels, found)


def _read_mask(mask: Annotation, several: bool, number: int) -> Mask:
    if not isinstance(mask, np.ndarray):
        path, value = split_value(str(mask))
        return file_mask(_open(path, "mask"), str(path), value, several)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        raise FssBenchError(
            f"mask {number} is an array {list(mask.shape)} of {mask.dtype}: it must be [H, W] of "
            "uint8 or bool"
        )
    return mask_of_values(mask.astype(np.uint8), f"array {number}", several=several)


def _open(path: Path, what: str) -> Image.Image:
    """A picture, the way up that its EXIF data say."""
    if not path.is_file():
        raise FssBenchError(f"{what} {path} is no file: check its name")
    try:
        picture = decode(path)
        ImageOps.exif_transpose(picture, in_place=True)
        return picture
    except UNREADABLE as error:
        raise FssBenchError(
            f"{what} {path} cannot be read ({one_line(error)}): save it anew as JPEG or PNG"
        ) from error
