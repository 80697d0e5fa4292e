"""FSS-1000: a tree in its layout made from real photographs, and small trees."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss_bench import create_dataset
from fss_bench.dataset import SegDataset
from fss_bench.datasets import fss1000
from fss_bench.errors import FssBenchError, UnknownNameError

Refusal = Callable[[Callable[[], object]], str]


@pytest.fixture
def standin(shared: Path) -> SegDataset:
    return create_dataset("fss1000", shared / "data" / "fss1000_standin")


def make_fss(root: Path, train: str = "cat dog", test: str = "fox") -> Path:
    """Four classes of images 1, 2 and 10; `owl` is in no list, as the validation classes are."""
    for name in ("dog", "fox", "cat", "owl"):
        (root / name).mkdir()
        for number in (1, 2, 10):
            Image.new("RGB", (4, 2), (9, 9, 9)).save(root / name / f"{number}.jpg")
            edge = np.array([[0, 127, 128, 255], [0, 0, 0, 0]], np.uint8)
            Image.fromarray(edge).convert("RGB").save(root / name / f"{number}.png")
    write_splits(root / "splits", train, test)
    return root


def write_splits(folder: Path, train: str, test: str) -> None:
    folder.mkdir()
    for name, listed in (("trn", train), ("test", test)):
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in listed.split()))


def test_real_tree_has_its_classes_and_images(standin: SegDataset) -> None:
    assert len(standin.class_names) == 24 + 11
    assert len(standin.novel_classes(0)) == 11
    assert len(standin.images("train")) == 240
    assert len(standin.images("test")) == 110
    for split, classes in (("train", standin.base_classes(0)), ("test", standin.novel_classes(0))):
        pools = standin.index.pools(split, classes, min_pixels=1)
        assert [len(found) for found in pools.values()] == [10] * len(classes)


def test_real_tree_tests_on_the_listed_classes(standin: SegDataset, shared: Path) -> None:
    lists = shared / "data" / "fss1000_standin" / "splits"
    novel = {standin.class_names[c] for c in standin.novel_classes(0)}
    assert novel == set((lists / "test.txt").read_text().split())
    base = {standin.class_names[c] for c in standin.base_classes(0)}
    assert base == set((lists / "trn.txt").read_text().split())
    assert not (base | novel) & set((lists / "val.txt").read_text().split())


def test_real_tree_is_not_the_official_one(standin: SegDataset) -> None:
    assert not standin.is_official
    assert re.fullmatch(r"fss1000@110-[0-9a-f]{6}", standin.identity)


def test_real_images_and_masks_have_one_size(standin: SegDataset) -> None:
    image = standin.images("test")[0]
    class_id = standin.novel_classes(0)[0]
    mask = standin.load_mask(image, class_id)
    assert standin.load_image(image).shape == (224, 224, 3)
    assert mask.shape == (224, 224)
    assert set(np.unique(mask)) == {0, 1}


def test_every_image_counts_however_small_its_object(tmp_path: Path) -> None:
    assert create_dataset("fss1000", make_fss(tmp_path)).rules == {"min_pixels": 1}


def test_masks_are_on_from_128(tmp_path: Path) -> None:
    dataset = create_dataset("fss1000", make_fss(tmp_path))
    assert dataset.load_mask("cat/1", 1).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert dataset.load_mask("cat/1", 2).tolist() == [[0] * 4] * 2
    assert dataset.index.pools("train", [1], 2) == {1: ["cat/1", "cat/10", "cat/2"]}
    assert dataset.index.pools("train", [1], 3) == {1: []}


def test_classes_are_numbered_by_name_and_images_by_number(tmp_path: Path) -> None:
    dataset = create_dataset("fss1000", make_fss(tmp_path, train="dog cat"))
    assert dataset.class_names == {1: "cat", 2: "dog", 3: "fox"}
    assert dataset.images("train") == ["dog/1", "dog/2", "dog/10", "cat/1", "cat/2", "cat/10"]
    assert dataset.images("test") == ["fox/1", "fox/2", "fox/10"]


def test_classes_of_no_list_are_neither_base_nor_novel(tmp_path: Path) -> None:
    dataset = create_dataset("fss1000", make_fss(tmp_path))
    assert dataset.base_classes(0) == (1, 2)
    assert dataset.novel_classes(0) == (3,)


def test_there_is_one_fold(tmp_path: Path) -> None:
    dataset = create_dataset("fss1000", make_fss(tmp_path))
    for classes in (dataset.novel_classes, dataset.base_classes):
        with pytest.raises(FssBenchError, match="fold 1 is out of range"):
            classes(1)


def test_more_than_255_classes_keep_their_ids(tmp_path: Path) -> None:
    names = [f"class{i:03}" for i in range(300)]
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("L", (2, 1), 255).save(tmp_path / name / "1.png")
        Image.new("RGB", (2, 1)).save(tmp_path / name / "1.jpg")
    write_splits(tmp_path / "splits", " ".join(names[:200]), " ".join(names[200:]))
    dataset = create_dataset("fss1000", tmp_path)
    assert dataset.class_names[255] == "class254"
    assert dataset.load_mask("class254/1", 255).tolist() == [[1, 1]]
    assert dataset.index.pools("test", [255, 300], 1) == {255: ["class254/1"], 300: ["class299/1"]}


def test_splits_from_another_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    make_fss(root)
    write_splits(tmp_path / "other", "owl", "dog cat")
    dataset = create_dataset("fss1000", root, splits=str(tmp_path / "other"))
    assert dataset.class_names == {1: "cat", 2: "dog", 3: "owl"}
    assert dataset.novel_classes(0) == (1, 2)
    assert dataset.base_classes(0) == (3,)


def test_the_official_lists_have_the_plain_name(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = shared / "lists" / "hsnet" / "fss"
    for list_name in ("trn", "test"):
        for name in (lists / f"{list_name}.txt").read_text().split():
            (tmp_path / name).mkdir()
            Image.new("L", (2, 1), 255).save(tmp_path / name / "1.png")
            (tmp_path / name / "1.jpg").touch()
    dataset = create_dataset("fss1000", tmp_path, splits=lists)
    assert (len(dataset.base_classes(0)), len(dataset.novel_classes(0))) == (520, 240)
    assert not dataset.is_official
    monkeypatch.setattr(fss1000, "OFFICIAL_IMAGES", {"train": 520, "test": 240})  # one each
    assert dataset.identity == "fss1000"


@pytest.mark.parametrize("name", ["trn", "test"])
def test_missing_list(tmp_path: Path, name: str, refusal: Refusal) -> None:
    file = make_fss(tmp_path) / "splits" / f"{name}.txt"
    file.unlink()
    text = refusal(lambda: create_dataset("fss1000", tmp_path))
    assert f"{file} is missing" in text
    assert "--dataset-option splits=DIR" in text


@pytest.mark.parametrize("listed", ["train", "test"])
def test_listed_classes_without_a_folder(tmp_path: Path, listed: str, refusal: Refusal) -> None:
    make_fss(tmp_path, **{listed: "cat wolf bear"})
    text = refusal(lambda: create_dataset("fss1000", tmp_path).index)
    assert "2 listed classes (bear, wolf)" in text


def test_missing_photograph(tmp_path: Path, refusal: Refusal) -> None:
    file = make_fss(tmp_path) / "dog" / "2.jpg"
    file.unlink()
    text = refusal(lambda: create_dataset("fss1000", tmp_path).index)
    assert "1 files of the 6 train images" in text
    assert str(file) in text


def test_unknown_option(tmp_path: Path) -> None:
    make_fss(tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'splits'"):
        create_dataset("fss1000", tmp_path, split="x")
