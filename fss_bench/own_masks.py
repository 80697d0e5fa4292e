"""What a user says of a picture: a mask as people draw or export them, a box, or points.

All become what methods see: 1 on the object, 0 off it, 255 unlabelled (`fss_bench.annotations`).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fss_bench.errors import FssBenchError

Mask = NDArray[np.uint8]
Shape = tuple[int, int]
"""Height and width, px."""

MOST_VALUES = 16
"""A greyscale mask with more values besides 0 and 255 is no index map: it has soft edges."""
LARGEST_INDEX = 64
"""Where 255 covers more than they do, values above this are rather edges of white than indexes."""
_LOSSY = ("JPEG", "MPO", "WEBP")
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def box_mask(text: str, shape: Shape) -> Mask:
    """A box as a mask [H, W]: 1 in it, 0 around it.

    Args:
        text: `x0,y0,x1,y1` in pixels from the top left; x1 and y1 are the first outside.
        shape: of the picture.

    Raises:
        FssBenchError: written otherwise, empty, or not within the picture.
    """
    x0, y0, x1, y1 = _numbers(text, 4, f"box:{text}", "box:x0,y0,x1,y1")
    height, width = shape
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise FssBenchError(
            f"box:{text} is not within the picture, which is {width}x{height}: give "
            "left,top,right,bottom in its pixels"
        )
    mask = np.zeros(shape, np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def points_mask(text: str, shape: Shape) -> Mask:
    """Points as a mask [H, W]: 1 on the object, 0 off it, 255 elsewhere.

    Args:
        text: `x,y;x,y/x,y`: points on the object, a slash, points off it.
        shape: of the picture.

    Raises:
        FssBenchError: written otherwise, outside of the picture, or none on or off the object.
    """
    form = "points:x,y;x,y/x,y with points off the object after the slash"
    height, width = shape
    mask = np.full(shape, 255, np.uint8)
    on, slash, off = text.partition("/")
    if not slash:
        raise FssBenchError(f"points:{text} has none off the object: write {form}")
    for label, points in ((1, on), (0, off)):
        for point in points.split(";"):
            x, y = _numbers(point, 2, f"points:{text}", form)
            if not (0 <= x < width and 0 <= y < height):
                raise FssBenchError(
                    f"point {x},{y} is not within the picture, which is {width}x{height}: give "
                    "points in its pixels"
                )
            if mask[y, x] == 1 - label:
                raise FssBenchError(
                    f"point {x},{y} is both on the object and off it: take one of them out"
                )
            mask[y, x] = label
    return mask


def split_value(text: str) -> tuple[Path, int | None]:
    """The file and the value of `FILE#8`; a file that has such a name is meant itself."""
    found = re.fullmatch(r"(.+)#(\d+)", text)
    if found is None or Path(text).is_file():
        return Path(text), None
    return Path(found[1]), int(found[2])


def file_mask(picture: Image.Image, name: str, value: int | None, several: bool) -> Mask:
    """A decoded mask file as a mask [H, W].

    Args:
        picture: black and white, or an index map; see docs/predict.md.
        name: of the file.
        value: the one that is the object; None: all but 0 and 255, or 255 where there is no other.
        several: whether there are several ways.

    Raises:
        FssBenchError: what is the object is not clear, or there is none.
    """
    if picture.format in _LOSSY:
        raise FssBenchError(
            f"mask {name} is a {picture.format} picture, whose values are not exact: save it as PNG"
        )
    values, grey = _values(picture, name)
    return mask_of_values(values, name, value, several, grey)


def mask_of_values(
    values: Mask, name: str, value: int | None = None, several: bool = False, grey: bool = False
) -> Mask:
    """Values [H, W] as a mask: see `file_mask`; `grey` if they are brightness for all we know."""
    others = [int(v) for v in np.unique(values) if v not in (0, 255)]
    if value is None and others:
        _check_clear(values, name, others, several, grey)
    if value is not None:
        on = (values == value) & (values > 0)
    else:
        on = (values > 0) & (values < 255) if others else values == 255
    if not on.any():
        held = ", ".join(map(str, [*others, *([255] if (values == 255).any() else [])]))
        raise FssBenchError(
            f"mask {name} has no pixel of the object: it must be white, or 1 to 254"
            if value is None
            else f"mask {name} has no pixel of value {value}: it holds {held or 'nothing but 0'}"
        )
    ignored = (values == 255) & ~on
    return np.where(ignored, np.uint8(255), on.astype(np.uint8))


def _check_clear(values: Mask, name: str, others: Sequence[int], several: bool, grey: bool) -> None:
    """Refuse values of which more than one reading is likely."""
    inside = np.count_nonzero((values > 0) & (values < 255))
    edges = max(others) > LARGEST_INDEX and np.count_nonzero(values == 255) > inside
    if grey and (len(others) > MOST_VALUES or edges):
        raise FssBenchError(
            f"mask {name} has greys beside black and white, so that 255 may be the object or to "
            f"be ignored: save it without soft edges, or name the object's value as {name}#"
            f"{others[0]}"
        )
    if several and len(others) > 1:
        raise FssBenchError(
            f"mask {name} holds several values ({', '.join(map(str, others[:5]))}"
            f"{', …' if len(others) > 5 else ''}): with several ways name the one that is the "
            f"object: {name}#{others[0]}"
        )


def _values(picture: Image.Image, name: str) -> tuple[Mask, bool]:
    """Values [H, W] of a mask file, and whether they are brightness for all we know."""
    mode = picture.mode
    if mode == "1":
        return np.asarray(picture).astype(np.uint8), False
    if mode == "P":
        return _palette_values(picture), False
    if mode == "L":
        return np.asarray(picture, dtype=np.uint8), True
    if mode in ("RGBA", "LA"):
        alpha = np.asarray(picture.getchannel("A"))
        if (alpha < 128).any():  # a cut-out: what is left of it is the object
            return (alpha >= 128).astype(np.uint8), False
    if mode not in ("RGB", "RGBA", "LA"):
        raise FssBenchError(
            f"mask {name} has mode {mode}: save it as a PNG in black and white, or as one of 8 "
            "bits whose values are indexes"
        )
    pixels = np.asarray(picture.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise FssBenchError(
            f"mask {name} has colours, and which of them is the object is not known: save it in "
            "black and white, or as a palette PNG"
        )
    return np.array(pixels[..., 0], dtype=np.uint8), True


def _palette_values(picture: Image.Image) -> Mask:
    """Indexes; of a drawing in just black and white, 1 where it is white."""
    indexes = np.asarray(picture, dtype=np.uint8)
    used = np.unique(indexes)
    palette = np.zeros((256, 3), np.uint8)
    given = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(given)] = given
    colours = [tuple(map(int, palette[index])) for index in used]
    if len(used) == 2 and sorted(colours) == [_BLACK, _WHITE]:
        return np.asarray(indexes == used[colours.index(_WHITE)], dtype=np.uint8)
    return indexes


def _numbers(text: str, count: int, given: str, form: str) -> list[int]:
    parts = text.split(",")
    try:
        if len(parts) == count:
            return [int(part) for part in parts]
    except ValueError:
        pass
    raise FssBenchError(f"--mask {given}: write {form}, in whole pixels")
