"""Regions of COCO annotations, checked: pycocotools trusts what it is given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

FARTHEST = 1e6
"""Px; a corner beyond it is a mistake."""
LONGEST = 1e7
"""Px around a polygon: pycocotools takes tens of bytes for each, and ends the process when none
are left or a count overflows."""


def run_lengths(segmentation: Any, height: int, width: int) -> Any:
    """Compressed code of a polygon list or of a run-length code of either form.

    Checks what pycocotools would answer with a crash or with the contents of unused memory.

    Raises:
        ValueError: nothing there, another size, or numbers that are none of an image's.
    """
    if not segmentation:
        raise ValueError("no polygon and no run-length code")
    if isinstance(segmentation, list):
        if not all(np.abs(np.asarray(xy, dtype=float)).max() < FARTHEST for xy in segmentation):
            raise ValueError("a corner a million pixels away, or not a number")
        if any(len(xy) % 2 for xy in segmentation):
            raise ValueError("a polygon of an odd number of coordinates")
        if (length := max(map(_perimeter, segmentation))) > LONGEST:
            raise ValueError(f"a polygon that is {length:.0f} px around, more than {LONGEST:.0f}")
        return rle_tools.merge(rle_tools.frPyObjects(segmentation, height, width))
    rows, columns = segmentation["size"]
    if (rows, columns) != (height, width):
        raise ValueError(f"size {columns}x{rows}, its image is {width}x{height}")
    counts = segmentation["counts"]
    lengths = counts if isinstance(counts, list) else lengths_of(counts)
    if any(length < 0 for length in lengths):
        raise ValueError(f"a count of RLE is negative: {min(lengths)}")
    if (total := sum(map(int, lengths))) != height * width:
        raise ValueError(f"counts add up to {total}, not {height} * {width}")
    if isinstance(counts, list):
        return rle_tools.frPyObjects(segmentation, height, width)
    return segmentation


def _perimeter(polygon: Sequence[float]) -> float:
    """Px around a polygon, a diagonal step as long as a straight one."""
    corners = np.asarray(polygon, dtype=float).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


def lengths_of(code: str | bytes) -> list[int]:
    """Lengths of the runs in COCO's compressed code.

    Each number is groups of five bits, lowest first, as characters from `0` on; bit 5 says that
    more follow, and bit 4 of the last is the sign. From the fourth on they are differences to the
    number two before.

    Raises:
        ValueError: characters that are none of the code, or the last number is cut.
    """
    characters = code.encode("ascii") if isinstance(code, str) else bytes(code)
    lengths: list[int] = []
    value = shift = 0
    for character in characters:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("characters that are no RLE code")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) if bits & 16 else 0
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("an RLE code that is cut")
    return lengths


def overhang(segmentation: Any, height: int, width: int) -> float:
    """How far polygons reach out of an image, px; 0 for run-length codes."""
    if not isinstance(segmentation, list):
        return 0.0
    corners: Sequence[Any] = [np.asarray(xy, dtype=float).reshape(-1, 2) for xy in segmentation]
    xy = np.concatenate(corners)
    return float(max(0.0, (-xy).max(), (xy - [width, height]).max()))
