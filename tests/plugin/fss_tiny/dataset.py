"""tiny_squares: a square of one of eight colours on grey noise, drawn by code."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset, Split, even_folds

SIDE, SQUARE, PER_CLASS = 96, 56, 4


class TinySquares(SegDataset):
    name = "tiny_squares"
    needs_root = False

    def __init__(self) -> None:
        self.class_names = {c: f"colour{c}" for c in range(1, 9)}
        self.folds = even_folds(list(self.class_names), 2)

    def list_images(self, split: Split) -> Sequence[str]:
        first = 0 if split == "train" else PER_CLASS
        return [f"{c}/{first + i}" for c in self.class_names for i in range(PER_CLASS)]

    def files_of(self, image: str) -> Sequence[Path]:
        return ()

    def source_files(self) -> Sequence[Path]:
        return [Path(__file__)]

    def load_image(self, image: str) -> NDArray[np.uint8]:
        labels = self.load_labels(image)
        pixels = np.random.default_rng(len(image)).integers(90, 150, (SIDE, SIDE, 3))
        class_id = int(image.split("/")[0]) - 1
        pixels[labels > 0] += [90 * (class_id >> bit & 1) for bit in range(3)]
        return pixels.astype(np.uint8)

    def load_labels(self, image: str) -> NDArray[np.uint8]:
        class_id, number = map(int, image.split("/"))
        labels = np.zeros((SIDE, SIDE), np.uint8)
        top, left = 5 * number % 40, 11 * number % 40
        labels[top : top + SQUARE, left : left + SQUARE] = class_id
        return labels
