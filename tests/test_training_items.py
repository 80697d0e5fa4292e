"""Training items: targets under every rule, the guard, episodes and base images by number."""

import hashlib
import json
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fss_bench.base_episodes import train_sampler, training_mask
from fss_bench.dataset import SegDataset, Split, create_dataset, even_folds
from fss_bench.episodes import EpisodeSampler
from fss_bench.errors import DatasetError, FssBenchError
from fss_bench.loading import EpisodeLoader
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol
from fss_bench.training.augmentation import Augmentation
from fss_bench.training.guard import Guard
from fss_bench.training.items import BaseImages, EpisodeItems, Item, collate, worker_init
from fss_bench.training.targets import Targets
from fss_bench.training.truth import TrainingImages

STANDARD = PROTOCOLS["standard"].replace_rules({"min_pixels": 1})
NOTHING = Augmentation(flip=0.0)
EVERYTHING = Augmentation("crop", (0.9, 1.1), 10.0, 0.5, 0.5)
RULES = ("drop", "background", "ignore")
VOIDS = ("method", "excluded", "background", "foreground")


class Made(SegDataset):
    """Label maps made in a test, all for training; a pixel's colour is ten times its label.

    Args:
        maps: image -> labels [H, W].
        classes: number of classes, in two folds.
    """

    name = "made"

    def __init__(self, maps: Mapping[str, NDArray[np.uint8]], classes: int = 4) -> None:
        self.maps, self.decoded = dict(maps), 0
        self.class_names = {c: f"class{c}" for c in range(1, classes + 1)}
        self.folds = even_folds(range(1, classes + 1), 2)
        content = b"".join(name.encode() + m.tobytes() for name, m in self.maps.items())
        self.index_tag = hashlib.sha256(content).hexdigest()

    def list_images(self, split: Split) -> Sequence[str]:
        return [name for name in self.maps if name.startswith("test") == (split == "test")]

    def files_of(self, image: str) -> Sequence[Path]:
        return ()

    def load_image(self, image: str) -> NDArray[np.uint8]:
        return np.repeat((np.minimum(self.maps[image], 25) * 10)[..., None], 3, axis=2)

    def load_labels(self, image: str) -> NDArray[np.uint8]:
        self.decoded += 1
        return self.maps[image]

    def source_files(self) -> Sequence[Path]:
        return ()


def labels(rows: Sequence[Sequence[int]], cell: int = 16) -> NDArray[np.uint8]:
    """A label map of square cells."""
    return np.array(rows, np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)


MIXED = [[0, 3, 3], [1, 4, 255]]
"""Of fold 0, where 1 and 2 are novel."""


@pytest.fixture(scope="module")
def made() -> Made:
    """Images of base classes 3 and 4 of fold 0, one with both and a novel one, and two others."""
    maps = {f"a{i}": labels([[0, 3, i % 2], [0, 3, 255]]) for i in range(0, 8, 2)}
    maps |= {f"b{i}": labels([[4, 0, 0, 255], [4, 4, 0, 0]]) for i in range(3)}
    maps |= {"mixed": labels(MIXED), "novel": labels([[0, 1], [2, 2]])}
    return Made({**maps, "test": labels([[0, 3, 4]])})


def targets(dataset: SegDataset, fold: int = 0, **rules: str) -> Targets:
    return Targets(dataset, STANDARD.replace_rules(rules), fold)


def small(mask: NDArray[np.uint8], cell: int = 16) -> list[list[int]]:
    found: list[list[int]] = mask[::cell, ::cell].tolist()
    assert np.array_equal(mask, labels(found, cell))
    return found


@pytest.mark.parametrize(("base_images", "train_ignore"), list(product(RULES, VOIDS)))
def test_one_way_targets_are_training_masks(
    made: Made, base_images: str, train_ignore: str
) -> None:
    rules = {"base_images": base_images, "train_ignore": train_ignore}
    makes = targets(made, **rules)
    before = made.maps["mixed"].copy()
    expected = training_mask(made, makes.protocol, fold=0, image="mixed", class_id=3)
    truth = makes.images.truth("mixed")
    assert np.array_equal(makes.query(truth, (3,)), expected)
    assert np.array_equal(makes.support(truth, 3), expected)
    assert np.array_equal(made.maps["mixed"], before)


@pytest.mark.parametrize(
    ("base_images", "train_ignore", "novel", "void"),
    [
        ("drop", "method", 0, 255),
        ("background", "excluded", 0, 255),
        ("ignore", "background", 255, 0),
        ("background", "foreground", 0, 2),
    ],
)
def test_queries_of_two_ways_and_base_labels(
    made: Made, base_images: str, train_ignore: str, novel: int, void: int
) -> None:
    makes = targets(made, base_images=base_images, train_ignore=train_ignore)
    truth = makes.images.truth("mixed")
    assert small(makes.query(truth, (4, 3))) == [[0, 2, 2], [novel, 1, void]]
    unknown = 255 if train_ignore == "foreground" else void
    assert small(makes.base(truth)) == [[0, 1, 1], [novel, 2, unknown]]


@pytest.mark.parametrize(
    ("protocol", "void", "other"),
    [
        ("standard", 255, 0),
        ("hsnet", 0, 0),
        ("pfenet", 255, 0),
        ("bam", 255, 0),
        ("panet", 0, 255),
        ("oslsm", 1, 0),
        ("revolver", 255, 0),
    ],
)
def test_supports_are_as_each_published_code_trains_with_them(
    made: Made, protocol: str, void: int, other: int
) -> None:
    makes = Targets(made, PROTOCOLS[protocol], 0)
    support = makes.support(makes.images.truth("mixed"), 3, others=(4,))
    assert small(support) == [[0, 1, 1], [0, other, void]]


def test_novel_objects_stay_ignored_where_void_is_background(made: Made) -> None:
    makes = Targets(made, PROTOCOLS["panet"].replace_rules({"base_images": "ignore"}), 0)
    support = makes.support(makes.images.truth("mixed"), 3)
    assert small(support) == [[0, 1, 1], [255, 0, 0]]


def test_labels_are_decoded_once_an_image(made: Made) -> None:
    makes = targets(made, base_images="ignore")
    made.decoded = 0
    truth = makes.images.truth("mixed")
    makes.query(truth, (3, 4))
    makes.base(truth)
    makes.support(truth, 4, (3,))
    assert made.decoded == 1


# ------------------------------------------------------------------------------------- the guard


def episodes(
    dataset: SegDataset,
    pools: Mapping[int, Sequence[str]] | None = None,
    protocol: EvaluationProtocol = STANDARD,
    augmentation: Augmentation = NOTHING,
    ways: int = 1,
    shots: int = 1,
    side: int = 48,
    seed: int = 0,
    base_labels: bool = False,
) -> EpisodeItems:
    """Episodes of fold 0, with a sampler of one's own where pools are given."""
    if pools is None:
        sampler = train_sampler(dataset, protocol, fold=0, ways=ways, shots=shots)
    else:
        sampler = EpisodeSampler(pools, fold=0, ways=ways, shots=shots)
    return EpisodeItems(dataset, protocol, sampler, 0, side, augmentation, seed, base_labels)


def test_a_sampler_of_novel_classes_is_found_out(made: Made) -> None:
    item = episodes(made, {1: ["mixed", "novel"]})[0]
    assert item.problem is not None
    told = (
        r"image (mixed|novel) would be trained on as class 1 \(class1\), which is novel in fold 0 "
    )
    assert re.match(told, item.problem)
    assert item.query_mask.numel() == item.support_masks.numel() == 0


def test_a_sampler_of_test_images_is_found_out(made: Made) -> None:
    item = episodes(made, {3: ["test", "mixed"]})[0]
    assert item.problem == "image test is no training image of made: it must not be trained on"


class Shifted(Made):
    """Gives the mask of class 1, which is novel, for class 3."""

    def load_mask(self, image: str, class_id: int) -> NDArray[np.uint8]:
        return super().load_mask(image, 1 if class_id == 3 else class_id)


@pytest.mark.parametrize("rule", RULES)
def test_a_dataset_with_wrong_masks_is_found_out(made: Made, rule: str) -> None:
    broken = Shifted(made.maps)
    makes = targets(broken, base_images=rule)
    truth = makes.images.truth("mixed")
    for make in (
        lambda: makes.query(truth, (3,)),
        lambda: makes.support(truth, 3),
        lambda: makes.base(truth),
    ):
        with pytest.raises(FssBenchError, match=r"image mixed: 256 pixels of class 1 \(class1\), "):
            make()
    items = episodes(broken, {3: ["mixed", "a0"]}, base_labels=True)
    problems = [items[i].problem for i in range(2)]
    assert all(p and "fold 0 of made" in p and "\n" not in p for p in problems)


def test_the_guard_itself(made: Made) -> None:
    images = TrainingImages(made, 0)
    guard, truth = Guard(images), images.truth("mixed")
    for value, wrong in ((0, False), (255, False), (1, True), (254, True)):
        target = np.zeros((32, 48), np.uint8)
        target[31, 0] = value
        if wrong:
            with pytest.raises(FssBenchError, match="image mixed: 1 pixels of class 1"):
                guard.check(truth, target)
        else:
            guard.check(truth, target)
    guard.check_class(truth, 3)
    with pytest.raises(FssBenchError, match="image mixed would be trained on as class 2"):
        guard.check_class(truth, 2)


# ------------------------------------------------------------------- masks of their own a class


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """COCO's format, four images of 48 x 64: classes 1 (novel), 3 and 4 overlap; a crowd of 2."""
    (tmp_path / "images").mkdir()

    def box(left: int, right: int) -> list[list[int]]:
        return [[left, 0, right, 0, right, 48, left, 48]]

    annotations: list[dict[str, Any]] = []
    for i in range(4):
        Image.new("RGB", (64, 48), (10 * i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
        for category, left, right in ((3, 0, 32), (4, 16, 32), (1, 24, 40)):
            annotations.append(
                {"category_id": category, "segmentation": box(left, right), "iscrowd": 0}
            )
            annotations[-1] |= {"id": len(annotations), "image_id": i}
        crowd = {"size": [48, 64], "counts": [56 * 48, 8 * 48]}
        annotations.append({"category_id": 2, "segmentation": crowd, "iscrowd": 1})
        annotations[-1] |= {"id": len(annotations), "image_id": i}
    images = [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in range(4)]
    categories = [{"id": c, "name": f"class{c}"} for c in range(1, 5)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("rule", RULES)
def test_what_a_novel_class_shares_is_not_trained_on(overlapping: Path, rule: str) -> None:
    """Eight columns a column here: 3, 3, 3 and 4, all three, novel, background, background, 255."""
    makes = targets(create_dataset("folder", overlapping, overlap="both"), base_images=rule)
    truth = makes.images.truth("0.png")
    novel = 255 if rule == "ignore" else 0

    def columns(mask: NDArray[np.uint8]) -> list[int]:
        return small(mask, 8)[0]

    assert truth.has_overlaps
    assert columns(makes.query(truth, (3,))) == [1, 1, 1, novel, novel, 0, 0, 255]
    assert columns(makes.support(truth, 3)) == [1, 1, 1, novel, novel, 0, 0, 255]
    assert columns(makes.query(truth, (3, 4))) == [1, 1, 2, novel, novel, 0, 0, 255]
    assert columns(makes.query(truth, (4, 3))) == [2, 2, 2, novel, novel, 0, 0, 255]
    assert columns(makes.base(truth)) == [1, 1, 2, novel, novel, 0, 0, 255]
    with pytest.raises(FssBenchError, match="would be trained on as class 1"):
        makes.query(truth, (3, 1))


def test_disjoint_masks_of_cocos_format_are_guarded_too(overlapping: Path) -> None:
    makes = targets(create_dataset("folder", overlapping, overlap="later"))
    truth = makes.images.truth("0.png")
    assert not truth.has_overlaps
    assert small(makes.base(truth), 8)[0] == [1, 1, 2, 0, 0, 0, 0, 255]
    with pytest.raises(FssBenchError, match=r"768 pixels of class 1 \(class1\)"):
        makes.guard.check(truth, np.ones((48, 64), np.uint8))


# ----------------------------------------------------------------------------------- real images


@pytest.fixture(scope="module")
def pascal(shared: Path) -> SegDataset:
    return create_dataset("pascal5i", shared / "data" / "voc_mini")


def novel_targets(dataset: SegDataset, rule: str, step: int) -> tuple[int, int]:
    """Pixels of base classes and of novel ones that are trained on in every `step`-th image."""
    trained = wrong = 0
    images = dataset.images("train")[::step]
    labels_of = {image: dataset.load_labels(image) for image in images}
    for fold in range(4):
        makes = targets(dataset, fold, base_images=rule)
        for image in images:
            truth = makes.images.truth(image)
            base = makes.base(truth)
            classes = [c for c in makes.base_classes if c in truth.counts]
            masks = [base, *([makes.query(truth, classes)] if classes else [])]
            masks += [makes.support(truth, c) for c in classes[:1]]
            novel = np.isin(labels_of[image], dataset.novel_classes(fold))
            for mask in masks:
                on = (mask > 0) & (mask < 255)
                wrong += int((on & novel).sum())
                trained += int(on.sum())
                assert (mask[novel] == (255 if rule == "ignore" else 0)).all()
            number = {c: i for i, c in enumerate(dataset.base_classes(fold), start=1)}
            for class_id in classes:
                assert (base[labels_of[image] == class_id] == number[class_id]).all()
    return trained, wrong


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_no_novel_pixel_of_a_photograph_is_a_target(
    pascal: SegDataset, rule: str, step: int
) -> None:
    trained, wrong = novel_targets(pascal, rule, step)
    assert wrong == 0
    assert trained > 10**6


@pytest.mark.parametrize("rule", RULES)
def test_photographs_have_the_training_masks_of_their_classes(
    pascal: SegDataset, rule: str
) -> None:
    compared = 0
    for fold in range(4):
        makes = targets(pascal, fold, base_images=rule)
        for image in pascal.images("train")[fold::50]:
            truth = makes.images.truth(image)
            for c in (c for c in makes.base_classes if c in truth.counts):
                expected = training_mask(pascal, makes.protocol, fold=fold, image=image, class_id=c)
                assert np.array_equal(makes.query(truth, (c,)), expected)
                compared += 1
    assert compared > 20


@pytest.mark.parametrize(("overlap", "crowd"), [("later", "ignore"), ("both", "include")])
def test_no_novel_pixel_of_coco_is_a_target(shared: Path, overlap: str, crowd: str) -> None:
    dataset = create_dataset("coco20i", shared / "data" / "coco_mini", overlap=overlap, crowd=crowd)
    overlaps = 0
    folds = [targets(dataset, fold, base_images="background") for fold in range(4)]
    for makes, image in product(folds, dataset.images("train")[::8]):
        truth = makes.images.truth(image)
        overlaps += truth.has_overlaps
        base = makes.base(truth)
        for c in (c for c in makes.images.novel if dataset.index.rle(image, c)):
            assert not base[dataset.load_mask(image, c) == 1].any()
    assert bool(overlaps) is (overlap == "both")


def test_episodes_of_photographs_under_every_augmentation(pascal: SegDataset) -> None:
    """Images that the rule drops are not there; ways, shots and base labels go together."""
    sampler = train_sampler(pascal, STANDARD, fold=2, ways=2, shots=2)
    augmentation = Augmentation("crop", (0.3, 0.4), 10.0, 0.5, 0.5)
    items = EpisodeItems(pascal, STANDARD, sampler, 2, 96, augmentation, 0, base_labels=True)
    novel, shown = set(pascal.novel_classes(2)), []
    for number in range(6):
        item = items[number]
        assert item.problem is None
        assert item.spec == sampler[number]
        assert all(not novel & set(items.targets.images.counts[i]) for i in item.spec.images)
        assert item.support_images.shape == (2, 2, 3, 96, 96)
        assert set(item.query_mask.unique().tolist()) <= {0, 1, 2, 255}
        shown += (item.support_masks == 1).flatten(2).any(2).flatten().tolist()
        check_base_mask(item, pascal.base_classes(2))
    assert np.mean(shown) > 0.9


def check_base_mask(item: Item, base_classes: Sequence[int]) -> None:
    assert item.base_mask is not None
    for way, class_id in enumerate(item.classes, start=1):
        number = base_classes.index(class_id) + 1
        assert torch.equal(item.query_mask == way, item.base_mask == number)
    assert torch.equal(item.query_mask == 255, item.base_mask == 255)


# ------------------------------------------------------------------------------- episodes as items


@pytest.mark.parametrize("name", ["standard", "hsnet", "pfenet"])
def test_without_augmentation_an_episode_is_that_of_a_test(made: Made, name: str) -> None:
    protocol = PROTOCOLS[name].replace_rules(
        {"min_pixels": 1, "train_ignore": "method"}
        | ({"order": "balanced", "class_draw": "turns"} if name == "hsnet" else {})
    )
    items = episodes(made, protocol=protocol, shots=2)
    loader = EpisodeLoader(made, protocol, [], 48)
    for number in range(4):
        item, episode = items[number], loader.episode(items.sampler[number])
        assert torch.equal(item.support_images, episode.support_images)
        assert torch.equal(item.support_masks, episode.support_masks)
        assert torch.equal(item.query_image, episode.query_image)
        assert item.query_image.dtype == torch.float32
        assert item.query_mask.shape == (48, 48)
        assert item.base_mask is None
        assert item.number == number
        assert (item.classes, item.spec) == (episode.spec.classes, episode.spec)


@pytest.mark.parametrize("augmentation", [NOTHING, Augmentation(rotate=20.0), EVERYTHING])
def test_targets_lie_on_what_they_name(made: Made, augmentation: Augmentation) -> None:
    """Colours tell the label of every pixel, also once it was moved."""
    items = episodes(made, augmentation=augmentation, ways=2, shots=2, base_labels=True)
    for number in range(6):
        item = items[number]
        assert item.problem is None
        assert 0 <= item.query_image.min() <= item.query_image.max() <= 1
        seen = (item.query_image[0] * 25.5).numpy()
        for way, class_id in enumerate(item.classes, start=1):
            check_colour(seen[(item.query_mask == way).numpy()], class_id)
            for image, mask in zip(
                item.support_images[way - 1], item.support_masks[way - 1], strict=True
            ):
                check_colour((image[0] * 25.5).numpy()[(mask == 1).numpy()], class_id)
        check_base_mask(item, (3, 4))


def check_colour(found: NDArray[np.float32], class_id: int) -> None:
    """All but what borders blur."""
    assert not len(found) or np.median(found) == pytest.approx(class_id, abs=0.05)
    assert (np.abs(found - class_id) < 0.3).mean() > 0.6 if len(found) > 50 else True


def same(a: Item, b: Item) -> bool:
    tensors = ("support_images", "support_masks", "query_image", "query_mask")
    equal = all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)
    if a.base_mask is None or b.base_mask is None:
        return equal and a.base_mask is b.base_mask
    return equal and torch.equal(a.base_mask, b.base_mask)


def test_seed_number_and_role_decide_the_augmentation(made: Made) -> None:
    first = episodes(made, augmentation=EVERYTHING, shots=2)
    again, other = (episodes(made, augmentation=EVERYTHING, shots=2, seed=s) for s in (0, 1))
    assert all(same(first[n], again[n]) for n in (3, 0, 3))
    assert not any(same(first[n], other[n]) for n in range(4))
    repeated = episodes(made, {3: ["a0", "a2"]}, augmentation=Augmentation(rotate=90.0))
    by_image: dict[str, list[Any]] = {}
    for n in range(6):
        item = repeated[n]
        assert item.spec is not None
        by_image.setdefault(item.spec.query, []).append(item.query_image)
        by_image.setdefault(item.spec.supports[0][0], []).append(item.support_images[0, 0])
    for views in by_image.values():
        assert len({view.numpy().tobytes() for view in views}) == len(views) == 6


def test_every_shot_and_way_is_augmented_on_its_own(made: Made) -> None:
    pools = {3: ["a0", "mixed"], 4: ["b0", "mixed"]}
    sampler = EpisodeSampler(pools, fold=0, ways=2, shots=3, support_draw="repeat")
    kept = STANDARD.replace_rules({"base_images": "background"})
    items = EpisodeItems(made, kept, sampler, 0, 48, Augmentation(rotate=90.0), 0)
    for number in range(3):
        item = items[number]
        assert item.spec is not None
        assert len(item.spec.images) < 7  # an image is there twice
        views = {image.numpy().tobytes() for image in item.support_images.flatten(0, 1)}
        assert len(views) == 6


def test_other_ways_are_left_out_of_a_support_where_the_rule_says_so(made: Made) -> None:
    pools = {3: ["mixed", "a0"], 4: ["b0", "b1"]}
    for rule, other in (("background", 0), ("excluded", 255)):
        protocol = STANDARD.replace_rules({"support_others": rule, "base_images": "background"})
        items = episodes(made, pools, protocol, ways=2)
        item = next(i for i in map(items.__getitem__, range(20)) if ("mixed",) in i.spec.supports)
        way = item.classes.index(3)
        assert item.support_masks[way, 0, 12::24, 8::16].tolist() == [[0, 1, 1], [0, other, 255]]


def test_masks_are_whole_whatever_the_annotation(made: Made) -> None:
    whole = episodes(made, ways=2, base_labels=True)
    for kind in ("points", "scribble", "box"):
        protocol = STANDARD.replace_rules({"annotation": kind})
        weak = episodes(made, protocol=protocol, ways=2, base_labels=True)
        assert all(same(whole[n], weak[n]) for n in range(3))


def test_an_image_that_cannot_be_read_is_a_problem_of_one_line(
    make_folder: Callable[..., Path],
) -> None:
    root = make_folder(classes=4, per_class=2)
    dataset = create_dataset("folder", root, folds=2)
    items = episodes(dataset, base_labels=True)
    assert items[0].problem is None
    for file in (root / "images").glob("c3_*.jpg"):
        file.write_bytes(b"no image")
    problem = items[0].problem
    assert problem is not None
    assert "cannot be read" in problem
    assert "\n" not in problem
    batch = collate([items[1], items[0]])
    assert batch.problem == problem
    assert batch.numbers == (1, 0)
    assert batch.base_masks is None
    assert BaseImages(dataset, STANDARD, 0, 32, NOTHING, 0)[0].problem is not None or (
        BaseImages(dataset, STANDARD, 0, 32, NOTHING, 0)[1].problem is not None
    )


def test_an_image_of_another_size_than_its_mask_is_a_problem(
    make_folder: Callable[..., Path],
) -> None:
    root = make_folder(classes=4, per_class=2)
    dataset = create_dataset("folder", root, folds=2)
    items = episodes(dataset)
    for file in (root / "images").glob("c3_*.jpg"):
        Image.new("RGB", (10, 20)).save(file)
    assert "make the mask again at the image's size" in str(items[0].problem)


def test_an_episode_that_cannot_be_drawn_is_a_problem(made: Made) -> None:
    items = episodes(made, {3: ["a0", "mixed"], 4: ["a0", "mixed"]}, ways=2)
    assert "are used by its other ways" in str(items[0].problem)


# ------------------------------------------------------------------------------------ base images


@pytest.mark.parametrize("rule", RULES)
def test_which_images_a_base_learner_sees(made: Made, rule: str) -> None:
    protocol = STANDARD.replace_rules({"base_images": rule})
    images = BaseImages(made, protocol, 0, 48, NOTHING, 0)
    kept = {"drop": set(), "ignore": {"mixed"}, "background": {"mixed", "novel"}}[rule]
    assert set(images.images) == {"a0", "a2", "a4", "a6", "b0", "b1", "b2"} | kept
    assert len(set(images.images)) == len(images.images)


def test_base_images_take_turns_in_another_order_each_epoch(made: Made) -> None:
    images, other = (BaseImages(made, STANDARD, 0, 48, NOTHING, seed) for seed in (0, 1))
    size = len(images.images)

    def order(of: BaseImages, epoch: int) -> list[str]:
        return [of.image(epoch * size + i) for i in range(size)]

    orders = [order(images, epoch) for epoch in range(6)]
    assert all(sorted(found) == sorted(images.images) for found in orders)
    assert len({tuple(found) for found in orders}) == 6
    assert order(images, 0) == orders[0]
    assert order(other, 0) != orders[0]


def test_a_base_image_has_the_labels_of_all_base_classes(made: Made) -> None:
    protocol = STANDARD.replace_rules({"base_images": "background"})
    images = BaseImages(made, protocol, 0, 48, NOTHING, 0)
    size = len(images.images)
    number = next(n for n in range(size) if images.image(n) == "mixed")
    item = images[number]
    assert item.base_mask is not None
    assert item.base_mask[::24, ::16].tolist() == [[0, 1, 1], [0, 2, 255]]
    assert (item.query_image[0, 12::24, 8::16] * 25.5).round().tolist() == [[0, 3, 3], [1, 4, 25]]
    assert (item.number, item.classes, item.spec) == (number, (), None)
    assert item.support_images.numel() == item.support_masks.numel() == item.query_mask.numel() == 0


def test_nothing_to_learn_from_is_refused(made: Made) -> None:
    only = Made({"mixed": made.maps["mixed"], "novel": made.maps["novel"]})
    with pytest.raises(FssBenchError, match="use --rule base_images=background"):
        BaseImages(only, STANDARD, 0, 48, NOTHING, 0)
    kept = STANDARD.replace_rules({"base_images": "ignore"})
    assert BaseImages(only, kept, 0, 48, NOTHING, 0).images == ("mixed",)
    with pytest.raises(FssBenchError, match=r"made shows a base class of fold 0$"):
        BaseImages(Made({"novel": made.maps["novel"]}), kept, 0, 48, NOTHING, 0)


def test_more_classes_than_a_mask_can_number_are_refused(made: Made) -> None:
    crowded = Made(made.maps, classes=510)
    assert episodes(crowded, {300: ["a0", "a2"]}).targets.base_classes[0] == 256
    crowded.folds = [list(range(1, 256)), list(range(256, 510))]
    with pytest.raises(FssBenchError, match=r"255 base classes in fold 0: .* up to 254"):
        BaseImages(crowded, STANDARD, 0, 48, NOTHING, 0)
    with pytest.raises(FssBenchError, match="take a method without a base learner"):
        episodes(crowded, {300: ["a0", "a2"]}, base_labels=True)


# -------------------------------------------------------------------------------- loaders, batches


@pytest.mark.parametrize("kind", ["episodes", "images"])
def test_items_are_the_same_for_any_workers_and_order(made: Made, kind: str) -> None:
    items: EpisodeItems | BaseImages = BaseImages(made, STANDARD, 0, 48, EVERYTHING, 3)
    if kind == "episodes":
        items = episodes(made, augmentation=EVERYTHING, ways=2, shots=2, base_labels=True)
    numbers = [[5, 400], [2, 6], [400, 3]]
    alone = {n: items[n] for n in sorted({n for some in numbers for n in some})}
    for workers in (0, 2):
        loader: DataLoader[Any] = DataLoader(
            items,
            batch_sampler=numbers,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=worker_init if workers else None,
        )
        for batch, some in zip(list(loader), numbers, strict=True):
            assert batch.problem is None
            assert list(batch.numbers) == some
            for i, number in enumerate(some):
                item = alone[number]
                assert torch.equal(batch.support_images[i], item.support_images)
                assert torch.equal(batch.support_masks[i], item.support_masks)
                assert torch.equal(batch.query_images[i], item.query_image)
                assert torch.equal(batch.query_masks[i], item.query_mask)
                assert torch.equal(batch.base_masks[i], item.base_mask)
                assert (batch.classes[i], batch.specs[i]) == (item.classes, item.spec)


def test_a_batch_for_training_numbers_its_ways_among_the_base_classes(made: Made) -> None:
    items = episodes(made, ways=2, shots=1, base_labels=True)
    batch = collate([items[0], items[1]])
    given = batch.for_training(torch.device("cpu"), (3, 4))
    expected = [[{3: 0, 4: 1}[c] for c in items[n].classes] for n in (0, 1)]
    assert given.base_classes is not None
    assert given.base_classes.tolist() == expected
    assert given.base_classes.dtype == torch.int64
    assert given.support_images.shape == (2, 2, 1, 3, 48, 48)
    assert given.support_masks.shape == (2, 2, 1, 48, 48)
    assert given.query_images.shape == (2, 3, 48, 48)
    assert torch.equal(given.query_masks, batch.query_masks)
    assert given.base_masks is batch.base_masks
    assert collate([episodes(made)[0]]).for_training(torch.device("cpu"), (3, 4)).base_masks is None


def test_a_batch_of_images_has_no_ways(made: Made) -> None:
    images = BaseImages(made, STANDARD, 0, 48, NOTHING, 0)
    given = collate([images[0], images[1]]).for_training(torch.device("cpu"), (3, 4))
    assert given.support_images.shape == (2, 0, 0, 3, 48, 48)
    assert given.base_masks is not None
    assert given.base_masks.shape == (2, 48, 48)
    assert given.base_classes is not None
    assert given.base_classes.shape == (2, 0)


class Surroundings(TorchDataset[list[bool]]):
    """What a worker finds in its process."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> list[bool]:
        ignored = [signal.getsignal(s) == signal.SIG_IGN for s in (signal.SIGINT, signal.SIGTERM)]
        return [cv2.getNumThreads() == 1, *ignored]


def test_workers_are_quiet_and_of_one_thread() -> None:
    threads = cv2.getNumThreads()
    loader: DataLoader[Any] = DataLoader(
        Surroundings(), batch_size=None, num_workers=1, worker_init_fn=worker_init
    )
    (found,) = list(loader)  # to the end: a worker that is left over ignores to be stopped
    assert found == [True, True, True]
    assert cv2.getNumThreads() == threads


def test_a_missing_image_is_told_from_a_broken_one(made: Made) -> None:
    """Only mistakes that a user can mend become problems; a fault of ours is raised."""

    class Faulty(Made):
        def load_image(self, image: str) -> NDArray[np.uint8]:
            raise ZeroDivisionError

    class Missing(Made):
        def load_image(self, image: str) -> NDArray[np.uint8]:
            raise DatasetError(f"image {image} is missing: restore it")

    assert str(episodes(Missing(made.maps))[0].problem).endswith("is missing: restore it")
    with pytest.raises(ZeroDivisionError):
        episodes(Faulty(made.maps))[0]
