"""FSS-1000: a thousand classes of ten images each; the test classes are novel.

Li et al., CVPR 2020, https://arxiv.org/abs/1907.12347.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset, Split, datasets
from fss_bench.errors import DatasetError, shorten
from fss_bench.image_lists import Finding, Listing, listing_of, read_listing
from fss_bench.images import read_binary_mask, read_image

OFFICIAL_SPLIT_SHA256 = "f8c71724a5f4c1844a243c2543b7a12dc1a017cda91ab9a8ecf265bcf474480b"
"""Sha256 over the sorted names of the official 520 training and 240 test classes."""
OFFICIAL_IMAGES = {"train": 5200, "test": 2400}


@datasets.register("fss1000")
class Fss1000(SegDataset):
    """`<class>/<i>.jpg` with a mask `<class>/<i>.png` beside each; brightness >= 128 is the object.

    One fold: the classes of `test.txt` are novel, those of `trn.txt` are base. All images count:
    the protocol's smallest object is 1 pixel here.

    Args:
        root: the folder of the classes.
        splits: folder with `trn.txt` and `test.txt`, a class name a line; by default
            `<root>/splits`.

    Raises:
        DatasetError: a list is missing, or names no class that has a folder.
    """

    name = "fss1000"

    def __init__(self, root: Path, splits: Path | str | None = None) -> None:
        self.root = root
        self.splits = Path(splits) if splits else root / "splits"
        train, test = self._read_list("trn.txt"), self._read_list("test.txt")
        self._lists = {"train": train, "test": _beside_base(test, train, self.splits)}
        self._by_split = {split: found.images for split, found in self._lists.items()}
        names = sorted({*train.images, *test.images})  # not of folders: some may be in no list
        if not names:
            raise DatasetError(
                (*train.findings, *test.findings, Finding(f"{self.splits} lists no class"))[0].text
            )
        self.class_names = dict(enumerate(names, start=1))
        self._ids = {name: class_id for class_id, name in self.class_names.items()}
        self.folds = [sorted(self._ids[name] for name in self._by_split["test"])]

    def list_images(self, split: Split) -> Sequence[str]:
        return self.listing(split).checked()

    def listing(self, split: Split) -> Listing:
        names: list[str] = []
        findings = list(self._lists[split].findings)
        for name in self._by_split[split]:
            stems = sorted({file.stem for file in self._files(name)}, key=_number)
            found = listing_of(stems, self.root / name)
            names += [f"{name}/{stem}" for stem in found.images]
            findings += found.findings
        return Listing(tuple(names), tuple(findings))

    def base_classes(self, fold: int) -> tuple[int, ...]:
        self.novel_classes(fold)  # raises if there is no such fold
        return tuple(sorted(self._ids[name] for name in self._by_split["train"]))

    def files_of(self, image: str) -> Sequence[Path]:
        return self.root / f"{image}.jpg", self.root / f"{image}.png"

    def load_image(self, image: str) -> NDArray[np.uint8]:
        return read_image(self.files_of(image)[0])

    def load_labels(self, image: str) -> NDArray[np.int16]:
        mask = read_binary_mask(self.files_of(image)[1])
        return np.where(mask, self._ids[image.split("/")[0]], 0).astype(np.int16)

    def source_files(self) -> Sequence[Path]:
        names = sorted({name for found in self._by_split.values() for name in found})
        lists = [self.splits / "trn.txt", self.splits / "test.txt"]
        return [*lists, *(file for name in names for file in self._files(name))]

    def _files(self, name: str) -> list[Path]:
        """Images and masks of a class; one without the other is a problem to report."""
        return sorted(f for f in (self.root / name).iterdir() if f.suffix in (".jpg", ".png"))

    def _read_list(self, name: str) -> Listing:
        """The classes of a list that have a folder with masks."""
        file = self.splits / name
        if not file.is_file():
            raise DatasetError(
                f"{file} is missing: put the official class lists (trn.txt, test.txt) there or "
                "pass --dataset-option splits=DIR"
            )
        listed = read_listing(file, "class names")
        absent = [name for name in listed.images if not any((self.root / name).glob("*.png"))]
        if not absent:
            return listed
        told = (
            f"{self.root} has no folder with masks for {len(absent)} listed classes "
            f"({shorten(sorted(absent))}): fetch them, or pass --dataset-option splits=DIR"
        )
        there = tuple(name for name in listed.images if name not in absent)
        return Listing(there, (*listed.findings, Finding(told)))

    @property
    def rules(self) -> dict[str, Any]:
        """Every image of FSS-1000 is used, however small its object."""
        return {"min_pixels": 1}

    @property
    def is_official(self) -> bool:
        lines = [f"{s} {name}" for s, found in self._by_split.items() for name in sorted(found)]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        counts = {split: len(self.index.images(split)) for split in self._by_split}
        return digest == OFFICIAL_SPLIT_SHA256 and counts == OFFICIAL_IMAGES


def _beside_base(test: Listing, train: Listing, splits: Path) -> Listing:
    if both := sorted({*test.images} & {*train.images}):
        told = f"trn.txt and test.txt of {splits} both list {shorten(both)}: take them out of one"
        return Listing(test.images, (*test.findings, Finding(told)))
    return test


def _number(stem: str) -> tuple[int, str]:
    return (int(stem), "") if stem.isdigit() else (1 << 30, stem)
