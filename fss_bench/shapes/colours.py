"""Colours, and blending them by integer weights 0..256."""

import numpy as np

from fss_bench.shapes.draws import Draws, Ints, Reals

Colour = tuple[int, int, int]  # red, green, blue, 0..255
Palette = tuple[Colour, Colour, Colour]
# How much of a palette's second colour to mix into the first, then of the third to lay over that.
Weights = tuple[Ints, Ints]


def weight(amount: Reals) -> Ints:
    """Turn shares (0..1, clipped) into integer blending weights 0..256."""
    return np.floor(np.minimum(np.maximum(amount, 0.0), 1.0) * 256.0).astype(np.int32)


def ramp(depth: Reals) -> Ints:
    """One-pixel soft edge: full weight where `depth` px > 0.5, none where < -0.5."""
    return weight(depth + 0.5)


def palette(draws: Draws, hue: int, shift: int, vivid: int) -> Palette:
    """Draw three colours that stand out from each other; ranges overlap between all classes.

    Args:
        draws: The scene's random numbers.
        hue: Centre of the first colour's range, degrees.
        shift: From the first colour's hue to the centre of the second's range, degrees.
        vivid: The highest saturation of these two, 0..255.
    """
    main = hue + draws.integer(-65, 65)
    bright = draws.integer(105, 240)
    other = bright + draws.integer(65, 100) * (1 if bright < 155 else -1)
    third = draws.integer(215, 250) if bright + other < 330 else draws.integer(25, 70)
    return (
        _hsv(main, draws.integer(30, vivid), bright),
        _hsv(main + shift + draws.integer(-30, 30), draws.integer(30, vivid), other),
        _hsv(main + draws.integer(-90, 90), draws.integer(20, 130), third),
    )


def dye(weights: Weights, colours: Palette) -> Ints:
    """Blend three colours by a texture's weights [h, w] into planes [3, h, w], 0..255."""
    first, second, third = (np.array(colour, dtype=np.int32)[:, None, None] for colour in colours)
    blend = first * 256 + (second - first) * weights[0]
    return (blend * (256 - weights[1]) + third * 256 * weights[1]) >> 16


def lay(under: Ints, over: Ints, alpha: Ints) -> None:
    """Blend `over` [3, h, w] (or a constant) into `under` in place by `alpha` [h, w], 0..256."""
    under += ((over - under) * alpha) >> 8


def _hsv(hue: int, saturation: int, value: int) -> Colour:
    """Convert a hue in degrees (any integer), saturation and value in 0..255 to RGB, 0..255."""
    at = hue % 360 * 1536 // 360
    part = at & 255
    low = value * (255 - saturation) // 255
    fall = value * (65280 - saturation * part) // 65280
    rise = value * (65280 - saturation * (256 - part)) // 65280
    return (
        (value, rise, low),
        (fall, value, low),
        (low, value, rise),
        (low, fall, value),
        (rise, low, value),
        (value, low, fall),
    )[at >> 8]
