"""Masks from COCO annotations: overlap and crowd rules on rectangles counted by hand."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fss_bench.coco_masks import CocoReader, class_masks, read_annotations
from fss_bench.index import IGNORE_ROW

# pycocotools 2.0.11, the newest, predates a keyword of NumPy 2.

Refusal = Callable[[Callable[[], object]], str]
MakeReader = Callable[..., CocoReader]
Json = dict[str, Any]

BIG, SMALL = 70, 7
"""Raw category ids; the class ids are 1 and 2, by their order in the file."""


def polygon(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    """A rectangle of (right - left) x (bottom - top) pixels."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(category: int | str, segmentation: Any, **more: Any) -> Json:
    found = {"id": 5, "image_id": 1, "category_id": category, "segmentation": segmentation}
    return {**found, "iscrowd": 0, **more}


def coco_file(*annotations: Json) -> Json:
    """A file of one 10 x 10 image."""
    return {
        "images": [{"id": 1, "file_name": "one.jpg", "height": 10, "width": 10}],
        "annotations": list(annotations),
        "categories": [{"id": BIG, "name": "big"}, {"id": SMALL, "name": "small"}],
    }


@pytest.fixture
def reader(tmp_path: Path) -> MakeReader:
    def make(*annotations: Json, overlap: str = "later", crowd: str = "ignore") -> CocoReader:
        file = tmp_path / "instances.json"
        file.write_text(json.dumps(coco_file(*annotations)))
        return CocoReader(file, tmp_path, overlap, crowd, lambda info: info["file_name"])

    return make


def pixels(reader: CocoReader) -> dict[int, int]:
    return reader.counts("one.jpg").pixels


# 6 x 10 pixels and 4 x 4 pixels, with 2 x 4 in common.
BIG_BOX = annotation(BIG, polygon(0, 0, 6, 10))
SMALL_BOX = annotation(SMALL, polygon(4, 2, 8, 6))


@pytest.mark.parametrize(
    ("overlap", "order", "expected"),
    [
        ("later", (BIG_BOX, SMALL_BOX), {0: 32, 1: 52, 2: 16}),
        ("later", (SMALL_BOX, BIG_BOX), {0: 32, 1: 60, 2: 8}),
        ("smaller", (BIG_BOX, SMALL_BOX), {0: 32, 1: 52, 2: 16}),
        ("smaller", (SMALL_BOX, BIG_BOX), {0: 32, 1: 52, 2: 16}),
        ("both", (BIG_BOX, SMALL_BOX), {0: 32, 1: 60, 2: 16}),
        ("both", (SMALL_BOX, BIG_BOX), {0: 32, 1: 60, 2: 16}),
    ],
)
def test_overlap_rules(
    reader: MakeReader, overlap: str, order: tuple[Json, Json], expected: dict[int, int]
) -> None:
    assert pixels(reader(*order, overlap=overlap)) == expected


@pytest.mark.parametrize("overlap", ["later", "smaller", "both"])
def test_instances_of_one_class_are_joined(reader: MakeReader, overlap: str) -> None:
    other_box = annotation(BIG, polygon(4, 2, 8, 6))
    assert pixels(reader(BIG_BOX, other_box, overlap=overlap)) == {0: 32, 1: 68}


def test_later_of_equal_instances_wins(reader: MakeReader) -> None:
    for overlap in ("later", "smaller"):
        left, right = polygon(0, 0, 6, 10), polygon(4, 0, 10, 10)
        found = reader(annotation(SMALL, left), annotation(BIG, right), overlap=overlap)
        assert pixels(found) == {0: 0, 1: 60, 2: 40}


def test_a_class_that_is_covered_entirely_is_not_there(reader: MakeReader) -> None:
    covered = annotation(SMALL, polygon(1, 1, 5, 5))
    assert pixels(reader(covered, BIG_BOX)) == {0: 40, 1: 60}
    assert pixels(reader(covered, BIG_BOX, overlap="smaller")) == {0: 40, 1: 44, 2: 16}


def test_masks_are_where_the_polygons_are(reader: MakeReader) -> None:
    annotations = reader(BIG_BOX, SMALL_BOX).annotations
    height, width, masks = class_masks(annotations, 1, "later", "ignore")
    assert (height, width) == (10, 10)
    small = np.zeros((10, 10), bool)
    small[2:6, 4:8] = True
    big = np.zeros((10, 10), bool)
    big[:, :6] = True
    assert np.array_equal(masks[2], small)
    assert np.array_equal(masks[1], big & ~small)


def test_an_instance_of_several_polygons(reader: MakeReader) -> None:
    parts = polygon(0, 0, 2, 3) + polygon(5, 5, 9, 6)
    assert pixels(reader(annotation(BIG, parts))) == {0: 90, 1: 10}


def test_an_image_without_annotations_is_all_background(reader: MakeReader) -> None:
    assert pixels(reader()) == {0: 100}


# Columns 3 to 7, in the three forms in which COCO files hold a region.
REGIONS = {
    "polygon": polygon(3, 0, 8, 10),
    "counts": {"size": [10, 10], "counts": [30, 50, 20]},
    "code": {"size": [10, 10], "counts": "n0b1d0"},
}


@pytest.mark.parametrize("form", REGIONS)
def test_every_form_of_region_is_the_same_mask(reader: MakeReader, form: str) -> None:
    annotations = reader(annotation(BIG, REGIONS[form])).annotations
    _, _, masks = class_masks(annotations, 1, "later", "ignore")
    expected = np.zeros((10, 10), bool)
    expected[:, 3:8] = True
    assert list(masks) == [1]
    assert np.array_equal(masks[1], expected)


@pytest.mark.parametrize("form", REGIONS)
@pytest.mark.parametrize(
    ("crowd", "expected"),
    [
        ("ignore", {0: 20, 1: 50, IGNORE_ROW: 30}),
        ("include", {0: 20, 1: 30, 2: 50}),
        ("background", {0: 50, 1: 50}),
    ],
)
def test_crowd_rules(reader: MakeReader, form: str, crowd: str, expected: dict[int, int]) -> None:
    left_half = annotation(BIG, polygon(0, 0, 5, 10))
    people = annotation(SMALL, REGIONS[form], iscrowd=1)
    assert pixels(reader(left_half, people, crowd=crowd)) == expected


def test_a_crowd_never_covers_an_instance(reader: MakeReader) -> None:
    people = annotation(SMALL, REGIONS["counts"], iscrowd=1)
    inside = annotation(SMALL, polygon(4, 4, 6, 6))
    expected = {0: 50, 2: 4, IGNORE_ROW: 46}
    assert pixels(reader(people, inside)) == expected
    assert pixels(reader(inside, people)) == expected


def test_a_crowd_under_instances_leaves_nothing_to_ignore(reader: MakeReader) -> None:
    people = annotation(SMALL, polygon(1, 1, 3, 3), iscrowd=1)
    assert pixels(reader(BIG_BOX, people)) == {0: 40, 1: 60}


@pytest.mark.parametrize(("option", "value"), [("overlap", "first"), ("crowd", "drop")])
def test_an_unknown_rule_names_the_known(
    reader: MakeReader, option: str, value: str, refusal: Refusal
) -> None:
    text = refusal(lambda: reader(**{option: value}))
    assert f"{option}='{value}'" in text
    assert {"overlap": "later, smaller, both", "crowd": "ignore, include, background"}[
        option
    ] in text


def test_classes_are_numbered_in_file_order(reader: MakeReader) -> None:
    annotations = reader().annotations
    assert annotations.class_names == {1: "big", 2: "small"}
    assert annotations.class_ids == {BIG: 1, SMALL: 2}


def test_real_category_ids_become_1_to_80(shared: Path) -> None:
    file = shared / "data" / "coco_mini" / "annotations" / "instances_val2017.json"
    class_ids = read_annotations(file).class_ids
    assert sorted(class_ids.values()) == list(range(1, 81))
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(class_ids)
    breakpoints = {1: 1, 11: 11, 13: 12, 25: 24, 27: 25, 28: 26, 31: 27, 43: 39, 44: 40, 46: 41}
    breakpoints |= {65: 60, 67: 61, 70: 62, 72: 63, 81: 72, 82: 73, 90: 80}
    assert {raw: class_ids[raw] for raw in breakpoints} == breakpoints


def without(part: str) -> Json:
    return {key: value for key, value in coco_file().items() if key != part}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps(without("images")),
        json.dumps(without("annotations")),
        json.dumps(without("categories")),
        json.dumps({**coco_file(), "images": [{"id": 1, "file_name": "a.jpg"}]}),
        json.dumps({**coco_file(), "images": {"1": "a.jpg"}}),
        json.dumps({**coco_file(), "categories": [{"id": 1}]}),
        json.dumps({**coco_file(), "annotations": [{"id": 1}]}),
        json.dumps({**coco_file(), "annotations": ["category_id"]}),
        json.dumps({**coco_file(), "annotations": [7]}),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str, refusal: Refusal) -> None:
    file = tmp_path / "instances.json"
    file.write_text(content)
    text = refusal(lambda: read_annotations(file))
    assert f"{file} is not a COCO annotation file" in text
    assert "images (id, file_name, height, width), annotations and categories" in text


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    for name in ("binary.json", "gone.json"):
        assert str(tmp_path / name) in refusal(lambda n=name: read_annotations(tmp_path / n))


@pytest.mark.parametrize("name", ["../one.jpg", "a/../../one.jpg", "/etc/one.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    tmp_path: Path, name: str, refusal: Refusal
) -> None:
    content = coco_file()
    content["images"][0]["file_name"] = name
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    reader = CocoReader(file, tmp_path, "later", "ignore", lambda info: info["file_name"])
    text = refusal(reader.listing().checked)
    assert repr(name) in text
    assert "leads out of the image folder" in text


def test_an_unknown_category_is_refused(reader: MakeReader, refusal: Refusal) -> None:
    unknown = annotation(71, polygon(0, 0, 2, 2), id=44)
    text = refusal(lambda: pixels(reader(BIG_BOX, unknown)))
    assert "annotation 44 of image 1 has category id 71" in text


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [20, 10], "counts": [100, 100]}, "size 10x20, its image is 10x10"),
        ({"size": [90_000, 90_000], "counts": "n0b1d0"}, "size 90000x90000"),
        ({"size": [10, 10], "counts": [30, 50, 10]}, "counts add up to 90"),
        ({"size": [10, 10], "counts": [30, 50, 40]}, "counts add up to 120"),
        ({"size": [10, 10], "counts": [-5, 105]}, "-5"),
        ({"size": [10, 10], "counts": "zzzzzzzzzz"}, "RLE"),
        ({"counts": [30, 50, 20]}, "size"),
        ({"size": [10, 10]}, "counts"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "a million pixels away"),
        ([[0, 0, float("nan"), 0, 5, 5]], "not a number"),
        ([[999_999, 999_999, -999_999, -999_999] * 3], "11999988 px around, more than 10000000"),
        ([[0, 0, 5, 0, 5, 5], [0, 0, 9e5, 0] * 6], "px around"),
        ([[0, 0, 5, 0]], "cannot be decoded"),
        ([[]], "cannot be decoded"),
        ([0, 0, 5, 0, 5, 5], "cannot be decoded"),
        ([], "no polygon and no run-length code"),
        (None, "no polygon and no run-length code"),
        ("one.png", "cannot be decoded"),
    ],
)
def test_a_region_that_fits_no_image_is_refused(
    reader: MakeReader, segmentation: Any, reason: str, refusal: Refusal
) -> None:
    text = refusal(lambda: pixels(reader(annotation(BIG, segmentation))))
    assert re.match(r"annotation 5 of image 1 ", text)
    assert reason in text
    assert "mend or remove it" in text


def test_a_polygon_may_reach_over_the_edge(reader: MakeReader) -> None:
    assert pixels(reader(annotation(BIG, polygon(-50, -50, 5, 5)))) == {0: 75, 1: 25}


@pytest.mark.parametrize("value", [None, True, 1.5, [1], {}])
@pytest.mark.parametrize(
    ("part", "field"),
    [("images", "id"), ("categories", "id"), ("annotations", "category_id")],
)
def test_an_id_that_is_none_is_refused(
    tmp_path: Path, part: str, field: str, value: object, refusal: Refusal
) -> None:
    content = coco_file(annotation(BIG, polygon(0, 0, 5, 5)))
    content[part][0][field] = value
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    text = refusal(lambda: read_annotations(file))
    assert f"{field} {value!r} in {part} is no whole number and no text" in text


def test_texts_are_ids(tmp_path: Path) -> None:
    content = coco_file(annotation("big", polygon(0, 0, 6, 10), image_id="one"))
    content["images"][0]["id"], content["categories"][0]["id"] = "one", "big"
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    reader = CocoReader(file, tmp_path, "later", "ignore", lambda info: info["file_name"])
    assert pixels(reader) == {0: 40, 1: 60}


def test_a_polygon_may_be_a_thousand_times_around_a_large_picture(reader: MakeReader) -> None:
    there_and_back = [0, 0, 0, 10, 6, 10, 6, 0] + [0, 0, 4000, 0] * 1000
    assert pixels(reader(annotation(BIG, [there_and_back])))[1] >= 60


def test_counts_keep_the_masks_as_codes(reader: MakeReader) -> None:
    found = reader(annotation(SMALL, REGIONS["polygon"])).counts("one.jpg")
    assert (found.height, found.width) == (10, 10)
    assert found.rles == {2: b"n0b1d0"}


def test_facts_are_images_and_annotations(reader: MakeReader) -> None:
    assert reader(BIG_BOX, SMALL_BOX, BIG_BOX).facts() == {"images": 1, "annotations": 3}
