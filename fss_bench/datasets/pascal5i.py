"""PASCAL-5i: PASCAL VOC 2012 in four folds of five classes, with or without SBD.

Shaban et al., One-Shot Learning for Semantic Segmentation, BMVC 2017 (the folds); Everingham et
al., IJCV 2010 (VOC); Hariharan et al., ICCV 2011 (SBD).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset, Split, datasets, even_folds
from fss_bench.errors import DatasetError
from fss_bench.image_lists import Listing, listing_of, read_listing
from fss_bench.images import read_image, read_label_map

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
OFFICIAL_FINGERPRINT = "4cfa39ba83a26c7fd188d905c7d56664dfc9268dbaf1b0dbb48382b78caf89fe"
"""Index fingerprint of VOC 2012 with all of SBD: 10,582 training and 1,449 test images."""


@datasets.register("pascal5i")
class Pascal5i(SegDataset):
    """A VOC 2012 tree: `JPEGImages`, `SegmentationClass[Aug]`, `ImageSets/Segmentation`.

    Test images are VOC 2012 val. Training images are all others in `SegmentationClassAug` (VOC
    train and SBD) where that folder is present, else VOC 2012 train. Label 255 is ignore.

    Args:
        root: the folder that holds `JPEGImages`; `VOCdevkit/VOC2012` inside it is found as well.

    Raises:
        DatasetError: a folder or list is missing; says what was looked for.
    """

    name = "pascal5i"
    class_names = dict(enumerate(CLASSES, start=1))
    folds = even_folds(range(1, 21), 4)

    def __init__(self, root: Path) -> None:
        self.root = _find_root(root)
        self.masks = self.root / "SegmentationClassAug"
        self.has_sbd = self.masks.is_dir()
        if not self.has_sbd:
            self.masks = self.root / "SegmentationClass"

    def list_images(self, split: Split) -> Sequence[str]:
        return self.listing(split).checked()

    def listing(self, split: Split) -> Listing:
        test = self._read_list("val")
        if split == "test":
            return test
        if not self.has_sbd:
            return self._read_list("train")
        there = listing_of(sorted(file.stem for file in self.masks.glob("*.png")), self.masks)
        held_out = set(test.images)
        train = tuple(image for image in there.images if image not in held_out)
        return Listing(train, (*test.findings, *there.findings))

    def files_of(self, image: str) -> Sequence[Path]:
        return self.root / "JPEGImages" / f"{image}.jpg", self.masks / f"{image}.png"

    def load_image(self, image: str) -> NDArray[np.uint8]:
        return read_image(self.files_of(image)[0])

    def load_labels(self, image: str) -> NDArray[np.uint8]:
        return read_label_map(self.files_of(image)[1])

    def source_files(self) -> Sequence[Path]:
        lists = sorted((self.root / "ImageSets" / "Segmentation").glob("*.txt"))
        return [*lists, self.root / "JPEGImages", *sorted(self.masks.glob("*.png"))]

    @property
    def is_official(self) -> bool:
        return self.index.fingerprint == OFFICIAL_FINGERPRINT

    def _read_list(self, name: str) -> Listing:
        file = self.root / "ImageSets" / "Segmentation" / f"{name}.txt"
        return read_listing(file, f"the {name} images of VOC 2012")


def _find_root(root: Path) -> Path:
    tried = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
    for folder in tried:
        masks = [folder / "SegmentationClass", folder / "SegmentationClassAug"]
        lists = folder / "ImageSets" / "Segmentation"
        if (folder / "JPEGImages").is_dir() and lists.is_dir() and any(m.is_dir() for m in masks):
            return folder
    found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise DatasetError(
        f"{root} is not a VOC 2012 tree: looked for JPEGImages, ImageSets/Segmentation and "
        f"SegmentationClass or SegmentationClassAug (also in VOC2012 and VOCdevkit/VOC2012), found "
        f"{found}"
    )
