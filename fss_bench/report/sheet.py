"""A picture of episodes: supports with their annotations, the query with its ground truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fss_bench.annotations import SPARSE, resize_labelled, support_annotation
from fss_bench.dataset import SegDataset, checked_image
from fss_bench.episodes import EpisodeSpec
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol

COLOURS = ((255, 64, 96), (64, 160, 255), (255, 190, 0), (70, 200, 120), (190, 110, 255))
BACKGROUND = (20, 20, 20)
UNLABELLED = 0.45
"""How much white dims what a weak annotation leaves unlabelled."""
GAP, HEADER = 6, 18
Classes = Sequence[tuple[NDArray[np.uint8], int]]
"""Masks with their way numbers from 0."""


def episode_sheet(
    dataset: SegDataset,
    specs: Sequence[EpisodeSpec],
    columns: int = 2,
    tile: int = 160,
    protocol: EvaluationProtocol = PROTOCOLS["standard"],
) -> Image.Image:
    """Draw episodes: each a row of its supports, then the query and the query with its truth.

    Ways have colours, ignored pixels are white. Scribbles and points have a white rim, those off
    the class are black, and what they leave unlabelled is dimmed.

    Args:
        dataset: where pixels come from.
        specs: episodes of equal ways and shots.
        columns: episodes beside one another.
        tile: side of a picture in the sheet, px.
        protocol: what is known of supports.
    """
    strips = [_strip(dataset, spec, tile, protocol) for spec in specs]
    width, height = strips[0].size
    columns = min(columns, len(strips))
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * (width + 3 * GAP), rows * (height + GAP)), "white")
    for i, strip in enumerate(strips):
        sheet.paste(
            strip, ((i % columns) * (width + 3 * GAP) + GAP, (i // columns) * (height + GAP))
        )
    return sheet


def tinted(
    image: NDArray[np.uint8], classes: Classes, veil: float = 1.0, outline: int = 1
) -> NDArray[np.uint8]:
    """An image [H, W, 3] with regions tinted and outlined, each way in its colour.

    Args:
        image: not written to.
        classes: masks with 1 on the region, 255 ignore.
        veil: how much white covers 255.
        outline: its width, px.
    """
    pixels = image.astype(np.float32)
    for mask, way in classes:
        colour = np.array(COLOURS[way % len(COLOURS)], dtype=np.float32)
        pixels[mask == 1] = 0.45 * pixels[mask == 1] + 0.55 * colour
        pixels[_edge(mask == 1, outline)] = colour
        pixels[mask == 255] += veil * (255 - pixels[mask == 255])
    return pixels.astype(np.uint8)


def _strip(
    dataset: SegDataset, spec: EpisodeSpec, tile: int, protocol: EvaluationProtocol
) -> Image.Image:
    tiles = []
    for way, images in enumerate(spec.supports):
        for shot, image in enumerate(images):
            annotation = support_annotation(dataset, protocol, spec, way, shot)
            tiles.append(
                support_picture(checked_image(dataset, image), annotation, way, tile, protocol)
            )
    query = checked_image(dataset, spec.query)
    truth = [(dataset.load_mask(spec.query, c), way) for way, c in enumerate(spec.classes)]
    tiles += [overlay(query, [], tile), overlay(query, truth, tile)]
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


def support_picture(
    image: NDArray[np.uint8],
    annotation: NDArray[np.uint8],
    way: int,
    tile: int,
    protocol: EvaluationProtocol,
) -> Image.Image:
    """A support with what is known of it."""
    if protocol.annotation in SPARSE:
        return _marks(image, annotation, way, tile)
    veil = 1.0 if protocol.annotation == "mask" else UNLABELLED
    return overlay(image, [(annotation, way)], tile, veil)


def overlay(
    image: NDArray[np.uint8], classes: Classes, tile: int, veil: float = 1.0
) -> Image.Image:
    """A picture of an image with regions tinted, as `tinted` has them."""
    return _fit(Image.fromarray(tinted(image, classes, veil)), tile)


def _marks(
    image: NDArray[np.uint8], annotation: NDArray[np.uint8], way: int, tile: int
) -> Image.Image:
    """A dimmed image with a thin annotation, drawn at the size of the sheet so that it shows."""
    picture = Image.fromarray(image)
    picture.thumbnail((tile, tile))
    pixels = np.asarray(picture, dtype=np.float32)
    pixels = pixels + UNLABELLED * (255 - pixels)
    small = resize_labelled(annotation, (picture.height, picture.width))
    for label, colour in ((0, BACKGROUND), (1, COLOURS[way % len(COLOURS)])):
        mark = ndimage.binary_dilation(small == label, np.ones((3, 3)))
        pixels[ndimage.binary_dilation(mark)] = 255
        pixels[mark] = colour
    return _fit(Image.fromarray(pixels.astype(np.uint8)), tile)


def _edge(mask: NDArray[np.bool_], width: int = 1) -> NDArray[np.bool_]:
    inside = mask
    for _ in range(width):
        whole, inside = inside, inside.copy()
        for axis in (0, 1):
            for shift in (-1, 1):
                inside &= np.roll(whole, shift, axis)
    return mask & ~inside


def _fit(picture: Image.Image, tile: int) -> Image.Image:
    """Scale to fit a square, aspect ratio kept, on light grey."""
    picture.thumbnail((tile, tile))
    square = Image.new("RGB", (tile, tile), (235, 235, 235))
    square.paste(picture, ((tile - picture.width) // 2, (tile - picture.height) // 2))
    return square
