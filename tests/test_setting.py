"""From a protocol and a dataset to episodes, training targets and how a dataset is opened."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss_bench.base_episodes import train_sampler, training_mask
from fss_bench.dataset import SegDataset, create_dataset, datasets
from fss_bench.errors import FssBenchError
from fss_bench.protocols import PROTOCOLS
from fss_bench.setting import (
    create_setting,
    episodes_of,
    protocol_dataset_options,
)

STANDARD = PROTOCOLS["standard"]
BASE, NOVEL = 3, 1
LABELS = np.array([[0, 3, 3], [1, 1, 255]], np.uint8).repeat(20, axis=0).repeat(20, axis=1)


@pytest.fixture
def dataset(make_folder: Callable[..., Path]) -> SegDataset:
    """Four classes in two folds; image c3_0 shows a base and a novel class of fold 0, and 255."""
    root = make_folder(classes=4, per_class=4)
    Image.fromarray(LABELS).save(root / "masks" / "c3_0.png")
    Image.new("RGB", (60, 40)).save(root / "images" / "c3_0.jpg")
    return create_dataset("folder", root, folds=2)


@pytest.mark.parametrize(
    ("base_images", "train_ignore", "novel", "void"),
    [
        ("drop", "method", 0, 255),
        ("background", "excluded", 0, 255),
        ("background", "background", 0, 0),
        ("background", "foreground", 0, 1),
        ("ignore", "background", 255, 0),
        ("ignore", "excluded", 255, 255),
    ],
)
def test_training_targets(
    dataset: SegDataset, base_images: str, train_ignore: str, novel: int, void: int
) -> None:
    rules = {"base_images": base_images, "train_ignore": train_ignore}
    protocol = STANDARD.replace_rules(rules)
    before = dataset.load_labels("c3_0").copy()
    found = training_mask(dataset, protocol, fold=0, image="c3_0", class_id=BASE)
    expected = np.array([[0, 1, 1], [novel, novel, void]], np.uint8)
    assert np.array_equal(found, expected.repeat(20, axis=0).repeat(20, axis=1))
    assert np.array_equal(dataset.load_labels("c3_0"), before)


def test_a_novel_class_is_no_training_target(dataset: SegDataset) -> None:
    with pytest.raises(FssBenchError, match=r"class 1 \(class1\) is novel in fold 0 of folder"):
        training_mask(dataset, STANDARD, fold=0, image="c3_0", class_id=NOVEL)


@pytest.mark.parametrize(
    ("rule", "there"), [("drop", False), ("background", True), ("ignore", True)]
)
def test_which_images_are_trained_on(dataset: SegDataset, rule: str, there: bool) -> None:
    protocol = STANDARD.replace_rules({"base_images": rule, "min_pixels": 1})
    specs = train_sampler(dataset, protocol, fold=0).take(60)
    assert ("c3_0" in {image for spec in specs for image in spec.images}) is there
    assert {c for spec in specs for c in spec.classes} == {3, 4}


def test_episodes_on_coco_have_their_own_number() -> None:
    pfenet = PROTOCOLS["pfenet"]
    assert (episodes_of(pfenet, "pascal5i"), episodes_of(pfenet, "coco20i")) == (5001, 20001)
    assert episodes_of(PROTOCOLS["bam"], "coco20i") == 1000


@pytest.fixture(scope="module")
def coco(shared: Path) -> Path:
    return shared / "data" / "coco_mini"


def test_episodes_of_a_command_are_those_on_coco(coco: Path) -> None:
    dataset = create_dataset("coco20i", coco)
    setting = create_setting(dataset, "pfenet", episodes=30)
    assert len(setting.specs) == 30
    assert setting.protocol.coco_episodes == 30
    assert setting.protocol.episodes == 5001
    with pytest.raises(FssBenchError, match=r"goes by coco_episodes=20001: use --episodes 7"):
        create_setting(dataset, "pfenet", rules={"episodes": 7})


def test_a_protocol_opens_coco_as_it_asks(coco: Path) -> None:
    cls = datasets.get("coco20i")
    assert protocol_dataset_options("panet", cls, coco, {}) == {
        "fold_scheme": "contiguous",
        "overlap": "both",
        "crowd": "include",
    }
    assert protocol_dataset_options("standard", cls, coco, {"coco_crowd": "background"}) == {
        "fold_scheme": "interleaved",
        "overlap": "later",
        "crowd": "background",
    }
    assert protocol_dataset_options("panet", datasets.get("pascal5i"), coco, {}) == {}
    opened = create_dataset("coco20i", coco, **protocol_dataset_options("panet", cls, coco, {}))
    protocol = create_setting(opened, "panet", episodes=5).protocol
    assert protocol.label == "panet+episodes=5+short_classes=skip"
    otherwise = create_setting(create_dataset("coco20i", coco), "panet", episodes=5).protocol
    assert {"fold_scheme", "coco_overlap", "coco_crowd"} < set(otherwise.changes)


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.order != "hsnet"])
def test_every_protocol_draws_on_coco(coco: Path, name: str) -> None:
    options = protocol_dataset_options(name, datasets.get("coco20i"), coco, {})
    setting = create_setting(create_dataset("coco20i", coco, **options), name, episodes=8)
    assert len(setting.specs) == 8 * setting.protocol.runs
    novel = set(setting.dataset.novel_classes(0))
    assert {c for spec in setting.specs for c in spec.classes} <= novel
    assert set(setting.classes) | set(setting.skipped) == novel
    assert not set(setting.classes) & set(setting.skipped)


def test_rules_in_a_label_are_the_users_and_win_over_the_datasets(shared: Path) -> None:
    fss = create_dataset("fss1000", shared / "data" / "fss1000_standin")
    assert create_setting(fss).protocol.min_pixels == 1
    assert create_setting(fss, "standard+min_pixels=300").protocol.min_pixels == 300


def test_a_label_cannot_say_what_the_dataset_is_not(coco: Path, dataset: SegDataset) -> None:
    with pytest.raises(FssBenchError, match="coco20i was opened with interleaved: give it as"):
        create_setting(create_dataset("coco20i", coco), "standard+fold_scheme=contiguous")
    for rule in ("fold_scheme=contiguous", "coco_crowd=include"):
        name, _, value = rule.partition("=")
        with pytest.raises(FssBenchError, match=f"rule {rule}: it changes nothing of folder"):
            create_setting(dataset, rules={name: value, "min_pixels": 1})
    with pytest.raises(FssBenchError, match="coco_episodes=5: it is about coco20i, this is fold"):
        create_setting(dataset, rules={"coco_episodes": 5, "min_pixels": 1})


def test_a_folder_in_cocos_format_opens_as_a_protocol_asks(
    make_coco_folder: Callable[..., Path], make_folder: Callable[..., Path]
) -> None:
    cls, rules = datasets.get("folder"), {"overlap": "both", "crowd": "include"}
    assert protocol_dataset_options("panet", cls, make_coco_folder(), {}) == rules
    assert protocol_dataset_options("panet", cls, make_folder(), {}) == {}
