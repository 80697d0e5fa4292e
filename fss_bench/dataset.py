"""The dataset contract: images, one mask a class, folds, and an index of what is where.

Nothing here needs torch. A dataset names its images; ids are strings that stay the same on every
machine. Masks are asked for by class, so class ids may exceed 255 and 255 always means ignore.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fss_bench.errors import DatasetError, FssBenchError, shorten
from fss_bench.image_checks import MaskCheck, check_size, picture_remarks
from fss_bench.image_lists import Finding, Listing
from fss_bench.index import (
    IGNORE_ROW,
    ImageCounts,
    Index,
    IndexSource,
    cached_index,
    label_counts,
    mask_digest,
)
from fss_bench.options import construct
from fss_bench.registry import datasets

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")

__all__ = [
    "SPLITS",
    "SegDataset",
    "Split",
    "check_size",
    "checked_image",
    "create_dataset",
    "datasets",
    "even_folds",
]


class SegDataset(ABC):
    """A segmentation dataset divided into folds of novel classes.

    Attributes:
        name: registered name.
        class_names: class id (from 1) -> name.
        folds: novel class ids of each fold.
        index_tag: everything besides the files that decides the index (options that change masks).
    """

    name: ClassVar[str]
    needs_root: ClassVar[bool] = True
    class_names: Mapping[int, str]
    folds: Sequence[Sequence[int]]
    index_tag: str = ""

    @abstractmethod
    def list_images(self, split: Split) -> Sequence[str]:
        """Ids of a split's images, in a fixed order, read from the source."""

    @abstractmethod
    def files_of(self, image: str) -> Sequence[Path]:
        """Files that an image needs."""

    @abstractmethod
    def load_image(self, image: str) -> NDArray[np.uint8]:
        """RGB pixels [H, W, 3]."""

    @abstractmethod
    def load_labels(self, image: str) -> NDArray[np.integer[Any]]:
        """Label map [H, W]: class ids, 0 background; 255 in an 8-bit map, else -1, for ignore."""

    @abstractmethod
    def source_files(self) -> Sequence[Path]:
        """Files whose change makes the index stale."""

    def load_mask(self, image: str, class_id: int) -> NDArray[np.uint8]:
        """Mask of one class [H, W]: 1 on it, 0 off it, 255 ignore."""
        labels = self.load_labels(image)
        mask: NDArray[np.uint8] = (labels == class_id).astype(np.uint8)
        mask[labels == (255 if labels.dtype == np.uint8 else IGNORE_ROW)] = 255
        return mask

    def count_pixels(self, image: str) -> ImageCounts:
        """What the index keeps of one image.

        Raises:
            DatasetError: the mask cannot be read, or holds an id that is no class.
        """
        labels = self.load_labels(image)
        pixels = label_counts(labels)
        wrong = [c for c in pixels if c not in self.class_names and c not in (0, IGNORE_ROW)]
        if wrong:
            raise DatasetError(
                f"mask of image {image} holds class id {shorten(wrong)}, {self.name} has "
                f"1 to {max(self.class_names)} (0 background, 255 ignore): mend the mask or the "
                "class list"
            )
        return ImageCounts(labels.shape[0], labels.shape[1], pixels, mask_digest(labels.tobytes()))

    def facts(self) -> dict[str, Any]:
        """Numbers about the source to keep with the index; read when it is built."""
        return {}

    @classmethod
    def rule_options(cls, root: Path | None) -> Mapping[str, str]:
        """Protocol rule -> the option with which a dataset in a folder is opened by it."""
        return {}

    @property
    def rules(self) -> dict[str, Any]:
        """Protocol rules that this dataset changes; they show in the protocol's label."""
        return {}

    @property
    def is_official(self) -> bool:
        """Whether this is the full official tree, which alone carries the plain name."""
        return False

    @cached_property
    def index(self) -> Index:
        """How many pixels of which class every image holds; built once and cached on disk."""
        return self.build_index()

    def build_index(self, rebuild: bool = False) -> Index:
        """The index from the cache, or built anew; `index` is this one from now on."""
        source = IndexSource(
            key=f"{self.name}/{self.index_tag}",
            files=self.source_files(),
            images=self._checked_images,
            count=self.count_pixels,
            facts=self.facts,
        )
        self.__dict__["index"] = found = cached_index(source, rebuild)
        return found

    def images(self, split: Split) -> list[str]:
        """Ids of a split's images."""
        return self.index.images(split)

    def _checked_images(self) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        for split in SPLITS:
            images = list(dict.fromkeys(self.list_images(split)))
            self._check_files(split, images)
            pairs += [(split, image) for image in images]
        return pairs

    def _check_files(self, split: str, images: Sequence[str]) -> None:
        files = {image: self.files_of(image) for image in images}
        folders = {file.parent for needed in files.values() for file in needed}
        present = {str(f) for folder in folders if folder.is_dir() for f in folder.iterdir()}
        missing = [f for needed in files.values() for f in needed if str(f) not in present]
        if missing:
            raise DatasetError(
                f"{len(missing)} files of the {len(images)} {split} images of {self.name} are "
                f"missing ({shorten(missing, 1)}): fetch them, or take the images out of the list; "
                "fss-bench data verify names them all"
            )

    @property
    def identity(self) -> str:
        """The plain name for the full official tree, else `name@<test images>-<fingerprint>`."""
        if self.is_official:
            return self.name
        return f"{self.name}@{len(self.images('test'))}-{self.index.fingerprint[:6]}"

    def novel_classes(self, fold: int) -> tuple[int, ...]:
        """Class ids held out for the test of a fold.

        Raises:
            FssBenchError: no such fold.
        """
        if not 0 <= fold < len(self.folds):
            raise FssBenchError(
                f"fold {fold} is out of range: {self.name} has folds 0 to {len(self.folds) - 1}"
            )
        return tuple(self.folds[fold])

    def base_classes(self, fold: int) -> tuple[int, ...]:
        """Class ids that may be trained on in a fold: all that are not novel."""
        return tuple(sorted(set(self.class_names) - set(self.novel_classes(fold))))

    def listing(self, split: Split) -> Listing:
        """The images of `list_images` that can be used, and all that is wrong with their list."""
        try:
            return Listing(tuple(self.list_images(split)))
        except DatasetError as error:
            return Listing((), (Finding(str(error)),))

    def check_mask(self, image: str) -> MaskCheck:
        """What is wrong with an image's mask: unreadable, ids that are none, nothing shown."""
        try:
            found = self.count_pixels(image)
        except DatasetError as error:
            return MaskCheck(None, (Finding(str(error)),))
        size = found.height, found.width
        if any(class_id > 0 for class_id in found.pixels):
            return MaskCheck(size)
        held = "nothing but 255 (ignore)" if not found.pixels.get(0) else "no class"
        text = f"mask of image {image} shows {held}: the image is in no episode"
        return MaskCheck(size, (Finding(text, grave=False),))

    def problems(self, image: str) -> Iterator[Finding]:
        """All that is wrong with one image, its mask and their sizes, or is worth telling."""
        pixels = None
        try:
            pixels = self.load_image(image)
        except DatasetError as error:
            yield Finding(str(error))
        checked = self.check_mask(image)
        yield from checked.findings
        if pixels is not None and checked.size is not None:
            try:
                check_size(image, checked.size, pixels.shape)
            except DatasetError as error:
                yield Finding(str(error))
        yield from picture_remarks(self.files_of(image), getattr(self, "root", None))


def checked_image(dataset: SegDataset, image: str) -> NDArray[np.uint8]:
    """Pixels [H, W, 3] of an image whose mask, by the index, has its size.

    Raises:
        DatasetError: unreadable, or its mask has another size.
    """
    pixels = dataset.load_image(image)
    check_size(image, dataset.index.sizes[image], pixels.shape)
    return pixels


def even_folds(class_ids: Sequence[int], folds: int) -> list[list[int]]:
    """Split classes into contiguous folds whose sizes differ by one at most."""
    size, rest = divmod(len(class_ids), folds)
    starts = [i * size + min(i, rest) for i in range(folds + 1)]
    return [list(class_ids[a:b]) for a, b in pairwise(starts)]


def create_dataset(name: str, root: Path | str | None = None, **options: Any) -> SegDataset:
    """A registered dataset.

    Args:
        name: such as `"pascal5i"`.
        root: its folder; not needed for `"shapes"`.
        **options: the dataset's keyword arguments, such as `fold_scheme="contiguous"`.

    Raises:
        UnknownNameError: no dataset of that name, or an option that it does not have.
        DatasetError: the folder is missing or laid out otherwise; says what was looked for.
    """
    cls = datasets.get_derived(name, SegDataset)
    fixed: dict[str, Any] = {}
    if cls.needs_root:
        if root is None:
            raise DatasetError(f"dataset {name!r} needs its folder: pass --data-root DIR")
        fixed["root"] = Path(root)
        if not fixed["root"].is_dir():
            raise DatasetError(f"data root {root} is not a folder: check --data-root")
    dataset: SegDataset = construct(cls, f"dataset {name!r}", fixed, options)
    return dataset
