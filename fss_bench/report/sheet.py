"""A picture of episodes: supports with their masks, the query with its ground truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSpec

COLOURS = ((255, 64, 96), (64, 160, 255), (255, 190, 0), (70, 200, 120), (190, 110, 255))
GAP, HEADER = 6, 18


def episode_sheet(
    dataset: SegDataset, specs: Sequence[EpisodeSpec], columns: int = 2, tile: int = 160
) -> Image.Image:
    """Draw episodes: each a row of its supports, then the query and the query with its truth.

    Ways have colours, ignored pixels are white.

    Args:
        dataset: where pixels come from.
        specs: episodes of equal ways and shots.
        columns: episodes beside one another.
        tile: side of a picture in the sheet, px.
    """
    strips = [_strip(dataset, spec, tile) for spec in specs]
    width, height = strips[0].size
    columns = min(columns, len(strips))
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * (width + 3 * GAP), rows * (height + GAP)), "white")
    for i, strip in enumerate(strips):
        sheet.paste(
            strip, ((i % columns) * (width + 3 * GAP) + GAP, (i // columns) * (height + GAP))
        )
    return sheet


def _strip(dataset: SegDataset, spec: EpisodeSpec, tile: int) -> Image.Image:
    tiles = [
        _overlay(dataset, image, [(class_id, way)], tile)
        for way, (class_id, images) in enumerate(zip(spec.classes, spec.supports, strict=True))
        for image in images
    ]
    truth = [(class_id, way) for way, class_id in enumerate(spec.classes)]
    tiles += [_overlay(dataset, spec.query, [], tile), _overlay(dataset, spec.query, truth, tile)]
    strip = Image.new("RGB", (len(tiles) * (tile + GAP) + GAP, tile + HEADER), "white")
    for i, picture in enumerate(tiles):
        strip.paste(picture, (i * (tile + GAP) + (GAP if i >= len(tiles) - 2 else 0), HEADER))
    names = ", ".join(dataset.class_names[c] for c in spec.classes)
    shots = len(spec.supports[0])
    text = f"{spec.index}  {names}" + (f", {shots} supports" if shots > 1 else "")
    font = ImageFont.load_default(12)
    draw = ImageDraw.Draw(strip)
    draw.text((0, 2), text, fill="black", font=font)
    for i, caption in ((len(tiles) - 2, "query"), (len(tiles) - 1, "its truth")):
        draw.text((i * (tile + GAP) + GAP, 2), caption, fill="black", font=font)
    return strip


def _overlay(
    dataset: SegDataset, image: str, classes: Sequence[tuple[int, int]], tile: int
) -> Image.Image:
    pixels = dataset.load_image(image).astype(np.float32)
    for class_id, way in classes:
        mask = dataset.load_mask(image, class_id)
        colour = np.array(COLOURS[way % len(COLOURS)], dtype=np.float32)
        pixels[mask == 1] = 0.45 * pixels[mask == 1] + 0.55 * colour
        pixels[_edge(mask == 1)] = colour
        pixels[mask == 255] = 255
    return _fit(Image.fromarray(pixels.astype(np.uint8)), tile)


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside = mask.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inside &= np.roll(mask, shift, axis)
    return mask & ~inside


def _fit(picture: Image.Image, tile: int) -> Image.Image:
    """Scale to fit a square, aspect ratio kept, on light grey."""
    picture.thumbnail((tile, tile))
    square = Image.new("RGB", (tile, tile), (235, 235, 235))
    square.paste(picture, ((tile - picture.width) // 2, (tile - picture.height) // 2))
    return square
