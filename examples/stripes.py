"""stripes: a square piece of striped cloth on noise; the class is the width of its stripes."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset, Split, datasets, even_folds

WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24)
IMAGES = {"train": 12, "test": 6}


@datasets.register("stripes")
class Stripes(SegDataset):
    name = "stripes"
    needs_root = False

    def __init__(self) -> None:
        self.class_names = {c: f"{px} px wide" for c, px in enumerate(WIDTHS, start=1)}
        self.folds = even_folds(list(self.class_names), 4)

    def list_images(self, split: Split) -> Sequence[str]:
        return [f"{split}/{c}/{i}" for c in self.class_names for i in range(IMAGES[split])]

    def files_of(self, image: str) -> Sequence[Path]:
        return []  # they are drawn

    def source_files(self) -> Sequence[Path]:
        return [Path(__file__)]

    def load_image(self, image: str) -> NDArray[np.uint8]:
        pixels = _generator(image).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        labels = self.load_labels(image)
        px = WIDTHS[labels.max() - 1]
        bright = (np.arange(128) // px % 2 == 1)[None, :] & (labels > 0)
        pixels[labels > 0] //= 4
        pixels[bright] += 190
        return pixels

    def load_labels(self, image: str) -> NDArray[np.uint8]:
        labels = np.zeros((128, 128), np.uint8)
        top, left = _generator(image).integers(0, 64, 2)
        labels[top : top + 64, left : left + 64] = int(image.split("/")[1])
        return labels


def _generator(image: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(image.encode()))
