"""Annotation files in COCO's format, and all that is wrong with one beside its regions."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss_bench.errors import DatasetError, one_line, shorten
from fss_bench.image_lists import Finding, is_inside
from fss_bench.images import MOST_PIXELS


@dataclass(frozen=True)
class CocoAnnotations:
    """One annotation file.

    Attributes:
        class_names: class id -> name; ids are 1, 2, … in the order of the file's categories.
        images: COCO image id -> its `images` object; only those that can be used.
        instances: COCO image id -> its annotations, in file order.
        class_ids: raw category id -> class id.
        findings: what is wrong with the file, or worth telling, beside its regions.
    """

    class_names: dict[int, str]
    images: dict[int, dict[str, Any]]
    instances: Mapping[int, Sequence[dict[str, Any]]]
    class_ids: dict[int, int]
    findings: tuple[Finding, ...] = ()


def read_annotations(file: Path) -> CocoAnnotations:
    """Read a COCO-format instance file.

    Raises:
        DatasetError: not JSON, or a part is missing or of another form.
    """
    try:
        data = json.loads(file.read_bytes())
        _check_ids(data)
        order = [category["id"] for category in data["categories"]]
        names = {i: str(c["name"]) for i, c in enumerate(data["categories"], start=1)}
        sizes = [(str(i["file_name"]), int(i["height"]), int(i["width"])) for i in data["images"]]
        instances: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in data["annotations"]:
            instances[annotation["image_id"]].append(annotation)
        findings = tuple(
            Finding(f"{file}: {text}", grave) for text, grave in _findings(data, sizes, instances)
        )
        images = {
            image["id"]: image
            for image, size in zip(data["images"], sizes, strict=True)
            if is_inside(size[0]) and _is_bearable(size)
        }
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise DatasetError(
            f"{file} is not a COCO annotation file ({one_line(error)}): it must be JSON with "
            "images (id, file_name, height, width), annotations and categories"
        ) from error
    class_ids = {category: class_id for class_id, category in enumerate(order, start=1)}
    return CocoAnnotations(names, images, instances, class_ids, findings)


def _check_ids(data: Mapping[str, Any]) -> None:
    """Raise ValueError unless ids that others are looked up by are whole numbers or texts."""
    for part, field in (("images", "id"), ("categories", "id"), ("annotations", "category_id")):
        for entry in data[part]:
            if field in entry and not _is_id(entry[field]):
                told = f"{field} {entry[field]!r} in {part} is no whole number and no text"
                raise ValueError(told)


def _is_id(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int | str) and not isinstance(value, bool)


def _findings(
    data: Mapping[str, Any], sizes: Sequence[tuple[str, int, int]], instances: Mapping[Any, object]
) -> Iterator[tuple[str, bool]]:
    """What is wrong, and whether it must be mended."""
    if outside := [repr(name) for name, _, _ in sizes if not is_inside(name)]:
        yield f"file_name {shorten(outside)} leads out of the image folder: mend it", True
    for name, height, width in sizes:
        if not _is_bearable((name, height, width)):
            told = f"image {name!r} is said to be {width}x{height}: it must have 1 to {MOST_PIXELS}"
            yield f"{told} pixels", True
    categories, images = data["categories"], data["images"]
    for what, values in (
        ("image id", (image["id"] for image in images)),
        ("file_name", (name for name, _, _ in sizes)),
        ("category id", (category["id"] for category in categories)),
        ("category name", (category["name"] for category in categories)),
    ):
        if twice := _twice(values):
            yield f"{what} {shorten(map(repr, twice))} is there more than once: rename one", True
    if twice := _twice(a["id"] for a in data["annotations"] if "id" in a):
        told = f"annotation id {shorten(map(repr, twice))} is there more than once: all are used"
        yield told, False
    known = {image["id"] for image in images}
    if unknown := [repr(image) for image in instances if image not in known]:
        told = f"annotations of image {shorten(unknown)}, which it does not list: they are left out"
        yield told, False


def _is_bearable(size: tuple[str, int, int]) -> bool:
    _, height, width = size
    return height > 0 and width > 0 and height * width <= MOST_PIXELS


def _twice(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
