"""shapes: the embedded dataset, made on demand: 20 textured shape classes on clutter."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset, Split, datasets, even_folds
from fss_bench.shapes import CLASS_NAMES, render

SIZES = {"train": 400, "test": 200}
FINGERPRINT = "9aebf903aa271912e6c0a685287cfd31c78a7d85fc5fcf5df34f6843f485f125"
"""Index fingerprint of the dataset whose scores are published; another drawing is another one."""


@datasets.register("shapes")
class Shapes(SegDataset):
    """256 x 256 images made by code, the same bytes on every machine; needs no files.

    A method must match appearance and shape: colours are shared between classes and with the
    backgrounds, and every image holds distractors of other classes.
    """

    name = "shapes"
    needs_root = False
    class_names = dict(enumerate(CLASS_NAMES, start=1))
    folds = even_folds(range(1, 21), 4)
    index_tag = "v1"

    def list_images(self, split: Split) -> Sequence[str]:
        return [f"{split}/{i}" for i in range(SIZES[split])]

    def files_of(self, image: str) -> Sequence[Path]:
        return ()

    def load_image(self, image: str) -> NDArray[np.uint8]:
        return _drawn(image)[0]

    def load_labels(self, image: str) -> NDArray[np.uint8]:
        return _drawn(image)[1]

    def source_files(self) -> Sequence[Path]:
        return sorted(Path(render.__code__.co_filename).parent.glob("*.py"))

    @property
    def is_official(self) -> bool:
        return self.index.fingerprint == FINGERPRINT


@lru_cache(maxsize=512)
def _drawn(key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A drawn image and its label map, read-only; kept because an episode needs both."""
    image, labels = render(key)
    image.flags.writeable = False
    labels.flags.writeable = False
    return image, labels
