"""What outlines are built from: signed distances to simple shapes, and mirrors.

A signed distance takes coordinates `u`, `v` (v points down) and returns how far each point lies
outside the shape, negative inside. The smaller of two distances is that to both shapes joined,
the larger that to what they share, and the negative that to all the rest.
"""

import math

import numpy as np

from fss_bench.shapes.draws import Point, Reals

# Mirror lines (cos, sin of the angle from the -v axis) that fold the plane onto one n-th of it.
MIRRORS: dict[int, tuple[Point, ...]] = {
    5: ((-0.309016994, 0.951056516), (0.809016994, 0.587785252)),
    6: ((0.0, 1.0), (0.866025404, 0.5)),
    7: ((-0.222520934, 0.974927912), (0.623489802, 0.781831482), (0.900968868, 0.433883739)),
    8: ((0.0, 1.0), (0.707106781, 0.707106781), (0.923879533, 0.382683432)),
}


def length(x: Reals, y: Reals) -> Reals:
    """Distance from the origin."""
    return np.sqrt(x * x + y * y)


def box(u: Reals, v: Reals, centre: Point, half: Point) -> Reals:
    """Upright rectangle of half width and half height `half`."""
    return np.maximum(np.abs(u - centre[0]) - half[0], np.abs(v - centre[1]) - half[1])


def beyond(u: Reals, v: Reals, a: Point, b: Point) -> Reals:
    """Distance beyond the line from a to b: positive on its left side (v points down)."""
    ex, ey = b[0] - a[0], b[1] - a[1]
    norm = math.sqrt(ex * ex + ey * ey)
    return (u - a[0]) * (ey / norm) - (v - a[1]) * (ex / norm)


def convex(u: Reals, v: Reals, *corners: Point) -> Reals:
    """Convex polygon, corners clockwise on screen (v points down)."""
    out = np.full_like(u, -np.inf)
    for a, b in zip(corners, (*corners[1:], corners[0]), strict=True):
        out = np.maximum(out, beyond(u, v, a, b))
    return out


def ellipse(u: Reals, v: Reals, a: float, b: float) -> Reals:
    """Ellipse of half axes a, b: first-order distance, exact on the outline."""
    level = length(u / a, v / b)
    slope = length(u / (a * a), v / (b * b))
    return (level + 1e-9) * (level - 1.0) / (slope + 1e-9)


def fold(u: Reals, v: Reals, n: int) -> tuple[Reals, Reals]:
    """Reflect the n sectors of the plane onto the half of one right of the -v axis (u >= 0)."""
    u = np.abs(u)
    for c, s in MIRRORS[n]:
        past = np.maximum(u * c + v * s, 0.0) * 2.0
        u, v = u - past * c, v - past * s
    return np.abs(u), v
