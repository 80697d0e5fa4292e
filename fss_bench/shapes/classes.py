"""The twenty classes of the dataset."""

from collections.abc import Callable
from typing import NamedTuple

from fss_bench.shapes import outlines, textures
from fss_bench.shapes.colours import Weights
from fss_bench.shapes.draws import Draws, Reals


class ShapeClass(NamedTuple):
    """One class: its outline, its texture, and where its colours come from."""

    name: str
    outline: Callable[[Reals, Reals, Draws], Reals]
    texture: Callable[[Reals, Reals, float, Draws], Weights]
    hue: int  # centre of the main colour's range, degrees; the range is wide and shared
    shift: int  # from the main colour's hue to the second's, degrees


# Four folds of five; the textures within a fold differ, six come back in another fold.
CLASSES: tuple[ShapeClass, ...] = (
    ShapeClass("striped disk", outlines.disk, textures.stripes, 20, 180),
    ShapeClass("checked square", outlines.square, textures.checks, 220, 150),
    ShapeClass("dotted triangle", outlines.triangle, textures.dots, 50, 120),
    ShapeClass("marbled star", outlines.star, textures.marble, 280, 40),
    ShapeClass("plaid cross", outlines.cross, textures.plaid, 350, 130),
    ShapeClass("zigzag ring", outlines.ring, textures.zigzag, 170, 60),
    ShapeClass("speckled crescent", outlines.crescent, textures.speckles, 45, 20),
    ShapeClass("ringed heart", outlines.heart, textures.rings, 340, 30),
    ShapeClass("netted arrow", outlines.arrow, textures.net, 140, 90),
    ShapeClass("wooden L", outlines.ell, textures.wood, 28, 12),
    ShapeClass("striped T", outlines.tee, textures.stripes, 200, 30),
    ShapeClass("camouflaged gear", outlines.gear, textures.camouflage, 90, 50),
    ShapeClass("checked hourglass", outlines.hourglass, textures.checks, 310, 60),
    ShapeClass("wavy drop", outlines.drop, textures.waves, 210, 40),
    ShapeClass("dotted flower", outlines.flower, textures.dots, 300, 110),
    ShapeClass("scaled fish", outlines.fish, textures.scales, 185, 160),
    ShapeClass("bricked house", outlines.house, textures.bricks, 10, 20),
    ShapeClass("speckled mushroom", outlines.mushroom, textures.speckles, 0, 50),
    ShapeClass("marbled bolt", outlines.bolt, textures.marble, 55, 170),
    ShapeClass("zigzag tree", outlines.tree, textures.zigzag, 120, 40),
)

CLASS_NAMES: tuple[str, ...] = tuple(entry.name for entry in CLASSES)
