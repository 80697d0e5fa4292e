"""Semantic masks from COCO-format annotations, through pycocotools.

Instances are painted in one of three ways where they overlap, and crowd regions are treated in one
of three ways; both rules are protocol rules (`coco_overlap`, `coco_crowd`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_tools

from fss_bench.coco_files import CocoAnnotations, read_annotations
from fss_bench.coco_regions import overhang, run_lengths
from fss_bench.errors import DatasetError, one_line
from fss_bench.image_checks import MaskCheck
from fss_bench.image_lists import Finding, Listing
from fss_bench.index import IGNORE_ROW, ImageCounts, Index, mask_digest

Overlap = Literal["later", "smaller", "both"]
Crowd = Literal["ignore", "include", "background"]
OVERLAPS: tuple[Overlap, ...] = ("later", "smaller", "both")
CROWDS: tuple[Crowd, ...] = ("ignore", "include", "background")


class CocoReader:
    """Images and masks of one annotation file, which is read when first needed.

    Args:
        file: the annotation file.
        folder: where its images are.
        overlap: rule for pixels of several instances.
        crowd: rule for crowd regions.
        name_of: makes an image's id from its `images` object.

    Raises:
        DatasetError: an unknown rule.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        overlap: Overlap,
        crowd: Crowd,
        name_of: Callable[[Mapping[str, Any]], str],
    ) -> None:
        check_choice("overlap", overlap, OVERLAPS)
        check_choice("crowd", crowd, CROWDS)
        self.file, self.folder, self.overlap, self.crowd = file, folder, overlap, crowd
        self._name_of = name_of

    @cached_property
    def annotations(self) -> CocoAnnotations:
        """The parsed file."""
        return read_annotations(self.file)

    @cached_property
    def _ids(self) -> dict[str, int]:
        try:
            return {self._name_of(info): i for i, info in self.annotations.images.items()}
        except ValueError as error:
            raise DatasetError(f"{self.file}: an image id is not a number ({error})") from error

    def listing(self) -> Listing:
        """Image ids in file order, and what is wrong with the file."""
        return Listing(tuple(self._ids), self.annotations.findings)

    def counts(self, image: str) -> ImageCounts:
        """Pixels and run-length codes of one image's classes."""
        return _image_counts(
            *class_masks(self.annotations, self._ids[image], self.overlap, self.crowd)
        )

    def check(self, image: str) -> MaskCheck:
        """What is wrong with each annotation of an image, or worth telling."""
        info = self.annotations.images[self._ids[image]]
        size = int(info["height"]), int(info["width"])
        given = self.annotations.instances.get(self._ids[image], ())
        findings = [found for a in given for found in _findings(self.annotations, a, size)]
        crowds = [bool(annotation.get("iscrowd", 0)) for annotation in given]
        if given and all(crowds) and self.crowd != "include":
            told = f"image {image} has only crowd regions: it is in no episode"
            findings.append(Finding(told, grave=False))
        return MaskCheck(size, tuple(findings))

    def __contains__(self, image: str) -> bool:
        return image in self._ids

    def facts(self) -> dict[str, int]:
        """Numbers of images and annotations."""
        total = sum(len(found) for found in self.annotations.instances.values())
        return {"images": len(self.annotations.images), "annotations": total}


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise DatasetError if an option has none of its values."""
    if value not in choices:
        raise DatasetError(
            f"dataset option {name}={value!r}: it must be one of {', '.join(choices)}"
        )


def indexed_mask(index: Index, image: str, class_id: int) -> NDArray[np.uint8]:
    """Mask of one class from the codes in the index: 1 on it, 0 off it, 255 ignore."""
    mask = _indexed(index, image, class_id).astype(np.uint8)
    mask[_indexed(index, image, IGNORE_ROW)] = 255
    return mask


def indexed_labels(index: Index, image: str, classes: Iterable[int]) -> NDArray[np.int16]:
    """Label map from the codes in the index: class ids, 0 background, -1 ignore."""
    height, width = index.sizes[image]
    labels = np.zeros((height, width), dtype=np.int16)
    for class_id in (*classes, IGNORE_ROW):
        labels[_indexed(index, image, class_id)] = class_id
    return labels


def _indexed(index: Index, image: str, class_id: int) -> NDArray[np.bool_]:
    height, width = index.sizes[image]
    code = index.rle(image, class_id)
    if code is None:
        return np.zeros((height, width), dtype=bool)
    return np.asarray(rle_tools.decode({"size": [height, width], "counts": code}), dtype=bool)


def class_masks(
    annotations: CocoAnnotations, image_id: int, overlap: Overlap, crowd: Crowd
) -> tuple[int, int, dict[int, NDArray[np.bool_]]]:
    """Height, width and one mask a class [H, W] of an image; ignored pixels under `IGNORE_ROW`.

    Raises:
        DatasetError: an annotation that is malformed or of an unknown category.
    """
    info = annotations.images[image_id]
    height, width = int(info["height"]), int(info["width"])
    instances: list[tuple[int, NDArray[np.bool_]]] = []
    crowds: list[tuple[int, NDArray[np.bool_]]] = []
    for annotation in annotations.instances.get(image_id, ()):
        found = _instance(annotations, annotation, (height, width))
        is_crowd = bool(annotation.get("iscrowd", 0))
        (crowds if is_crowd and crowd != "include" else instances).append(found)
    masks = _paint(instances, (height, width), overlap)
    if crowd == "ignore" and crowds:
        covered = _nothing((height, width))
        for mask in masks.values():
            covered |= mask
        region = np.logical_or.reduce([mask for _, mask in crowds]) & ~covered
        if region.any():
            masks[IGNORE_ROW] = region
    return height, width, masks


def _image_counts(height: int, width: int, masks: Mapping[int, NDArray[np.bool_]]) -> ImageCounts:
    pixels = {class_id: int(np.count_nonzero(mask)) for class_id, mask in masks.items()}
    covered = _nothing((height, width))
    for mask in masks.values():
        covered |= mask
    pixels[0] = int(height * width - np.count_nonzero(covered))
    rles = {
        class_id: rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        for class_id, mask in masks.items()
    }
    codes = [part for c in sorted(rles) for part in (str(c).encode(), rles[c])]
    return ImageCounts(height, width, pixels, mask_digest(*codes), rles)


def _nothing(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """An empty mask in the order of pycocotools' own: mixed orders take seven times as long."""
    return np.zeros(shape, dtype=bool, order="F")


def _paint(
    instances: Sequence[tuple[int, NDArray[np.bool_]]], shape: tuple[int, int], overlap: Overlap
) -> dict[int, NDArray[np.bool_]]:
    if overlap == "smaller":
        instances = sorted(instances, key=lambda found: -np.count_nonzero(found[1]))
    masks: dict[int, NDArray[np.bool_]] = {}
    for class_id, mask in instances:
        if overlap != "both":
            for other in masks:
                masks[other] = masks[other] & ~mask
        masks[class_id] = masks[class_id] | mask if class_id in masks else mask
    return {class_id: mask for class_id, mask in masks.items() if mask.any()}


def _instance(
    annotations: CocoAnnotations, annotation: Mapping[str, Any], shape: tuple[int, int]
) -> tuple[int, NDArray[np.bool_]]:
    """Class id and mask [H, W] of one annotation."""
    image = annotation.get("image_id")
    class_id = annotations.class_ids.get(annotation.get("category_id", -1))
    if class_id is None:
        raise DatasetError(
            f"annotation {annotation.get('id')} of image {image} has category id "
            f"{annotation.get('category_id')}, which the file's categories do not list: mend it"
        )
    try:
        code = run_lengths(annotation.get("segmentation"), *shape)
        return class_id, np.asarray(rle_tools.decode(code), dtype=bool)
    except Exception as error:
        raise DatasetError(
            f"annotation {annotation.get('id')} of image {image} has a "
            f"segmentation that cannot be decoded ({one_line(error)}): mend or remove it"
        ) from error


def _findings(
    annotations: CocoAnnotations, annotation: Mapping[str, Any], shape: tuple[int, int]
) -> list[Finding]:
    try:
        _, mask = _instance(annotations, annotation, shape)
    except DatasetError as error:
        return [Finding(str(error))]
    name = f"annotation {annotation.get('id')} of image {annotation.get('image_id')}"
    if not mask.any():
        return [Finding(f"{name} covers no pixel: it is left out", grave=False)]
    if (over := overhang(annotation["segmentation"], *shape)) > 1:
        told = f"{name} reaches {over:.0f} px out of its image: it is cut at the edge"
        return [Finding(told, grave=False)]
    return []
