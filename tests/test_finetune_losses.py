"""Terms of the fit of `finetune`, each against a slow formula, and what they do."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_backbone import PixelBackbone, scene
from torch import Tensor, nn

from fss_bench.backbone import Level
from fss_bench.heads import fitting
from fss_bench.heads.balance import median_frequency_weights
from fss_bench.heads.cosine import CosineHead
from fss_bench.heads.fitting import Schedule, Supports, fit, query_terms, settle_norms
from fss_bench.heads.losses import (
    class_shares,
    divergence,
    mean_entropy,
    upsample,
    weighted_cross_entropy,
)
from fss_bench.heads.segnet import SegNetHead


def randoms(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def probabilities(logits: np.ndarray) -> np.ndarray:
    odds = [math.exp(value) for value in logits]
    return np.array(odds) / sum(odds)


def test_upsampling_is_bilinear_and_so_is_its_gradient() -> None:
    logits = randoms(2, 3, 5, 7).requires_grad_()
    twin = logits.detach().clone().requires_grad_()
    large = upsample(logits, (18, 11))
    wanted = F.interpolate(twin, (18, 11), mode="bilinear", align_corners=False)
    torch.testing.assert_close(large, wanted, atol=1e-5, rtol=0)
    weights = randoms(2, 3, 18, 11, seed=1)
    (large * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(logits.grad, twin.grad, atol=1e-4, rtol=0)


def test_cross_entropy_equals_loops() -> None:
    logits = randoms(2, 3, 3, 4)
    labels = torch.randint(0, 3, (2, 6, 8), generator=torch.Generator().manual_seed(1))
    labels[:, :2] = 255
    weights = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(2)) * (labels != 255)
    large = F.interpolate(logits, (6, 8), mode="bilinear", align_corners=False).double().numpy()
    total = share = 0.0
    for s, y, x in np.ndindex(2, 6, 8):
        if labels[s, y, x] != 255:
            p = probabilities(large[s, :, y, x])[labels[s, y, x]]
            total -= float(weights[s, y, x]) * math.log(p)
            share += float(weights[s, y, x])
    found = weighted_cross_entropy(logits, labels, weights)
    assert float(found) == pytest.approx(total / share, rel=1e-5)


def test_equal_weights_are_torchs_cross_entropy_and_none_are_zero() -> None:
    logits = randoms(2, 4, 6, 6)
    labels = torch.randint(0, 4, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    labels[1, :3] = 255
    found = weighted_cross_entropy(logits, labels, 3.0 * (labels != 255))
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, ignore_index=255))
    nothing = torch.full_like(labels, 255)
    assert weighted_cross_entropy(logits, nothing, torch.zeros(2, 6, 6)) == 0


def test_entropy_and_shares_equal_loops() -> None:
    logits = randoms(2, 3, 4, 5)
    entropies, shares = [], np.zeros(3)
    for b, y, x in np.ndindex(2, 4, 5):
        p = probabilities(logits[b, :, y, x].double().numpy())
        entropies.append(-sum(v * math.log(v) for v in p))
        shares += p / 40
    assert float(mean_entropy(logits)) == pytest.approx(np.mean(entropies), rel=1e-5)
    np.testing.assert_allclose(class_shares(logits).numpy(), shares, rtol=1e-5)


def test_divergence_equals_its_formula() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    wanted = 0.7 * math.log(0.7 / 0.3) + 0.2 * math.log(0.2 / 0.3) + 0.1 * math.log(0.1 / 0.4)
    assert float(divergence(p, q)) == pytest.approx(wanted, rel=1e-5)
    assert float(divergence(p, p)) == 0
    assert divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])) == pytest.approx(
        math.log(2)
    )


def test_terms_of_the_query_are_entropy_plus_divergence() -> None:
    logits, believed = randoms(1, 2, 4, 4), torch.tensor([0.9, 0.1])
    wanted = mean_entropy(logits) + divergence(class_shares(logits), believed)
    assert float(query_terms(logits, believed)) == pytest.approx(float(wanted))


def test_median_frequency_equals_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (3, 6, 5), generator=generator)
    labels[0] = labels[0].clamp(max=1)  # shows no class 2
    labels[2][labels[2] == 1] = 0
    labels[0, :4], labels[1, 0] = 255, 255
    frequencies = []
    for c in range(3):
        showing = [image for image in labels.numpy() if (image == c).any()]
        pixels = sum(int((image == c).sum()) for image in showing)
        frequencies.append(pixels / sum(int((image != 255).sum()) for image in showing))
    wanted = np.median(frequencies) / np.array(frequencies)
    found = median_frequency_weights(labels, 3).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert len(set(found.tolist())) == 3


def test_a_class_without_a_pixel_has_no_weight_and_no_say() -> None:
    labels = torch.tensor([[[0, 0, 0, 1]]])
    assert median_frequency_weights(labels, 3).tolist() == pytest.approx([2 / 3, 2.0, 0.0])
    assert median_frequency_weights(torch.full((1, 2, 2), 255), 2).tolist() == [0, 0]


def prepared(boxes: list[tuple[int, int]]) -> tuple[CosineHead, Supports, list[Tensor]]:
    """A cosine head at class means, a support, and a query with green squares."""
    backbone = PixelBackbone((2,))
    image, mask = scene([(4, 4)])
    asked, _ = scene(boxes)
    labels = mask[None].long()
    supports = Supports([backbone(image[None])["c1"]], labels, torch.ones(labels.shape))
    head = CosineHead([Level(3, 2)], 2)
    head.begin(supports.maps, labels)
    return head, supports, [backbone(asked[None])["c1"]]


@torch.no_grad()
def test_fitting_lowers_the_loss_of_the_support() -> None:
    losses = []
    for steps in (0, 5, 30):
        head, supports, query = prepared([(4, 4)])
        fit(head, supports, query, Schedule(steps, 0.025))
        logits = head(supports.maps)
        losses.append(float(weighted_cross_entropy(logits, supports.labels, supports.weights)))
    assert losses[2] < losses[1] < losses[0]


@torch.no_grad()
def test_entropy_makes_the_query_surer_and_keeps_its_shares() -> None:
    found = {}
    for weight in (0.0, 1.0):
        head, supports, query = prepared([(2, 2), (18, 20)])
        fit(head, supports, query, Schedule(30, 0.025, weight))
        logits = head(query)
        found[weight] = float(mean_entropy(logits)), float(class_shares(logits)[1])
    assert found[1.0][0] < 0.9 * found[0.0][0]
    assert abs(found[1.0][1] - found[0.0][1]) < 0.1


@torch.no_grad()
def test_entropy_alone_collapses_to_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    doubtful = [torch.tensor([0.62, 0.33, 0.34]).view(1, 3, 1, 1) + 0.1 * noise]

    def shares() -> float:
        head, supports, _ = prepared([])
        blind = Supports(supports.maps, supports.labels, 0 * supports.weights)
        fit(head, blind, doubtful, Schedule(30, 0.025, 1.0))
        return float(class_shares(head(doubtful))[1])

    held = shares()
    monkeypatch.setattr(fitting, "divergence", lambda *_: torch.zeros(()))
    alone = shares()
    assert 0.2 < held < 0.8
    assert min(alone, 1 - alone) < 0.02


@pytest.mark.parametrize(
    ("steps", "informed", "wanted"),
    [(50, True, {0, 10}), (50, False, {10}), (3, True, {0}), (3, False, {1})],
)
def test_shares_are_estimated_at_the_start_and_once_more(
    steps: int, informed: bool, wanted: set[int]
) -> None:
    assert Schedule(steps, 0.1, 1.0).estimates(informed) == wanted


def test_blank_heads_know_no_shares_before_the_first_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    head, supports, query = prepared([(4, 4)])

    def at_step(step: int) -> Supports:
        steps.append(step)
        return supports

    used: list[int] = []
    monkeypatch.setattr(CosineHead, "informed", False)
    monkeypatch.setattr(
        fitting, "query_terms", lambda *_: used.append(steps[-1]) or torch.zeros(())
    )
    fit(head, supports, query, Schedule(10, 0.1, 1.0), at_step)
    assert steps == list(range(10))
    assert used == list(range(2, 10))


def test_batch_norms_end_with_the_statistics_of_the_supports() -> None:
    torch.manual_seed(0)
    head = SegNetHead([Level(3, 1)], 2)
    maps = [randoms(2, 3, 8, 8)]
    head.train()(maps)
    head.train()(3 * maps[0][None])
    settle_norms(head, maps)
    assert not head.training
    found = {}
    first = next(m for m in head.modules() if isinstance(m, nn.BatchNorm2d))
    first.register_forward_pre_hook(lambda _, given: found.update(x=given[0]))
    head(maps)
    torch.testing.assert_close(first.running_mean, found["x"].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(first.running_var, found["x"].var(dim=(0, 2, 3)))
