"""Your own data: images with label PNGs and a class list, or with a COCO-format file.

See docs/your-own-data.md for a worked example.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.coco_masks import CocoReader, Crowd, Overlap, indexed_labels, indexed_mask
from fss_bench.dataset import SegDataset, Split, datasets, even_folds
from fss_bench.errors import DatasetError, one_line, shorten
from fss_bench.image_checks import MaskCheck
from fss_bench.image_lists import Finding, Listing, listing_of, read_lines, read_listing
from fss_bench.images import SUFFIXES, read_image, read_label_map
from fss_bench.index import ImageCounts


@datasets.register("folder")
class Folder(SegDataset):
    """`images/` with either `masks/` and `classes.txt`, or a COCO-format `annotations.json`.

    Label PNGs hold 0 for background, i for line i of `classes.txt`, and 255 for ignore; a mask has
    its image's name. Folds come from `folds.toml` (`folds = [["cat", "dog"], ["car"]]`) or from
    splitting the classes evenly. `train.txt` and `test.txt`, an image name a line, divide the
    images; without them every image serves both.

    Args:
        root: the folder.
        folds: number of even folds where there is no `folds.toml`; by default 4, or fewer so that
            each has 2 classes.
        overlap, crowd: rules for a COCO-format file, as for `coco20i`.

    Raises:
        DatasetError: a part is missing or wrong; says what was looked for.
    """

    name = "folder"

    def __init__(
        self,
        root: Path,
        folds: int | None = None,
        overlap: Overlap = "later",
        crowd: Crowd = "ignore",
    ) -> None:
        self.root = root
        self._coco = _coco_reader(root, overlap, crowd)
        self.class_names = self._coco.annotations.class_names if self._coco else _read_classes(root)
        self.folds = _read_folds(root, self.class_names, folds)
        self.overlap, self.crowd = overlap, crowd
        if self._coco:
            self.index_tag = f"coco/{overlap}/{crowd}"
        elif (overlap, crowd) != ("later", "ignore"):
            raise DatasetError(f"{root} holds label PNGs: overlap and crowd are for COCO's format")

    def list_images(self, split: Split) -> Sequence[str]:
        return self.listing(split).checked()

    def listing(self, split: Split) -> Listing:
        known = self._coco.listing() if self._coco else self._pictures
        chosen = self.root / f"{split}.txt"
        if not chosen.is_file():
            return known
        listed, there = read_listing(chosen, "image names"), set(known.images)
        found = tuple(image for image in listed.images if image in there)
        findings = (*known.findings, *listed.findings)
        if unknown := sorted(set(listed.images) - there):
            told = (
                f"{chosen} names {len(unknown)} images that are not in {self.root / 'images'} "
                f"({shorten(unknown)}): mend the list"
            )
            findings = (*findings, Finding(told))
        return Listing(found, findings)

    def check_mask(self, image: str) -> MaskCheck:
        return self._coco.check(image) if self._coco else super().check_mask(image)

    def files_of(self, image: str) -> Sequence[Path]:
        if self._coco:
            return [self.root / "images" / image]
        return self._files.get(image, self.root / "images" / image), self._mask_file(image)

    def load_image(self, image: str) -> NDArray[np.uint8]:
        return read_image(self.files_of(image)[0])

    def load_labels(self, image: str) -> NDArray[np.integer[Any]]:
        if self._coco:
            return indexed_labels(self.index, image, self.class_names)
        return read_label_map(self._mask_file(image))

    def load_mask(self, image: str, class_id: int) -> NDArray[np.uint8]:
        if self._coco:
            return indexed_mask(self.index, image, class_id)
        return super().load_mask(image, class_id)

    def count_pixels(self, image: str) -> ImageCounts:
        return self._coco.counts(image) if self._coco else super().count_pixels(image)

    def source_files(self) -> Sequence[Path]:
        lists = [f for f in map(self.root.joinpath, ("train.txt", "test.txt")) if f.is_file()]
        if self._coco:
            return [*lists, self._coco.file, self._coco.folder]
        masks = sorted((self.root / "masks").glob("*.png"))
        return [*lists, self.root / "classes.txt", self.root / "images", *masks]

    @classmethod
    def rule_options(cls, root: Path | None) -> Mapping[str, str]:
        is_coco = root is not None and (root / "annotations.json").is_file()
        return {"coco_overlap": "overlap", "coco_crowd": "crowd"} if is_coco else {}

    @property
    def rules(self) -> dict[str, Any]:
        """The rules of a COCO-format file."""
        return {"coco_overlap": self.overlap, "coco_crowd": self.crowd} if self._coco else {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {file.stem: file for file in reversed(self._found)}

    @cached_property
    def _found(self) -> list[Path]:
        """Pictures, sorted; of those that share a stem, the first is taken."""
        found = sorted((self.root / "images").iterdir())
        return [file for file in found if file.suffix.lower() in SUFFIXES]

    @cached_property
    def _pictures(self) -> Listing:
        found = listing_of(sorted(self._files), self.root / "images")
        shared = [
            Finding(f"{self._files[f.stem]} and {f.name} would share one mask: rename one")
            for f in self._found
            if f != self._files[f.stem]
        ]
        return Listing(found.images, (*found.findings, *shared))

    def _mask_file(self, image: str) -> Path:
        return self.root / "masks" / f"{image}.png"


def _coco_reader(root: Path, overlap: Overlap, crowd: Crowd) -> CocoReader | None:
    if not (root / "images").is_dir():
        raise DatasetError(f"{root} has no images folder: looked for {root / 'images'}")
    file = root / "annotations.json"
    if (root / "masks").is_dir() == file.is_file():
        raise DatasetError(
            f"{root} must have either masks/ with label PNGs and classes.txt, or annotations.json "
            f"in COCO's format; it has {'both' if file.is_file() else 'neither'}"
        )
    if not file.is_file():
        return None
    return CocoReader(file, root / "images", overlap, crowd, lambda info: str(info["file_name"]))


def _read_classes(root: Path) -> dict[int, str]:
    file = root / "classes.txt"
    names = read_lines(file, "the class names")
    if not 1 <= len(names) <= 254 or len(set(names)) != len(names):
        raise DatasetError(f"{file} has {len(names)} names: it needs 1 to 254 different ones")
    return dict(enumerate(names, start=1))


def _read_folds(root: Path, names: Mapping[int, str], folds: int | None) -> list[list[int]]:
    file = root / "folds.toml"
    if not file.is_file():
        count = max(1, min(4, len(names) // 2)) if folds is None else folds
        if not isinstance(count, int) or not 1 <= count <= len(names):
            raise DatasetError(
                f"dataset option folds={count!r}: it must be a whole number, 1 to {len(names)} "
                "(the number of classes)"
            )
        return even_folds(list(names), count)
    ids = {name: class_id for class_id, name in names.items()}
    try:
        listed: list[list[str]] = tomllib.loads(file.read_text(encoding="utf-8"))["folds"]
        found = [sorted({ids[name] for name in fold}) for fold in listed]
        if not found or not all(found):
            raise ValueError("a fold without classes, or no folds")
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f'{file} is wrong ({one_line(error)}): write folds = [["a class", …], …] '
            "with names of the class list"
        ) from error
