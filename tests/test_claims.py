"""Which published numbers are about a result that was measured here."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fss_bench.claims import FAMILIES, claims
from fss_bench.leaderboard import Row
from fss_bench.published import PublishedRow
from fss_bench.results import Run

CLAIM = PublishedRow(
    method="PANet",
    backbone="VGG16",
    dataset="pascal5i",
    protocol="panet",
    ways=1,
    shots=5,
    folds=(None,) * 4,
    miou=55.7,
    fb_iou=None,
    certainty="verified",
    folds_certainty="",
    fb_certainty="",
    paper="PANet, ICCV 2019",
    where="Table 1",
)


@pytest.fixture
def row(make_run: Callable[..., Run]) -> Row:
    from fss_bench.protocols import PROTOCOLS

    dataset = {"name": "pascal5i"}
    run = make_run(0.5, PROTOCOLS["panet"], backbone="vgg16_panet", shots=5, dataset=dataset)
    return Row({0: run})


def test_the_same_setting_under_other_spellings(row: Row) -> None:
    assert claims(row, [CLAIM]) == [CLAIM]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "SG-One"},
        {"backbone": "ResNet50"},
        {"dataset": "coco20i"},
        {"protocol": "standard"},
        {"ways": 2},
        {"shots": 1},
    ],
)
def test_any_difference_is_another_claim(row: Row, change: dict[str, object]) -> None:
    assert claims(row, [replace(CLAIM, **change)]) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet101", "ResNet-101"),
        ("resnet50_deepstem", "ResNet50"),
        ("swin_base_patch4_window12_384", "Swin-B"),
        ("vgg16_sgone", "VGG-16"),
    ],
)
def test_backbones(row: Row, ours: str, theirs: str) -> None:
    row.any_run.record["backbone"] = ours
    assert claims(row, [replace(CLAIM, backbone=theirs)])
    assert not claims(row, [replace(CLAIM, backbone="ResNet18")])
    row.any_run.record["backbone"] = "resnet50d"
    assert not claims(row, [replace(CLAIM, backbone=theirs)])


def test_registered_backbones_of_the_families_exist() -> None:
    from fss_bench.registry import backbones

    assert {name for names in FAMILIES.values() for name in names} <= set(backbones.names())


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"source": "moco_v2.pth", "sha256": "0"}},
        {"weights": {"source": "none", "sha256": "0"}},
        {"method_options": {"level": "c3"}},
        {"cache_dtype": "fp16"},
    ],
)
def test_other_weights_or_options_have_no_claim(row: Row, change: dict[str, object]) -> None:
    row.any_run.record.update(change)
    assert claims(row, [CLAIM]) == []


@pytest.mark.parametrize(
    "change", [{"dataset": "pascal5i@321-9b0aa6"}, {"protocol": "panet+episodes=20"}]
)
def test_a_part_of_a_dataset_or_a_changed_protocol_has_no_claim(
    row: Row, change: dict[str, str]
) -> None:
    record = row.any_run.record
    record["dataset"]["name"] = change.get("dataset", "pascal5i")
    record["protocol"]["label"] = change.get("protocol", "panet")
    assert claims(row, [CLAIM]) == []
