"""Your own data: label PNGs or a COCO-format file, folds, lists, and what is said of mistakes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fss_bench import create_dataset
from fss_bench.errors import FssBenchError, UnknownNameError

# pycocotools 2.0.11, the newest, predates a keyword of NumPy 2.

MakeFolder = Callable[..., Path]
Refusal = Callable[[Callable[[], object]], str]


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def make_coco_folder(root: Path, **changes: Any) -> Path:
    """Two 10 x 5 images: `a.jpg` with an axe over a bow and a crowd of bows, `sub/b.png` empty."""
    (root / "images" / "sub").mkdir(parents=True)
    for name, grey in (("a.jpg", 20), ("sub/b.png", 220)):
        Image.new("RGB", (10, 5), (grey,) * 3).save(root / "images" / name)
    bow = {"id": 1, "image_id": "A", "category_id": 5, "segmentation": box(0, 0, 6, 5)}
    axe = {"id": 2, "image_id": "A", "category_id": 9, "segmentation": box(4, 0, 7, 5)}
    crowd = {**bow, "id": 3, "segmentation": box(8, 0, 10, 5), "iscrowd": 1}
    content = {
        "categories": [{"id": 9, "name": "axe"}, {"id": 5, "name": "bow"}],
        "images": [
            {"id": "A", "file_name": "a.jpg", "height": 5, "width": 10},
            {"id": "B", "file_name": "sub/b.png", "height": 5, "width": 10},
        ],
        "annotations": [bow, axe, crowd],
    }
    (root / "annotations.json").write_text(json.dumps({**content, **changes}))
    return root


# --- label PNGs


def test_label_pngs(make_folder: MakeFolder) -> None:
    root = make_folder(classes=4, per_class=2)
    dataset = create_dataset("folder", root)
    names = ["c1_0", "c1_1", "c2_0", "c2_1", "c3_0", "c3_1", "c4_0", "c4_1"]
    assert dataset.class_names == {1: "class1", 2: "class2", 3: "class3", 4: "class4"}
    assert dataset.images("train") == dataset.images("test") == names
    assert dataset.index.pools("test", [3], 48 * 32) == {3: ["c3_0", "c3_1"]}
    assert dataset.load_image("c3_0").shape == (48, 64, 3)
    mask = dataset.load_mask("c3_0", 3)
    assert (mask[:, :32] == 1).all()
    assert (mask[:, 32:] == 0).all()


def test_255_is_ignored(make_folder: MakeFolder) -> None:
    root = make_folder(per_class=1)
    Image.fromarray(np.array([[0, 1, 255, 2]], np.uint8)).save(root / "masks" / "c1_0.png")
    dataset = create_dataset("folder", root)
    assert dataset.load_mask("c1_0", 1).tolist() == [[0, 1, 255, 0]]
    assert dataset.load_mask("c1_0", 4).tolist() == [[0, 0, 255, 0]]


def test_the_name_tells_the_images_and_the_content(make_folder: MakeFolder) -> None:
    dataset = create_dataset("folder", make_folder())
    assert not dataset.is_official
    assert re.fullmatch(r"folder@12-[0-9a-f]{6}", dataset.identity)
    assert dataset.rules == {}


def test_images_of_other_formats(make_folder: MakeFolder) -> None:
    root = make_folder(classes=2, per_class=2)
    for name, suffix in (("c1_0", ".png"), ("c1_1", ".BMP"), ("c2_0", ".webp")):
        old = root / "images" / f"{name}.jpg"
        Image.open(old).save(old.with_suffix(suffix))
        old.unlink()
    (root / "images" / "notes.txt").touch()
    dataset = create_dataset("folder", root)
    assert dataset.images("test") == ["c1_0", "c1_1", "c2_0", "c2_1"]
    assert {dataset.load_image(image).shape for image in dataset.images("test")} == {(48, 64, 3)}


def test_two_images_that_share_a_mask_are_refused(
    make_folder: MakeFolder, refusal: Refusal
) -> None:
    root = make_folder()
    Image.new("RGB", (64, 48)).save(root / "images" / "c1_0.png")
    text = refusal(lambda: create_dataset("folder", root).index)
    assert str(root / "images" / "c1_0.jpg") in text
    assert "c1_0.png would share one mask" in text


def test_a_missing_mask_is_named(make_folder: MakeFolder, refusal: Refusal) -> None:
    root = make_folder()
    (root / "masks" / "c2_2.png").unlink()
    text = refusal(lambda: create_dataset("folder", root).index)
    assert "1 files of the 12 train images of folder are missing" in text
    assert str(root / "masks" / "c2_2.png") in text


def test_a_photograph_taken_away_after_indexing_is_noticed(
    make_folder: MakeFolder, refusal: Refusal
) -> None:
    root = make_folder()
    assert "c2_2" in create_dataset("folder", root).images("test")
    (root / "images" / "c2_2.jpg").unlink()
    assert "c2_2" not in create_dataset("folder", root).images("test")
    (root / "test.txt").write_text("c2_2\n")
    assert "(c2_2)" in refusal(lambda: create_dataset("folder", root).index)


def test_an_id_out_of_range_is_told_with_the_range(
    make_folder: MakeFolder, refusal: Refusal
) -> None:
    root = make_folder()
    Image.fromarray(np.full((48, 64), 5, np.uint8)).save(root / "masks" / "c2_0.png")
    text = refusal(lambda: create_dataset("folder", root).index)
    assert "mask of image c2_0 holds class id 5, folder has 1 to 4" in text


# --- class lists


def test_class_names_may_hold_blanks_and_other_alphabets(make_folder: MakeFolder) -> None:
    root = make_folder(classes=2)
    (root / "classes.txt").write_bytes("\ufeffpolar bear \r\n\r\n猫\r\n".encode())
    assert create_dataset("folder", root).class_names == {1: "polar bear", 2: "猫"}


def test_no_class_list(make_folder: MakeFolder, refusal: Refusal) -> None:
    root = make_folder()
    (root / "classes.txt").unlink()
    text = refusal(lambda: create_dataset("folder", root))
    assert f"{root / 'classes.txt'} is missing" in text
    assert "one a line" in text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has 0 names"),
        (b"cat\ncat\n", "has 2 names: it needs 1 to 254 different ones"),
        ("\n".join(map(str, range(255))).encode(), "has 255 names"),
        (b"caf\xe9\n", "is not UTF-8"),
    ],
)
def test_a_wrong_class_list(
    make_folder: MakeFolder, content: bytes, reason: str, refusal: Refusal
) -> None:
    root = make_folder()
    (root / "classes.txt").write_bytes(content)
    text = refusal(lambda: create_dataset("folder", root))
    assert f"{root / 'classes.txt'} {reason}" in text


# --- train.txt and test.txt


def test_lists_divide_the_images(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "train.txt").write_text("c2_0\nc1_0\n")
    (root / "test.txt").write_text("c1_1\n\nc2_1\n")
    dataset = create_dataset("folder", root)
    assert dataset.images("train") == ["c2_0", "c1_0"]
    assert dataset.images("test") == ["c1_1", "c2_1"]


def test_one_list_alone_leaves_all_images_to_the_other_split(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "test.txt").write_text("c1_1\n")
    dataset = create_dataset("folder", root)
    assert (len(dataset.images("train")), dataset.images("test")) == (12, ["c1_1"])


def test_image_names_may_hold_blanks(make_folder: MakeFolder) -> None:
    root = make_folder()
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (root / folder / f"c1_0.{suffix}").rename(root / folder / f"my cat 1.{suffix}")
    (root / "test.txt").write_text("my cat 1\nc1_1\n")
    dataset = create_dataset("folder", root)
    assert dataset.images("test") == ["my cat 1", "c1_1"]
    assert "my cat 1" in dataset.images("train")


def test_listed_images_that_are_not_there(make_folder: MakeFolder, refusal: Refusal) -> None:
    root = make_folder()
    (root / "train.txt").write_text("c1_0\nwolf\nbear\n")
    text = refusal(lambda: create_dataset("folder", root).index)
    assert f"{root / 'train.txt'} names 2 images" in text
    assert "(bear, wolf)" in text


# --- folds


@pytest.mark.parametrize(
    ("classes", "folds", "expected"),
    [
        (4, None, [[1, 2], [3, 4]]),
        (9, None, [[1, 2, 3], [4, 5], [6, 7], [8, 9]]),
        (1, None, [[1]]),
        (4, 1, [[1, 2, 3, 4]]),
        (4, 3, [[1, 2], [3], [4]]),
    ],
)
def test_folds_are_even_without_a_file(
    make_folder: MakeFolder, classes: int, folds: int | None, expected: list[list[int]]
) -> None:
    dataset = create_dataset("folder", make_folder(classes=classes, per_class=1), folds=folds)
    assert [list(dataset.novel_classes(i)) for i in range(len(dataset.folds))] == expected


def test_folds_from_a_file(make_folder: MakeFolder) -> None:
    root = make_folder(classes=5, per_class=1)
    (root / "folds.toml").write_text('folds = [["class4", "class1"], ["class3"]]')
    dataset = create_dataset("folder", root)
    assert [dataset.novel_classes(i) for i in (0, 1)] == [(1, 4), (3,)]
    assert dataset.base_classes(0) == (2, 3, 5)
    assert dataset.base_classes(1) == (1, 2, 4, 5)


@pytest.mark.parametrize(
    "content",
    [
        'folds = [["class1", "wolf"]]',
        'folds = ["class1"]',
        "folds = [[1, 2]]",
        "folds = []",
        'folds = [["class1"], []]',
        "folds = 2",
        'fold = [["class1"]]',
        "folds = [[",
        "",
    ],
)
def test_a_wrong_folds_file(make_folder: MakeFolder, content: str, refusal: Refusal) -> None:
    root = make_folder(per_class=1)
    (root / "folds.toml").write_text(content)
    text = refusal(lambda: create_dataset("folder", root))
    assert f"{root / 'folds.toml'} is wrong" in text
    assert "write folds = [[" in text


@pytest.mark.parametrize("folds", [0, -1, 5])
def test_a_wrong_number_of_folds(make_folder: MakeFolder, folds: Any, refusal: Refusal) -> None:
    root = make_folder(per_class=1)
    text = refusal(lambda: create_dataset("folder", root, folds=folds))
    assert f"dataset option folds={folds!r}" in text
    assert "1 to 4" in text


@pytest.mark.parametrize("folds", [2.5, "two"])
def test_folds_that_are_no_number(make_folder: MakeFolder, folds: Any) -> None:
    root = make_folder(per_class=1)
    with pytest.raises(FssBenchError, match=f"option folds={folds!r}: it must be of type int"):
        create_dataset("folder", root, folds=folds)


# --- a COCO-format file


def test_coco_format(tmp_path: Path) -> None:
    dataset = create_dataset("folder", make_coco_folder(tmp_path))
    assert dataset.class_names == {1: "axe", 2: "bow"}
    assert dataset.images("train") == dataset.images("test") == ["a.jpg", "sub/b.png"]
    assert dataset.load_image("sub/b.png").mean() == 220
    row = [2, 2, 2, 2, 1, 1, 1, 0, -1, -1]
    assert dataset.load_labels("a.jpg").tolist() == [row] * 5
    row = [1, 1, 1, 1, 0, 0, 0, 0, 255, 255]
    assert dataset.load_mask("a.jpg", 2).tolist() == [row] * 5
    assert not dataset.load_labels("sub/b.png").any()
    assert dataset.index.pools("test", [1, 2], 16) == {1: [], 2: ["a.jpg"]}
    assert dataset.rules == {"coco_overlap": "later", "coco_crowd": "ignore"}


def test_coco_format_with_other_rules(tmp_path: Path) -> None:
    root = make_coco_folder(tmp_path)
    dataset = create_dataset("folder", root, overlap="both", crowd="include")
    bow, axe = dataset.load_mask("a.jpg", 2), dataset.load_mask("a.jpg", 1)
    assert bow.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 1, 1]] * 5
    assert axe.tolist() == [[0, 0, 0, 0, 1, 1, 1, 0, 0, 0]] * 5
    assert dataset.rules == {"coco_overlap": "both", "coco_crowd": "include"}
    assert dataset.identity != create_dataset("folder", root).identity


def test_coco_format_with_lists_and_folds(tmp_path: Path) -> None:
    root = make_coco_folder(tmp_path)
    (root / "test.txt").write_text("a.jpg\n")
    (root / "folds.toml").write_text('folds = [["bow"], ["axe"]]')
    dataset = create_dataset("folder", root)
    assert dataset.images("test") == ["a.jpg"]
    assert [dataset.novel_classes(0), dataset.novel_classes(1)] == [(2,), (1,)]


def test_coco_format_becomes_stale_with_its_file(tmp_path: Path) -> None:
    root = make_coco_folder(tmp_path)
    assert create_dataset("folder", root).index.pools("test", [1], 1) == {1: ["a.jpg"]}
    content = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").write_text(json.dumps({**content, "annotations": []}))
    assert create_dataset("folder", root).index.pools("test", [1], 1) == {1: []}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": [{"id": 1}]}, "is not a COCO annotation file"),
        ({"categories": 3}, "is not a COCO annotation file"),
        (
            {"images": [{"id": "A", "file_name": "../a.jpg", "height": 5, "width": 10}]},
            "leads out of the image folder",
        ),
        ({"categories": [{"id": 9, "name": "axe"}]}, "category id 5"),
    ],
)
def test_faulty_annotations(
    tmp_path: Path, changes: dict[str, Any], reason: str, refusal: Refusal
) -> None:
    root = make_coco_folder(tmp_path, **changes)
    assert reason in refusal(lambda: create_dataset("folder", root).index)


def test_annotated_image_that_is_missing(tmp_path: Path, refusal: Refusal) -> None:
    root = make_coco_folder(tmp_path)
    (root / "images" / "sub" / "b.png").unlink()
    text = refusal(lambda: create_dataset("folder", root).index)
    assert "1 files of the 2 train images" in text
    assert str(root / "images" / "sub" / "b.png") in text


def test_an_unknown_rule(tmp_path: Path, refusal: Refusal) -> None:
    root = make_coco_folder(tmp_path)
    for option, value in (("overlap", "first"), ("crowd", "drop")):
        text = refusal(lambda o=option, v=value: create_dataset("folder", root, **{o: v}))
        assert f"dataset option {option}={value!r}" in text


# --- which flavour


def test_neither_masks_nor_annotations(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "images").mkdir()
    text = refusal(lambda: create_dataset("folder", tmp_path))
    assert "either masks/ with label PNGs and classes.txt, or annotations.json" in text
    assert text.endswith("it has neither")


def test_both_masks_and_annotations(make_folder: MakeFolder, refusal: Refusal) -> None:
    root = make_folder()
    (root / "annotations.json").write_text("{}")
    assert refusal(lambda: create_dataset("folder", root)).endswith("it has both")


def test_no_images_folder(tmp_path: Path, refusal: Refusal) -> None:
    text = refusal(lambda: create_dataset("folder", tmp_path))
    assert f"looked for {tmp_path / 'images'}" in text


@pytest.mark.parametrize(
    ("option", "nearest"), [("fold", "folds"), ("overlaps", "overlap"), ("crowds", "crowd")]
)
def test_an_unknown_option_suggests_the_nearest(
    make_folder: MakeFolder, option: str, nearest: str
) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'"):
        create_dataset("folder", make_folder(), **{option: 2})
