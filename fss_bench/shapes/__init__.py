"""The embedded dataset `shapes`: images drawn on demand, byte for byte the same everywhere.

A scene is a cluttered background (value noise, textured regions, pebbles) under two to five
textured objects of two to four classes that may hide parts of each other. A class has an outline of
its own and a texture; its range of colours overlaps with all others, so colour alone tells little.

Published scores rest on these bytes, so each must come out the same on every machine. Hence two
rules for every module here. Random numbers come from SHAKE-256 alone (`draws`). Floats are float64
and meet only + - * / sqrt, abs, floor, min, max and comparisons: IEEE 754 rounds each of these
exactly, whatever the CPU, unlike sin, exp or a reduction.
"""

from fss_bench.shapes.classes import CLASS_NAMES
from fss_bench.shapes.layout import IMAGE_SIZE
from fss_bench.shapes.renderer import render

__all__ = ["CLASS_NAMES", "IMAGE_SIZE", "render"]
