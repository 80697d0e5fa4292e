"""PASCAL-5i at full size: 12,031 real label maps give the lists that BAM and PFENet published.

The photographs are empty files: nothing here looks into them.
"""

import ast
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from fss_bench import create_dataset
from fss_bench.dataset import SegDataset
from fss_bench.index import Index

# A forked worker only counts pixels; newer Pythons warn of every fork beside threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

FOLDS = range(4)
MIN_PIXELS = 2 * 32 * 32
UNFILTERED_TRAIN_IMAGES = [4760, 4588, 4097, 5108]
BAM_TRAIN_IMAGES = [4208, 3726, 2752, 4510]
VAL_PAIRS = [365, 467, 734, 357]
VAL_IMAGES = [364, 445, 592, 336]

Pools = dict[int, set[str]]


def listed(file: Path) -> list[str]:
    """Image names of a list of `folder/name.jpg folder/name.png` lines."""
    return [Path(line.split()[0]).stem for line in file.read_text().splitlines() if line.strip()]


def make_voc(root: Path, lists: Path, masks: str) -> Path:
    """A VOC tree with the official lists, empty photographs for the masks there, and no more."""
    (root / "JPEGImages").mkdir()
    for mask in (root / masks).iterdir():
        (root / "JPEGImages" / f"{mask.stem}.jpg").touch()
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for name, source in (("train", "voc_original_train"), ("val", "val")):
        (folder / f"{name}.txt").write_text("\n".join(listed(lists / f"{source}.txt")) + "\n")
    return root


@pytest.fixture(scope="module")
def full_root(shared: Path, index_cache: Path) -> Path:
    """The whole tree, made once for all processes of pytest-xdist."""
    root = index_cache.parent / "voc2012-sbd"
    with FileLock(f"{root}.lock"):
        if not (root / "ImageSets").is_dir():
            zipfile.ZipFile(shared / "data" / "voc_aug_masks.zip").extractall(root)
            make_voc(root, shared / "lists" / "pfenet", "SegmentationClassAug")
    return root


@pytest.fixture(scope="module")
def full(full_root: Path) -> SegDataset:
    return create_dataset("pascal5i", full_root)


@pytest.fixture(scope="module")
def pfenet_images(shared: Path) -> set[str]:
    """The 5,953 training images of PFENet and BAM: VOC train and SBD's train_noval."""
    images = listed(shared / "lists" / "pfenet" / "voc_sbd_merge_noduplicate.txt")
    assert len(images) == len(set(images)) == 5953
    return set(images)


def bam_list(shared: Path, split: str, fold: int) -> set[str]:
    return set(listed(shared / "lists" / "bam_pascal" / split / f"data_list_{fold}.txt"))


def bam_class_lists(shared: Path, split: str, fold: int) -> Pools:
    file = shared / "lists" / "bam_pascal" / split / f"sub_class_file_list_{fold}.txt"
    pairs = ast.literal_eval(file.read_text())
    return {c: {Path(image).stem for image, _ in found} for c, found in pairs.items()}


def bam_train_pools(full: SegDataset, fold: int, images: set[str]) -> Pools:
    novel = full.novel_classes(fold)
    pools = full.index.pools("train", full.base_classes(fold), MIN_PIXELS, without=novel)
    return {class_id: images.intersection(found) for class_id, found in pools.items()}


def val_pools(full: SegDataset, fold: int) -> dict[int, list[str]]:
    return full.index.pools("test", full.novel_classes(fold), MIN_PIXELS)


def test_the_official_tree_has_the_plain_name(full: SegDataset) -> None:
    assert full.is_official
    assert full.identity == "pascal5i"


def test_image_counts(full: SegDataset) -> None:
    train, test = full.images("train"), full.images("test")
    assert (len(train), len(test)) == (10582, 1449)
    assert len(set(train) | set(test)) == 12031


@pytest.mark.parametrize("fold", FOLDS)
def test_bam_validation_lists(full: SegDataset, shared: Path, fold: int) -> None:
    pools = val_pools(full, fold)
    assert {c: set(found) for c, found in pools.items()} == bam_class_lists(shared, "val", fold)
    images = {image for found in pools.values() for image in found}
    assert images == bam_list(shared, "val", fold)
    assert len(images) == VAL_IMAGES[fold]


@pytest.mark.parametrize("fold", FOLDS)
def test_validation_pairs(full: SegDataset, fold: int) -> None:
    assert sum(len(found) for found in val_pools(full, fold).values()) == VAL_PAIRS[fold]


@pytest.mark.parametrize("fold", FOLDS)
def test_bam_training_lists(
    full: SegDataset, shared: Path, pfenet_images: set[str], fold: int
) -> None:
    pools = bam_train_pools(full, fold, pfenet_images)
    assert pools == bam_class_lists(shared, "train", fold)
    images = set().union(*pools.values())
    assert images == bam_list(shared, "train", fold)
    assert len(images) == BAM_TRAIN_IMAGES[fold]


@pytest.mark.parametrize("fold", FOLDS)
def test_pfenet_keeps_training_images_with_novel_classes(
    full: SegDataset, pfenet_images: set[str], fold: int
) -> None:
    pools = full.index.pools("train", full.base_classes(fold), MIN_PIXELS)
    images = pfenet_images.intersection(set().union(*pools.values()))
    assert len(images) == UNFILTERED_TRAIN_IMAGES[fold]


def test_without_one_mask_the_name_says_so(full_root: Path, full: SegDataset) -> None:
    part = create_dataset("pascal5i", full_root)
    rest = full.index.table[full.index.table["image"] != "2007_000033"]
    rest.attrs = {}  # the fingerprint of the whole
    part.index = Index(rest)  # building it anew would take as long as all other tests here
    assert not part.is_official
    assert re.fullmatch(r"pascal5i@1448-[0-9a-f]{6}", part.identity)


def test_without_sbd_the_name_says_so(full_root: Path, shared: Path, tmp_path: Path) -> None:
    masks = tmp_path / "SegmentationClass"
    masks.mkdir()
    for name in ("val", "voc_original_train"):
        for image in listed(shared / "lists" / "pfenet" / f"{name}.txt"):
            shutil.copy(full_root / "SegmentationClassAug" / f"{image}.png", masks)
    make_voc(tmp_path, shared / "lists" / "pfenet", "SegmentationClass")
    voc = create_dataset("pascal5i", tmp_path)
    assert (len(voc.images("train")), len(voc.images("test"))) == (1464, 1449)
    assert not voc.is_official
    assert re.fullmatch(r"pascal5i@1449-[0-9a-f]{6}", voc.identity)
