"""The outlines of the twenty classes, as signed distances.

An outline takes coordinates `u`, `v` (v points down) in units of the object's radius and draws its
own proportions. It returns, in the same unit, roughly how far each point lies outside (negative
inside). Every outline fits in the unit circle, give or take 2%.
"""

import math

import numpy as np

from fss_bench.shapes.distances import MIRRORS, beyond, box, convex, ellipse, fold, length
from fss_bench.shapes.draws import Draws, Reals


def disk(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Ellipse, at its flattest two thirds as high as wide."""
    return ellipse(u, v, 1.0, draws.real(0.68, 1.0))


def square(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Rectangle with rounded corners, nearly a square."""
    corner, wide, high = draws.real(0.05, 0.3), draws.real(0.58, 0.72), draws.real(0.58, 0.72)
    x, y = np.abs(u) - wide + corner, np.abs(v) - high + corner
    outside = length(np.maximum(x, 0.0), np.maximum(y, 0.0))
    return outside + np.minimum(np.maximum(x, y), 0.0) - corner


def triangle(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Triangle on a level base, its tip leaning to either side."""
    wide, lean = draws.real(0.68, 0.84), draws.real(-0.35, 0.35)
    return convex(u, v, (lean, -0.9), (wide, 0.53), (-wide, 0.53))


def star(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Star of five or six points."""
    n = draws.integer(5, 6)
    x, y = fold(u, v, n)
    (c, s), inner = MIRRORS[n][-1], draws.real(0.44, 0.58)
    return beyond(x, y, (0.0, -1.0), (s * inner, -c * inner))


def cross(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Cross, its bar above or below the middle."""
    thick, shift = draws.real(0.22, 0.32), draws.real(-0.3, 0.3)
    across = box(u, v, (0.0, shift), (draws.real(0.68, 0.86), thick))
    return np.minimum(across, box(u, v, (0.0, 0.0), (thick, 0.92)))


def ring(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Elliptic ring around a hole about half as wide."""
    flat, hole = draws.real(0.76, 1.0), draws.real(0.42, 0.56)
    return np.maximum(ellipse(u, v, 1.0, flat), -ellipse(u, v, hole, hole * flat))


def crescent(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Disk with a smaller disk bitten out of its right side."""
    bite = draws.real(0.74, 0.86)
    return np.maximum(length(u, v) - 0.98, bite - length(u - draws.real(0.5, 0.62), v))


def heart(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Heart, its tip at the bottom."""
    x, y, d = np.abs(u) * draws.real(0.94, 1.12), v - 0.06, draws.real(0.65, 0.71)
    lobe = length(x - d / 2.0, y + d / 2.0) - d * 0.70710678
    return np.minimum((x + np.abs(y) - d) * 0.70710678, lobe)


def arrow(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Arrow that points up."""
    neck, wide, thick = draws.real(-0.15, 0.1), draws.real(0.6, 0.78), draws.real(0.2, 0.3)
    head = convex(u, v, (0.0, -1.0), (wide, neck), (-wide, neck))
    return np.minimum(head, box(u, v, (0.0, 0.3), (thick, 0.62)))


def ell(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Letter L."""
    thick, wide = draws.real(0.2, 0.29), draws.real(0.5, 0.61)
    foot = box(u, v, (0.0, 0.76 - thick), (wide, thick))
    return np.minimum(foot, box(u, v, (thick - wide, -0.02), (thick, 0.78)))


def tee(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Letter T."""
    thick, wide = draws.real(0.2, 0.28), draws.real(0.6, 0.74)
    bar = box(u, v, (0.0, thick - 0.66), (wide, thick))
    return np.minimum(bar, box(u, v, (0.0, 0.13), (thick, 0.79)))


def gear(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Gear of seven or eight teeth around a round hole."""
    x, y = fold(u, v, draws.integer(7, 8))
    rim, tooth = draws.real(0.7, 0.78), draws.real(0.13, 0.18)
    body = np.minimum(length(u, v) - rim, box(x, y, (0.0, -0.5), (tooth, 0.47)))
    return np.maximum(body, draws.real(0.22, 0.36) - length(u, v))


def hourglass(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Hourglass; the widest have their corners cut off."""
    waist, slope, high = draws.real(0.08, 0.18), draws.real(0.55, 0.75), draws.real(0.7, 0.78)
    x, y = np.abs(u), np.abs(v)
    side = (x - waist - slope * y) / math.sqrt(1.0 + slope * slope)
    return np.maximum(np.maximum(side, y - high), x - 0.62)


def drop(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Drop, its tip at the top."""
    r = draws.real(0.5, 0.62)
    centre = 0.97 - r
    sine = r / (centre + 1.0)
    # The sides run from the tip (0, -1) to where they touch the circle.
    side = np.abs(u) * math.sqrt(1.0 - sine * sine) - (v + 1.0) * sine
    cone = np.maximum(side, v - (centre - r * sine))
    return np.minimum(cone, length(u, v - centre) - r)


def flower(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Five to seven petals around a disk."""
    n, reach = draws.integer(5, 7), draws.real(0.6, 0.68)
    x, y = fold(u, v, n)
    petal = ellipse(x, y + reach, 1.7 / n + 0.01, 0.98 - reach)
    return np.minimum(petal, length(u, v) - reach * 0.8)


def fish(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Fish that faces left, with a tail and a fin on its back."""
    fat, spread = draws.real(0.38, 0.52), draws.real(0.36, 0.5)
    body = ellipse(u + 0.27, v, 0.71, fat)
    tail = convex(np.abs(u), np.abs(v), (0.2, -0.1), (0.86, -1.0), (0.86, spread), (0.2, 0.06))
    fin = convex(u, v, (0.05, -fat - 0.2), (0.1, 0.0), (-0.6, 0.0))
    return np.minimum(np.minimum(body, fin), np.maximum(tail, 0.2 - u))


def house(u: Reals, v: Reals, draws: Draws) -> Reals:
    """House with overhanging eaves and a chimney."""
    wide, wall, eaves = draws.real(0.5, 0.6), draws.real(-0.2, 0.02), draws.real(0.06, 0.2)
    roof = convex(u, v, (0.0, -0.92), (wide + eaves, wall), (-wide - eaves, wall))
    walls = box(u, v, (0.0, 0.3), (wide, 0.44))
    chimney = box(u, v, (wide * 0.6, -0.5), (0.12, 0.3))
    return np.minimum(np.minimum(roof, walls), chimney)


def mushroom(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Domed cap on a straight stem."""
    high, rim, stem = draws.real(0.7, 0.9), draws.real(0.0, 0.12), draws.real(0.2, 0.32)
    cap = np.maximum(ellipse(u, v, 0.96, high), v - rim)
    return np.minimum(cap, box(u, v, (0.0, 0.45), (stem, 0.47)))


def bolt(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Lightning bolt: a slanted block above a tapering point."""
    wide, tilt = draws.real(0.42, 0.54), draws.real(0.2, 0.32)
    upper = convex(u, v, (tilt - 0.4, -0.9), (tilt + 0.15, -0.9), (0.24, 0.22), (-wide, 0.22))
    lower = convex(u, v, (-0.1, -0.22), (wide + 0.14, -0.24), (-tilt, 0.92))
    return np.minimum(upper, lower)


def tree(u: Reals, v: Reals, draws: Draws) -> Reals:
    """Fir of three layers on a trunk."""
    wide, trunk = draws.real(0.54, 0.68), draws.real(0.11, 0.18)
    out = box(u, v, (0.0, 0.7), (trunk, 0.26))
    for top, low, share in ((-1.0, -0.3, 0.62), (-0.68, 0.14, 0.82), (-0.3, 0.66, 1.0)):
        layer = convex(u, v, (0.0, top), (wide * share, low), (-wide * share, low))
        out = np.minimum(out, layer)
    return out
