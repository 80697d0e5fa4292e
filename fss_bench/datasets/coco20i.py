"""COCO-20i: COCO 2014 or 2017 in four folds of twenty classes, interleaved or contiguous.

Nguyen & Todorovic, ICCV 2019 (interleaved folds); Wang et al. (PANet), ICCV 2019 (contiguous); Lin
et al., ECCV 2014 (COCO).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.coco_masks import (
    CocoReader,
    Crowd,
    Overlap,
    check_choice,
    indexed_labels,
    indexed_mask,
)
from fss_bench.dataset import SegDataset, Split, datasets, even_folds
from fss_bench.errors import DatasetError
from fss_bench.image_checks import MaskCheck
from fss_bench.image_lists import Finding, Listing
from fss_bench.images import read_image
from fss_bench.index import ImageCounts

CLASSES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")
COMPLETE = {
    "2014": {
        "train": {"images": 82783, "annotations": 604907},
        "test": {"images": 40504, "annotations": 291875},
    },
    "2017": {
        "train": {"images": 118287, "annotations": 860001},
        "test": {"images": 5000, "annotations": 36781},
    },
}
PREFIX = {"train": "train", "test": "val"}


@datasets.register("coco20i")
class Coco20i(SegDataset):
    """A COCO tree: `annotations/instances_*.json` with `train2014/`, `val2014/` (or 2017).

    The image folders may also stand in `images/`. Training images are the train set, test images
    the val set. Class ids are 1 … 80 in the order of the annotation file; image ids are 12 digits.
    The plain name is for COCO 2014, which published COCO-20i numbers use.

    Args:
        root: the folder that holds `annotations`.
        year: `"2014"` or `"2017"`; by default the one that is there.
        fold_scheme: `interleaved` (fold i is i+1, i+5, …) or `contiguous` (20i+1 … 20i+20).
        overlap: pixels of several instances belong to the `later` in the file, to the `smaller`,
            or to `both` classes.
        crowd: crowd regions outside all instances are `ignore`d, `include`d or `background`.

    Raises:
        DatasetError: a folder or file is missing; says what was looked for.
    """

    name = "coco20i"
    class_names = dict(enumerate(CLASSES, start=1))
    folds: Sequence[Sequence[int]] = [list(range(fold, 81, 4)) for fold in range(1, 5)]

    def __init__(
        self,
        root: Path,
        year: str | None = None,
        fold_scheme: str = "interleaved",
        overlap: Overlap = "later",
        crowd: Crowd = "ignore",
    ) -> None:
        check_choice("fold_scheme", fold_scheme, ("interleaved", "contiguous"))
        self.root, self.year = root, _find_year(root, year)
        self.fold_scheme, self.overlap, self.crowd = fold_scheme, overlap, crowd
        if fold_scheme == "contiguous":
            self.folds = even_folds(range(1, 81), 4)
        self.index_tag = f"{self.year}/{overlap}/{crowd}"
        self._readers = {
            split: CocoReader(
                root / "annotations" / f"instances_{prefix}{self.year}.json",
                _image_folder(root, f"{prefix}{self.year}"),
                overlap,
                crowd,
                lambda info: f"{info['id']:012d}",
            )
            for split, prefix in PREFIX.items()
        }

    def list_images(self, split: Split) -> Sequence[str]:
        return self.listing(split).checked()

    def listing(self, split: Split) -> Listing:
        reader = self._readers[split]
        try:
            if reader.annotations.class_names == self.class_names:
                return reader.listing()
        except DatasetError as error:
            return Listing((), (Finding(str(error)),))
        told = (
            f"{reader.file} does not list COCO's 80 categories in their order: use --dataset "
            "folder for a COCO-format file of your own"
        )
        return Listing((), (Finding(told),))

    def check_mask(self, image: str) -> MaskCheck:
        return self._reader_of(image).check(image)

    def files_of(self, image: str) -> Sequence[Path]:
        names = {"2014": "COCO_{prefix}2014_{image}.jpg", "2017": "{image}.jpg"}[self.year]
        train, test = (
            self._readers[split].folder / names.format(prefix=prefix, image=image)
            for split, prefix in PREFIX.items()
        )
        if train.is_file() or test.is_file():
            return [train if train.is_file() else test]
        return [train if image in self._readers["train"] else test]

    def load_image(self, image: str) -> NDArray[np.uint8]:
        return read_image(self.files_of(image)[0])

    def load_labels(self, image: str) -> NDArray[np.int16]:
        return indexed_labels(self.index, image, self.class_names)

    def load_mask(self, image: str, class_id: int) -> NDArray[np.uint8]:
        return indexed_mask(self.index, image, class_id)

    def count_pixels(self, image: str) -> ImageCounts:
        return self._reader_of(image).counts(image)

    def _reader_of(self, image: str) -> CocoReader:
        return next(reader for reader in self._readers.values() if image in reader)

    def source_files(self) -> Sequence[Path]:
        return [path for r in self._readers.values() for path in (r.file, r.folder)]

    def facts(self) -> dict[str, Any]:
        return {split: reader.facts() for split, reader in self._readers.items()}

    @classmethod
    def rule_options(cls, root: Path | None) -> Mapping[str, str]:
        return {"fold_scheme": "fold_scheme", "coco_overlap": "overlap", "coco_crowd": "crowd"}

    @property
    def rules(self) -> dict[str, Any]:
        """Fold, overlap and crowd rules. A part of COCO always lacks images of rare classes."""
        rules = {
            "fold_scheme": self.fold_scheme,
            "coco_overlap": self.overlap,
            "coco_crowd": self.crowd,
        }
        return rules if self._is_complete else {**rules, "short_classes": "skip"}

    @property
    def is_official(self) -> bool:
        return self.year == "2014" and self._is_complete

    @property
    def _is_complete(self) -> bool:
        return self.index.facts == COMPLETE[self.year]


def _find_year(root: Path, year: str | None) -> str:
    tried = [year] if year else list(COMPLETE)
    for candidate in tried:
        names = [f"{prefix}{candidate}" for prefix in PREFIX.values()]
        files = [root / "annotations" / f"instances_{name}.json" for name in names]
        if all(f.is_file() for f in files) and all(_image_folder(root, n).is_dir() for n in names):
            return str(candidate)
    found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise DatasetError(
        f"{root} is not a COCO tree: looked for annotations/instances_train{{Y}}.json and "
        f"instances_val{{Y}}.json with train{{Y}} and val{{Y}} (also in images/), Y in "
        f"{', '.join(map(str, tried))}; found {found}"
    )


def _image_folder(root: Path, name: str) -> Path:
    return root / name if (root / name).is_dir() else root / "images" / name
