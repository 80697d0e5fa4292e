"""What a training image shows, pixel by pixel: read once, however many masks are asked for."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset
from fss_bench.errors import FssBenchError
from fss_bench.images import IGNORE
from fss_bench.index import IGNORE_ROW

Mask = NDArray[np.uint8]
Region = NDArray[np.bool_]


class TrainingImages:
    """The training images of a dataset and the classes in them.

    Args:
        dataset: where masks come from.
        fold: says which classes are novel.
    """

    def __init__(self, dataset: SegDataset, fold: int) -> None:
        self.dataset, self.fold = dataset, fold
        self.novel = dataset.novel_classes(fold)
        rows = (*dataset.class_names, 0, IGNORE_ROW)
        self.counts = dataset.index.class_pixels("train", rows)

    def truth(self, image: str) -> "Truth":
        """What one image shows.

        Raises:
            FssBenchError: it is no training image.
        """
        if image not in self.counts:
            raise FssBenchError(
                f"image {image} is no training image of {self.dataset.name}: it must not be "
                "trained on"
            )
        return Truth(self.dataset, image, self.counts[image], self.novel)


class Truth:
    """The labels of one image.

    Datasets that are one label map are decoded once. Those with masks of their own a class, which
    may overlap, are asked for each mask.

    Args:
        dataset: where masks come from.
        image: its id.
        counts: class id -> pixels, with 0 and `IGNORE_ROW`.
        novel: novel class ids.
    """

    def __init__(
        self, dataset: SegDataset, image: str, counts: Mapping[int, int], novel: tuple[int, ...]
    ) -> None:
        self.dataset, self.image, self.counts = dataset, image, counts
        self.novel_classes = novel
        self._is_label_map = type(dataset).load_mask is SegDataset.load_mask
        self._masks: dict[int, Mask] = {}

    def on(self, class_id: int) -> Region:
        """Where a class is, [H, W]."""
        if self._is_label_map:
            return np.asarray(self._labels == class_id)
        return np.asarray(self._mask(class_id) == 1)

    @cached_property
    def ignored(self) -> Region:
        """Where it is not known what there is, [H, W]."""
        if self._is_label_map:
            return np.asarray(
                self._labels == (IGNORE if self._labels.dtype == np.uint8 else IGNORE_ROW)
            )
        shown = [class_id for class_id in self.counts if class_id > 0]
        return np.asarray(self._mask(shown[0] if shown else self.novel_classes[0]) == IGNORE)

    @cached_property
    def novel(self) -> Region:
        """Where any novel class is, [H, W]."""
        if self._is_label_map:
            return np.isin(self._labels, self.novel_classes)
        found = np.zeros(self.dataset.index.sizes[self.image], dtype=bool)
        for class_id in self.novel_classes:
            if class_id in self.counts:
                found |= self.on(class_id)
        return found

    @property
    def has_overlaps(self) -> bool:
        """Whether a pixel belongs to several classes."""
        height, width = self.dataset.index.sizes[self.image]
        return sum(self.counts.values()) != height * width

    @cached_property
    def _labels(self) -> NDArray[np.integer[Any]]:
        return self.dataset.load_labels(self.image)

    def _mask(self, class_id: int) -> Mask:
        if class_id not in self._masks:
            self._masks[class_id] = self.dataset.load_mask(self.image, class_id)
        return self._masks[class_id]
