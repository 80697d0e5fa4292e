"""PASCAL-5i: real VOC 2012 images against their known counts, and small trees of every layout."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss_bench import create_dataset
from fss_bench.dataset import SegDataset
from fss_bench.errors import FssBenchError

Refusal = Callable[[Callable[[], object]], str]

FOLD_NAMES = [
    "aeroplane bicycle bird boat bottle",
    "bus car cat chair cow",
    "diningtable dog horse motorbike person",
    "pottedplant sheep sofa train tvmonitor",
]
# Images that show each class, as data/voc_mini/SOURCE.md counted them.
TRAIN_IMAGES = [22, 18, 22, 17, 22, 19, 26, 22, 35, 16, 24, 17, 20, 21, 131, 19, 14, 19, 18, 26]
VAL_IMAGES = [18, 14, 16, 16, 21, 18, 29, 22, 32, 15, 21, 27, 23, 18, 132, 26, 17, 26, 21, 24]


@pytest.fixture
def voc(shared: Path) -> SegDataset:
    return create_dataset("pascal5i", shared / "data" / "voc_mini")


def make_voc(
    root: Path, masks: str = "SegmentationClass", train: str = "a b", val: str = "c"
) -> Path:
    """A VOC tree of 4 x 2 images; image a has class 1, b class 2, and so on."""
    (root / "JPEGImages").mkdir(parents=True)
    (root / masks).mkdir()
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(train.split()) + "\n")
    (lists / "val.txt").write_text("\n".join(val.split()) + "\n")
    for class_id, name in enumerate("abcdef", start=1):
        Image.new("RGB", (4, 2), (40 * class_id,) * 3).save(root / "JPEGImages" / f"{name}.jpg")
        labels = np.array([[0, class_id, class_id, 255], [0, 0, 0, 20]], np.uint8)
        Image.fromarray(labels).save(root / masks / f"{name}.png")
    return root


def test_real_tree_has_its_images(voc: SegDataset) -> None:
    train, test = voc.images("train"), voc.images("test")
    assert (len(train), len(test)) == (311, 321)
    assert not set(train) & set(test)
    assert train[0] == "2007_000032"
    assert test[0] == "2007_000033"


@pytest.mark.parametrize(("split", "expected"), [("train", TRAIN_IMAGES), ("test", VAL_IMAGES)])
def test_real_tree_has_its_classes(voc: SegDataset, split: str, expected: list[int]) -> None:
    pools = voc.index.pools(split, range(1, 21), min_pixels=1)
    assert [len(pools[class_id]) for class_id in range(1, 21)] == expected


def test_real_tree_is_not_the_official_one(voc: SegDataset) -> None:
    assert not voc.is_official
    assert re.fullmatch(r"pascal5i@321-[0-9a-f]{6}", voc.identity)
    assert voc.rules == {}


def test_real_masks_hold_the_class_and_the_border(voc: SegDataset, shared: Path) -> None:
    palette = Image.open(shared / "data/voc_mini/SegmentationClass/2007_000033.png")
    colours = np.array(palette.convert("RGB"))
    mask = voc.load_mask("2007_000033", 1)
    assert np.array_equal(mask == 1, (colours == [128, 0, 0]).all(axis=2))  # VOC's aeroplane
    assert np.array_equal(mask == 255, (colours == [224, 224, 192]).all(axis=2))  # its border
    assert set(np.unique(mask)) == {0, 1, 255}
    assert voc.load_image("2007_000033").shape == (*mask.shape, 3)


def test_folds_are_five_classes_in_order(tmp_path: Path) -> None:
    dataset = create_dataset("pascal5i", make_voc(tmp_path))
    for fold, names in enumerate(FOLD_NAMES):
        novel = dataset.novel_classes(fold)
        assert " ".join(dataset.class_names[c] for c in novel) == names
        assert novel == tuple(range(5 * fold + 1, 5 * fold + 6))
        assert set(dataset.base_classes(fold)) == set(range(1, 21)) - set(novel)


@pytest.mark.parametrize("fold", [-1, 4])
def test_a_fold_out_of_range_is_refused(tmp_path: Path, fold: int) -> None:
    dataset = create_dataset("pascal5i", make_voc(tmp_path))
    for classes in (dataset.novel_classes, dataset.base_classes):
        with pytest.raises(FssBenchError, match=f"fold {fold} is out of range.* 0 to 3"):
            classes(fold)


def test_masks_are_one_class_against_the_rest(tmp_path: Path) -> None:
    dataset = create_dataset("pascal5i", make_voc(tmp_path))
    assert dataset.load_mask("b", 2).tolist() == [[0, 1, 1, 255], [0, 0, 0, 0]]
    assert dataset.load_mask("b", 20).tolist() == [[0, 0, 0, 255], [0, 0, 0, 1]]
    assert dataset.load_mask("b", 1).tolist() == [[0, 0, 0, 255], [0, 0, 0, 0]]


@pytest.mark.parametrize("inside", [".", "VOC2012", "VOCdevkit/VOC2012"])
def test_the_tree_is_found_where_archives_put_it(tmp_path: Path, inside: str) -> None:
    make_voc(tmp_path / inside)
    dataset = create_dataset("pascal5i", tmp_path)
    assert dataset.images("train") == ["a", "b"]
    assert dataset.images("test") == ["c"]
    assert dataset.load_image("c").shape == (2, 4, 3)


def test_without_sbd_training_images_are_those_of_the_list(tmp_path: Path) -> None:
    dataset = create_dataset("pascal5i", make_voc(tmp_path, train="b a", val="d c"))
    assert dataset.images("train") == ["b", "a"]
    assert dataset.images("test") == ["d", "c"]


def test_with_sbd_training_images_are_all_but_val(tmp_path: Path) -> None:
    root = make_voc(tmp_path, masks="SegmentationClassAug", train="a", val="c")
    dataset = create_dataset("pascal5i", root)
    assert dataset.images("train") == ["a", "b", "d", "e", "f"]
    assert dataset.images("test") == ["c"]


def test_sbd_masks_are_preferred(tmp_path: Path) -> None:
    root = make_voc(tmp_path)
    (root / "SegmentationClassAug").mkdir()
    for name in "ce":
        mask = Image.fromarray(np.full((2, 4), 15, np.uint8))
        mask.save(root / "SegmentationClassAug" / f"{name}.png")
    dataset = create_dataset("pascal5i", root)
    assert dataset.images("train") == ["e"]
    assert dataset.load_labels("c").tolist() == [[15] * 4] * 2


def test_another_layout_is_refused_with_what_was_sought_and_found(
    tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.json").touch()
    text = refusal(lambda: create_dataset("pascal5i", tmp_path))
    assert str(tmp_path) in text
    for sought in ("JPEGImages", "ImageSets/Segmentation", "SegmentationClassAug", "VOCdevkit"):
        assert sought in text
    assert "found images, labels.json" in text


@pytest.mark.parametrize(
    "part", ["JPEGImages", "ImageSets", "ImageSets/Segmentation", "SegmentationClass"]
)
def test_a_tree_without_one_of_its_parts_is_refused(
    tmp_path: Path, part: str, refusal: Refusal
) -> None:
    shutil.rmtree(make_voc(tmp_path) / part)
    assert "is not a VOC 2012 tree" in refusal(lambda: create_dataset("pascal5i", tmp_path))


@pytest.mark.parametrize("name", ["train", "val"])
def test_missing_list_file(tmp_path: Path, name: str, refusal: Refusal) -> None:
    file = make_voc(tmp_path) / "ImageSets" / "Segmentation" / f"{name}.txt"
    file.unlink()
    dataset = create_dataset("pascal5i", tmp_path)
    text = refusal(lambda: dataset.index)
    assert str(file) in text
    assert "missing" in text


def test_sbd_needs_no_training_list(tmp_path: Path) -> None:
    root = make_voc(tmp_path, masks="SegmentationClassAug")
    (root / "ImageSets" / "Segmentation" / "train.txt").unlink()
    assert len(create_dataset("pascal5i", root).images("train")) == 5


def test_listed_photographs_that_are_missing_are_counted(tmp_path: Path, refusal: Refusal) -> None:
    make_voc(tmp_path, train="a b d e")
    for name in "bd":
        (tmp_path / "JPEGImages" / f"{name}.jpg").unlink()
    text = refusal(lambda: create_dataset("pascal5i", tmp_path).index)
    assert "2 files of the 4 train images of pascal5i are missing" in text
    assert str(tmp_path / "JPEGImages" / "b.jpg") in text


def test_listed_masks_that_are_missing_are_counted(tmp_path: Path, refusal: Refusal) -> None:
    make_voc(tmp_path)
    (tmp_path / "SegmentationClass" / "c.png").unlink()
    text = refusal(lambda: create_dataset("pascal5i", tmp_path).index)
    assert "1 files of the 1 test images of pascal5i are missing" in text
    assert str(tmp_path / "SegmentationClass" / "c.png") in text


def test_what_changes_after_indexing_is_noticed(tmp_path: Path, refusal: Refusal) -> None:
    make_voc(tmp_path)
    assert create_dataset("pascal5i", tmp_path).images("test") == ["c"]
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("d\n")
    assert create_dataset("pascal5i", tmp_path).images("test") == ["d"]
    (tmp_path / "JPEGImages" / "d.jpg").unlink()
    assert "d.jpg" in refusal(lambda: create_dataset("pascal5i", tmp_path).index)


def test_list_with_windows_line_ends(tmp_path: Path) -> None:
    make_voc(tmp_path)
    file = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    file.write_bytes(b"\xef\xbb\xbfc\r\nd\r\n\r\n")
    assert create_dataset("pascal5i", tmp_path).images("test") == ["c", "d"]


def test_an_id_beyond_the_classes_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    make_voc(tmp_path)
    labels = np.full((2, 4), 21, np.uint8)
    Image.fromarray(labels).save(tmp_path / "SegmentationClass" / "b.png")
    text = refusal(lambda: create_dataset("pascal5i", tmp_path).index)
    assert "mask of image b holds class id 21, pascal5i has 1 to 20" in text


def test_the_folder_is_needed_and_must_be_there(tmp_path: Path, refusal: Refusal) -> None:
    assert "--data-root" in refusal(lambda: create_dataset("pascal5i"))
    gone = tmp_path / "gone"
    assert f"{gone} is not a folder" in refusal(lambda: create_dataset("pascal5i", gone))
