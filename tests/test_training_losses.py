"""Every method's loss terms against the cross entropy computed one pixel at a time."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fss_bench.errors import FssBenchError
from fss_bench.method import Method, create_method
from fss_bench.ops import cross_entropy
from fss_bench.timm_backbone import create_backbone
from fss_bench.training.losses import Losses
from fss_bench.training_batch import TrainingBatch

SIDE = 40
METHODS = ("panet", "sgone", "cofcn", "guided", "dcama", "hsnet")


def build(name: str, backbone: str = "test_resnet", **options: Any) -> Method:
    """A method on random weights, as it trains but without dropout."""
    method = create_method(
        name, create_backbone(backbone, weights="none"), input_size=SIDE, **options
    )
    assert isinstance(method, Method)
    return method


def episodes(ways: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two episodes whose queries count different numbers of pixels."""
    generator = torch.Generator().manual_seed(3)
    support = torch.rand(2, ways, 1, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(2, ways, 1, SIDE, SIDE, dtype=torch.uint8)
    for way in range(ways):
        masks[:, way, :, 5 + 10 * way : 20 + 10 * way, 8:30] = 1
    masks[0, :, :, :2] = 255
    query_masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    query_masks[:, 10:25, 3:20], query_masks[1, 30:36, 20:] = 1, ways
    query_masks[0, :14, :], query_masks[1, :, 37:] = 255, 255
    return support, masks, torch.rand(2, 3, SIDE, SIDE, generator=generator), query_masks


def bilinear(row: float, column: float, plane: list[list[float]]) -> float:
    """A plane between its cells, its border repeated."""
    height, width = len(plane), len(plane[0])
    row, column = max(row, 0.0), max(column, 0.0)
    top, left = min(int(row), height - 1), min(int(column), width - 1)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    y, x = row - top, column - left
    upper = plane[top][left] * (1 - x) + plane[top][right] * x
    lower = plane[below][left] * (1 - x) + plane[below][right] * x
    return upper * (1 - y) + lower * y


def slow_cross_entropy(logits: Tensor, masks: Tensor, corners: bool, void: int = 255) -> float:
    """The mean over episodes of -log softmax(label), one pixel and one channel at a time.

    Args:
        logits: [B, P, h, w].
        masks: [B, H, W]; 255 is left out, or counts for the channel `void`.
        corners: whether the corners of both grids coincide, or the borders of their cells.
    """
    total = 0.0
    for planes, mask in zip(logits.double().tolist(), masks.tolist(), strict=True):
        height, width = len(planes[0]), len(planes[0][0])
        found = []
        for i, j in ((i, j) for i in range(len(mask)) for j in range(len(mask[0]))):
            label = void if mask[i][j] == 255 else mask[i][j]
            if label == 255:
                continue
            if corners:
                row = i * (height - 1) / (len(mask) - 1)
                column = j * (width - 1) / (len(mask[0]) - 1)
            else:
                row = (i + 0.5) * height / len(mask) - 0.5
                column = (j + 0.5) * width / len(mask[0]) - 0.5
            odds = [math.exp(bilinear(row, column, plane)) for plane in planes]
            found.append(math.log(sum(odds)) - math.log(odds[label]))
        total += sum(found) / len(found)
    return total / len(logits)


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_the_query_term_is_the_cross_entropy_of_every_pixel(name: str, ways: int) -> None:
    options = {"align": False} if name == "panet" else {}
    method = build(name, **options)
    support, masks, query, labels = episodes(ways)
    with torch.no_grad():
        terms = method.loss_terms(support, masks, query, labels)
        logits = method(support, masks, query)
    assert set(terms) == {"query"}
    found = slow_cross_entropy(logits, labels, corners=False, void=method.void)
    assert float(terms["query"]) == pytest.approx(found, rel=2e-5)


def test_panets_alignment_term_swaps_support_and_query() -> None:
    """Wang et al., ICCV 2019, section 3.4: the query as answered segments the supports."""
    method = build("panet")
    support, masks, query, labels = episodes()
    with torch.no_grad():
        terms = method.loss_terms(support, masks, query, labels)
        features, size = method.encode(query), method(support, masks, query).shape[-2:]
        maps = next(iter(features.values()))
        assert maps.shape[-2:] == size
        answers = method(support, masks, query).argmax(dim=1)
        found = 0.0
        for b in range(2):
            cells = [answers[b] == c for c in (0, 1)]
            prototypes = torch.stack([mean_under(maps[b], on) for on in cells])
            own = next(iter(method.encode(support[b, 0]).values()))
            cosines = torch.stack(
                [torch.cosine_similarity(own, p[None, :, None, None]) for p in prototypes], dim=1
            )
            found += slow_cross_entropy(method.scale * cosines, masks[b, 0], corners=False) / 2
    assert float(terms["alignment"]) == pytest.approx(found, rel=2e-5)


def mean_under(maps: Tensor, on: Tensor) -> Tensor:
    """[C] the mean of the cells [C, h, w] that are on."""
    return maps[:, on].sum(dim=1) / (on.sum() + 1e-5)


def test_the_base_stage_of_msanet_is_the_cross_entropy_of_every_pixel() -> None:
    method = build("msanet", base_classes=4)
    support, masks, query, labels = episodes()
    base_labels = labels.clone()
    base_labels[:, 32:, :9] = 4
    batch = TrainingBatch(support, masks, query, labels, base_labels, torch.zeros(2, 1).long())
    with torch.no_grad():
        terms = method.stage_terms("base", batch)
        logits = method.learner_base(method.backbone(query, ("c5",))["c5"])
    assert set(terms) == {"base"}
    found = slow_cross_entropy(logits, base_labels, corners=True)
    assert float(terms["base"]) == pytest.approx(found, rel=2e-5)


def test_foreground_counts_for_its_weight() -> None:
    """A pixel of each kind: (3 on + off) / 4; one of 255 counts for nothing."""
    logits = torch.tensor([[[[0.0, 1.0, 5.0]], [[2.0, 0.5, -5.0]]]])
    on, off = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-0.5))
    found = cross_entropy(logits, torch.tensor([[[1, 0, 255]]]), foreground_weight=3.0)
    assert float(found) == pytest.approx((3 * on + off) / 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS, "msanet"])
def test_the_weight_of_foreground_reaches_every_method(name: str) -> None:
    method = build(name, backbone="tf_efficientnet_lite0")
    support, masks, query, labels = episodes()
    batch = TrainingBatch(support, masks, query, labels, None, torch.zeros(2, 1).long())
    last = [*method.recipes][-1]
    with torch.no_grad():
        even, heavy = (
            Losses(method, last, weight)(batch)["main" if name == "msanet" else "query"]
            for weight in (1.0, 30.0)
        )
    assert abs(float(even) - float(heavy)) > 1e-3


def test_a_loss_of_its_own_knows_no_weight() -> None:
    class Own(torch.nn.Module):
        def loss(self) -> None:
            """Whatever it is."""

    with pytest.raises(FssBenchError, match="foreground_weight=2: Own has a loss of its own"):
        Losses(Own(), "episodes", 2.0)
