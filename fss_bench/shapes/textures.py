"""The textures of objects and backgrounds.

A texture takes coordinates `x`, `y` in pixels and the `period` it repeats with, roughly, also in
pixels. It returns the two weights by which to blend a palette of three colours.
"""

import numpy as np

from fss_bench.shapes.colours import Weights, ramp, weight
from fss_bench.shapes.distances import length
from fss_bench.shapes.draws import Draws, Ints, Reals


def stripes(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Parallel stripes."""
    return ramp(_bands(x, period, draws.real(0.4, 0.6))), _blank(x)


def checks(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Squares of a chessboard."""
    a, b = _bands(x, period), _bands(y, period)
    edge = np.minimum(np.abs(a), np.abs(b))
    return ramp(np.where((a > 0.0) == (b > 0.0), edge, -edge)), _blank(x)


def dots(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Staggered rows of dots, each with a core in the third colour."""
    row = np.floor(y / period + 0.5)
    across, down = _off(x / period + row * 0.5), _off(y / period)
    gap = length(across, down)
    size = draws.real(0.27, 0.36)
    return ramp((size - gap) * period), ramp((size * 0.4 - gap) * period)


def marble(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Soft blotches under thin veins."""
    cell = max(int(period * 1.3), 4)
    blotch, vein = draws.clouds(x.shape, cell), draws.clouds(x.shape, cell)
    return np.clip((blotch - 100) * 5, 0, 256), np.clip(300 - np.abs(vein - 128) * 36, 0, 256)


def plaid(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Broad bands that cross, with thin lines midway between them."""
    broad = ramp(_bands(x, period * 1.5)) + ramp(_bands(y, period * 1.5))
    line = np.maximum(
        _bands(x + period * 0.75, period * 1.5, 0.14), _bands(y + period * 0.75, period * 1.5, 0.14)
    )
    return broad >> 1, ramp(line) * 3 >> 2


def zigzag(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Bands bent into zigzags."""
    bend = np.abs(_off(x / (period * 1.4))) * (period * 1.4)
    return ramp(_bands(y + bend, period) * 0.75), _blank(x)


def waves(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Bands bent into waves, each with a thin line along its middle."""
    t = np.abs(_off(x / (period * 2.0))) * 2.0
    swing = t * t * (3.0 - 2.0 * t) * period * draws.real(0.6, 1.0)
    return ramp(_bands(y + swing, period)), ramp(_bands(y + swing, period, 0.16))


def speckles(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Small ellipses in many tones under larger ones."""
    fine, tone = scatter(x, y, period * 0.55, draws)
    rough, _ = scatter(x + y * 0.5, y - x * 0.5, period, draws)
    return ramp(fine) * (tone + 90) >> 8, ramp(rough)


def rings(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Concentric rings around a point near the middle."""
    shift = draws.real(-1.0, 1.0) * period
    return ramp(_bands(length(x - shift, y), period)), _blank(x)


def net(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Thin lines that cross aslant."""
    a, b, thick = x + y * 0.5, x - y * 0.5, draws.real(0.16, 0.24)
    period = period * 0.9
    return ramp(np.maximum(_bands(a, period, thick), _bands(b, period, thick))), _blank(x)


def wood(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Warped year rings with a fine grain."""
    warp = draws.noise(x.shape, max(int(period * 3.0), 4)) * (period / 70.0)
    along = (x + warp) / (period * 0.8)
    grain = draws.noise(x.shape, 3) // 5
    # Year rings: each darkens slowly, then ends at once.
    ring = along - np.floor(along)
    return np.minimum(weight(ring * ring) + grain, 256), weight(ring * 6.0 - 5.2) * 3 >> 2


def bricks(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Staggered bricks in many tones, with mortar between them."""
    row = np.floor(y / (period * 0.7))
    col = np.floor(x / (period * 1.4) + row * 0.5)
    # Brick by brick another tone, from a small random table.
    tones = np.frombuffer(draws.raw(64), dtype=np.uint8).astype(np.int32)
    tone = tones[(row * 11.0 + col * 5.0).astype(np.int32) & 63]
    across = _bands(x + row * (period * 0.7), period * 1.4, 0.14)
    return tone >> 1, ramp(np.maximum(across, _bands(y, period * 0.7, 0.26)))


def scales(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Overlapping rows of round scales."""
    row = np.floor(y / (period * 0.5))
    gaps = []
    for up in (0.0, 1.0):
        across = _off(x / period + (row - up) * 0.5) * period
        gaps.append(length(across, y - (row - up) * (period * 0.5)))
    reach = np.where(gaps[0] < period * 0.5, gaps[0], gaps[1]) / period
    return weight(reach * reach * 3.0), ramp((reach - 0.42) * period)


def camouflage(x: Reals, y: Reals, period: float, draws: Draws) -> Weights:
    """Large patches of three colours."""
    cell = max(int(period * 0.9), 4)
    first, second = draws.clouds(x.shape, cell), draws.clouds(x.shape, cell)
    return np.clip((first - 128) * 40, 0, 256), np.clip((second - 146) * 40, 0, 256)


def scatter(x: Reals, y: Reals, pitch: float, draws: Draws) -> tuple[Reals, Ints]:
    """Strew small ellipses, one for each square of `pitch` pixels.

    Returns:
        The depth in pixels inside them (negative outside), and a tone 0..255 for each, [h, w].
    """
    x, y = x / pitch, y / pitch
    col, row = np.floor(x), np.floor(y)
    pick = (col * 37.0 + row * 101.0).astype(np.int32) & 255
    tables = np.frombuffer(draws.raw(1024), dtype=np.uint8).reshape(4, 256)
    left, top, breadth = tables[:3] / 255.0
    wide = (breadth * 0.18 + 0.09)[pick]
    across = (x - col - (left * 0.4 + 0.3)[pick]) / wide
    down = (y - row - (top * 0.4 + 0.3)[pick]) / (0.36 - wide)
    depth = (1.0 - length(across, down)) * np.minimum(wide, 0.36 - wide) * pitch
    return depth, tables[3].astype(np.int32)[pick]


def _off(x: Reals) -> Reals:
    """Return the signed distance to the nearest integer, -0.5..0.5."""
    return x - np.floor(x + 0.5)


def _bands(x: Reals, period: float, share: float = 0.5) -> Reals:
    """Depth in px inside bands that fill `share` of each period."""
    return (0.5 * share - np.abs(_off(x / period))) * period


def _blank(x: Reals) -> Ints:
    """Weights of a colour that a texture does without."""
    return np.zeros(x.shape, dtype=np.int32)
