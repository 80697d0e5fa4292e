"""Which objects a scene holds, where and how large."""

import math
from typing import NamedTuple

from fss_bench.shapes.classes import CLASSES
from fss_bench.shapes.draws import Draws

IMAGE_SIZE = 256  # width and height; the ranges below are made for it


class Placed(NamedTuple):
    """One object of the scene; position of its centre and radius in pixels."""

    class_index: int  # in `CLASSES`
    x: int
    y: int
    radius: int


def place(draws: Draws, primary: int) -> list[Placed]:
    """Choose classes, sizes and places; objects later in the list hide earlier ones.

    Args:
        draws: The scene's random numbers.
        primary: Index in `CLASSES` of the class of the large object near the middle.
    """
    count = len(CLASSES)
    kinds = [primary]
    kinds += [(primary + draws.integer(1, count - 1)) % count for _ in range(draws.integer(1, 3))]
    repeats = [kinds[draws.integer(0, len(kinds) - 1)] for _ in range(draws.integer(0, 2))]
    middle = draws.integer(80, 176), draws.integer(80, 176)
    placed = [Placed(primary, *middle, draws.integer(58, 85))]
    for kind in (kinds[1:] + repeats)[:4]:
        radius, closeness = draws.integer(25, 62), draws.real(0.62, 1.0)
        best, best_gap = placed[0], -1000.0
        for _ in range(12):
            spot = Placed(kind, draws.integer(14, 241), draws.integer(14, 241), radius)
            gap = min(_gap(spot, other, closeness) for other in placed)
            if gap > best_gap:
                best, best_gap = spot, gap
            if gap >= 0.0:
                break
        placed.append(best)
    # The primary object goes among the upper ones, but may itself be partly hidden.
    placed.insert(draws.integer(max(len(placed) - 2, 1), len(placed)), placed[0])
    return placed[1:]


def _gap(a: Placed, b: Placed, closeness: float) -> float:
    """Return how far two objects keep apart, px, once `closeness` of their radii is kept."""
    x, y = float(a.x - b.x), float(a.y - b.y)
    return math.sqrt(x * x + y * y) - closeness * (a.radius + b.radius)
