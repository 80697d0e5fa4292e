"""Draws a scene: the background, the objects over it with their shadows, the light.

An object's outline is a signed distance, which also gives its soft edge, its shadow, its relief
and the ignore border.
"""

import re

import numpy as np
from numpy.typing import NDArray

from fss_bench.shapes.classes import CLASSES
from fss_bench.shapes.colours import Colour, dye, lay, palette, ramp, weight
from fss_bench.shapes.draws import Draws, Ints, Point, Reals
from fss_bench.shapes.layout import IMAGE_SIZE, Placed, place
from fss_bench.shapes.textures import scatter

IGNORE = 255

_BORDER = 1.0  # half the width of the ignore border, px
_MARGIN = 8  # room around an object for its soft edge and the blur of its shadow, px


def render(key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one image and its label map; a pure function of `key`.

    Args:
        key: Any string with a number in it, such as "test/17". The last number picks the primary
            class, `CLASS_NAMES[number % 20]`, which is drawn large and mostly visible.

    Returns:
        The RGB image [256, 256, 3], 0..255, and the label map [256, 256]: 0 background, class
        ids 1..20 (`CLASS_NAMES[id - 1]`), 255 a border about two pixels wide around objects.

    Raises:
        ValueError: If `key` holds no number.
    """
    numbers = re.findall("[0-9]+", key)
    if not numbers:
        raise ValueError(f"key {key!r} holds no number to pick the primary class by")
    primary = int(numbers[-1]) % len(CLASSES)
    draws = Draws(f"shapes/{key}")
    light = draws.direction()  # the way it travels, so shadows fall along it
    image = _background(draws, CLASSES[primary].hue, light)
    label = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    for thing in place(draws, primary):
        _paint(image, label, thing, light, draws)
    return _expose(image, draws), label


def _background(draws: Draws, hue: int, light: Point) -> Ints:
    """Draw planes [3, 256, 256], 0..255: regions of faint textures, then pebbles over them."""
    # Earth, leaves and sky are commoner than other hues.
    scene = (35, 95, 205, draws.integer(0, 359))[draws.integer(0, 3)] + draws.integer(-35, 35)
    image = _ground(draws, scene, hue)
    for _ in range(2):
        region = (draws.clouds(image.shape[1:], 90) - 132) * draws.integer(4, 30)
        lay(image, _ground(draws, scene, hue), np.clip(region, 0, 256))
    _strew(image, palette(draws, scene, 0, 150)[0], light, draws)
    return image


def _ground(draws: Draws, scene: int, hue: int) -> Ints:
    """Draw planes [3, 256, 256] of a faint, clouded texture in colours near `scene` or `hue`."""
    # One in three takes the primary class's hue, so that colour alone tells little.
    tint = hue if draws.integer(0, 2) == 0 else scene + draws.integer(-50, 50)
    colours = palette(draws, tint, draws.integer(-40, 40), 150)
    texture = CLASSES[draws.integer(0, len(CLASSES) - 1)].texture
    centre = draws.real(0.0, 255.0), draws.real(0.0, 255.0)
    x, y = _turned(IMAGE_SIZE, centre, draws.direction())
    weights = texture(x, y, draws.real(14.0, 34.0), draws)
    faint = draws.integer(50, 150)
    fill = dye((weights[0] * faint >> 8, weights[1] * faint >> 9), colours)
    return fill * (draws.clouds(x.shape, 56) + 110) >> 8


def _strew(image: Ints, colour: Colour, light: Point, draws: Draws) -> None:
    """Lay pebbles of `colour`, in many tones, into planes [3, 256, 256]."""
    x, y = _turned(IMAGE_SIZE, (0.0, 0.0), draws.direction())
    depth, tone = scatter(x, y, draws.real(20.0, 44.0), draws)
    alpha = ramp(depth) * (tone > draws.integer(20, 230))
    shade = 150 + (tone >> 1) + (_relief(np.floor(depth * 64.0).astype(np.int32), light) >> 8)
    lay(image, np.array(colour, dtype=np.int32)[:, None, None] * shade >> 8, alpha)


def _paint(
    image: Ints, label: NDArray[np.uint8], thing: Placed, light: Point, draws: Draws
) -> None:
    """Draw an object and its shadow into `image` [3, 256, 256] and `label` [256, 256]."""
    entry = CLASSES[thing.class_index]
    half = thing.radius + _MARGIN
    centre = (half + draws.real(-0.5, 0.5), half + draws.real(-0.5, 0.5))
    x, y = _turned(2 * half + 1, centre, draws.direction())
    flip = 1.0 if draws.integer(0, 1) else -1.0
    depth = entry.outline(x * (flip / thing.radius), y / thing.radius, draws) * -float(thing.radius)

    drop = draws.integer(3, 9)
    shadow = ramp(depth / 9.0) * draws.integer(70, 140) >> 8
    fall = (thing.x + int(light[0] * drop), thing.y + int(light[1] * drop))
    seen, own = _window(*fall, half)
    lay(image[(slice(None), *seen)], np.zeros((1, 1, 1), dtype=np.int32), shadow[own])

    period = thing.radius * draws.real(0.24, 0.36) + 3.0
    colours = palette(draws, entry.hue, entry.shift, 220)
    fill = dye(entry.texture(x, y, period, draws), colours)
    fill = fill * _pillow(depth, thing.radius, light, draws) >> 8
    seen, own = _window(thing.x, thing.y, half)
    lay(image[(slice(None), *seen)], fill[(slice(None), *own)], ramp(depth)[own])
    inside, edge = depth[own] > _BORDER, np.abs(depth[own]) <= _BORDER
    label[seen] = np.where(edge, IGNORE, np.where(inside, thing.class_index + 1, label[seen]))


def _pillow(depth: Reals, radius: int, light: Point, draws: Draws) -> Ints:
    """Return the brightness, 256 plain, of an object that bulges from its edge, then levels off."""
    bevel = draws.real(4.0, 0.5 * radius)
    rise = 1.0 - np.minimum(np.maximum(depth, 0.0), bevel) / bevel
    slope = _relief(np.floor(depth * 64.0).astype(np.int32), light) >> 6
    return 256 + (slope * weight(rise * rise) * draws.integer(50, 100) >> 16)


def _window(x: int, y: int, half: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the image a square patch covers, and the part of the patch it shows."""
    seen, own = [], []
    for at in (y - half, x - half):
        low, high = max(at, 0), min(at + 2 * half + 1, IMAGE_SIZE)
        seen.append(slice(low, high))
        own.append(slice(low - at, high - at))
    return (seen[0], seen[1]), (own[0], own[1])


def _expose(image: Ints, draws: Draws) -> NDArray[np.uint8]:
    """Add uneven light and sensor noise to planes; return the image [256, 256, 3]."""
    size = IMAGE_SIZE
    lamp = draws.noise((size, size), 160) // 3 + 215
    bits = np.frombuffer(draws.raw(3 * size * size), dtype=np.uint8).astype(np.int32)
    # The sum of a byte's two halves: a cheap bell, -15..15.
    grain = ((bits & 15) + (bits >> 4) - 15).reshape(3, size, size) * draws.integer(3, 14) >> 4
    planes = np.clip((image * lamp >> 8) + grain, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _turned(size: int, centre: Point, turn: Point) -> tuple[Reals, Reals]:
    """Return coordinates [size, size] in pixels around `centre`, turned by a unit vector."""
    at = np.arange(size, dtype=np.float64)
    x, y = (at - centre[0])[None, :], (at - centre[1])[:, None]
    return x * turn[0] + y * turn[1], y * turn[0] - x * turn[1]


def _relief(height: Ints, light: Point) -> Ints:
    """Return how steeply a height map [h, w] rises along the way of the light, times 256."""
    across, down = np.zeros_like(height), np.zeros_like(height)
    across[:, 1:-1] = height[:, 2:] - height[:, :-2]
    down[1:-1] = height[2:] - height[:-2]
    return (across * int(light[0] * 128.0) + down * int(light[1] * 128.0)).astype(np.int32)
