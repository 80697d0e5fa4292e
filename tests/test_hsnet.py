import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
from hsnet_reference import as_6d, slow_head
from parity import (
    Golden,
    check_gradients,
    check_statistics,
    close,
    golden_files,
    read_golden,
    read_keys,
    recipe_state,
    state_sha256,
)
from torch import Tensor

from fss_bench import create_backbone, create_method
from fss_bench.backbone import Backbone, Features, Level, WeightsInfo
from fss_bench.checkpoint_loading import load_checkpoint
from fss_bench.checkpoints.hsnet import LAYOUT
from fss_bench.errors import FssBenchError
from fss_bench.methods.hsnet import CARD, HSNet, vote_logits

GOLDENS = [path.stem for path in golden_files(SHARED / "golden", "hsnet_*")]
ENCODERS = {
    "encoder_layer4": "encoder_c5",
    "encoder_layer3": "encoder_c4",
    "encoder_layer2": "encoder_c3",
    "encoder_layer4to3": "merge_c4",
    "encoder_layer3to2": "merge_c3",
}


def hsnet(backbone: str, **options: Any) -> HSNet:
    method = create_method("hsnet", create_backbone(backbone, weights="none"), **options)
    assert isinstance(method, HSNet)
    return method


@lru_cache(maxsize=1)
def published(backbone: str) -> tuple[HSNet, str]:
    """The method with the recipe's weights, and the digest of the published state dict."""
    shapes = read_keys(SHARED / "golden" / "keys" / f"hsnet_{backbone}_keys.txt")
    state = recipe_state(shapes, {})
    method = hsnet(backbone)
    load_checkpoint(method, state)
    return method, state_sha256(state)


class Run:
    """Our answers to a golden file, shot by shot, with what passed through the encoders."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.method, sha256 = published(golden.facts["backbone"])
        assert sha256 == golden.facts["state_sha256"]
        self.method.zero_grad()
        images, masks, query = golden.episode()
        self.shots = masks.shape[2]
        self.passed: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        handles = [
            getattr(self.method, ours).register_forward_hook(
                lambda _, given, out, name=name: self._keep(name, as_6d(given[0]), as_6d(out))
            )
            for name, ours in ENCODERS.items()
        ]
        handles.append(
            self.method.decoder1.register_forward_hook(
                lambda _, given, out: self._keep("decoder1", given[0], out)
            )
        )
        self.wanted_gradients = golden.facts.get("grad_l2_eval_mode")
        with torch.set_grad_enabled(self.wanted_gradients is not None):
            asked = self.method.query_part(self.method.encode(query))
            shown = [
                self.method.support_part(self.method.encode(image[None]), mask)
                for image, mask in zip(images[0, 0], masks[0, 0], strict=True)
            ]
            size = (masks.shape[-2], masks.shape[-1])
            self.logits = torch.cat([self.method.shot_logits(s, asked, size) for s in shown])
        for handle in handles:
            handle.remove()
        with torch.no_grad():  # another way through the convolutions, that of evaluation
            free = [self.method.shot_logits(s, asked, size) for s in shown]
        self.free_logits = torch.cat(free)

    def _keep(self, name: str, given: Tensor, out: Tensor) -> None:
        # the first shot and the latest
        self.passed[name][1:] = [(given.detach().clone(), out.detach().clone())]


def shot_names(golden: Golden) -> list[str]:
    """Names of the shots' logits by shot; a file may tell storage and step in the name."""
    found = {}
    for name in golden.tensors:
        if match := re.fullmatch(r"logits_shot(\d+)(_f16)?(_s\d+)?", name):
            found[int(match[1])] = name
    return [found[shot] for shot in sorted(found)]


@pytest.fixture(scope="module", params=GOLDENS)
def run(request: pytest.FixtureRequest, shared: Path) -> Run:
    return Run(read_golden(shared / "golden" / f"{request.param}.safetensors"))


def test_published_logits(run: Run) -> None:
    names = shot_names(run.golden)
    assert len(names) == run.shots
    for name, ours, free in zip(names, run.logits, run.free_logits, strict=True):
        wanted = run.golden.tensors[name]
        # shots stored as fp16 are rounded by up to 2^-11 of their magnitude
        atol, rtol = (2e-5, 0.0) if wanted.dtype == torch.float32 else (2e-5, 2**-11)
        step = int((re.search(r"_s(\d+)$", name) or [0, "1"])[1])
        close(ours[None, :, ::step, ::step], wanted, atol, name, rtol)
        close(free[None, :, ::step, ::step], wanted, atol, f"{name} without gradients", rtol)


def test_published_prediction(run: Run) -> None:
    tensors = run.golden.tensors
    wanted = torch.cat([tensors[k].float() for k in shot_names(run.golden)])
    pred = tensors["pred"].reshape(wanted.shape[-2:]).long()
    # the published vote was taken from the stored, rounded logits
    assert torch.equal(vote_logits(wanted)[0].argmax(dim=0), pred)
    if "votes" in tensors:
        assert torch.equal(
            wanted.argmax(dim=1).sum(dim=0), tensors["votes"].reshape_as(pred).long()
        )
    ours = vote_logits(run.logits) if run.shots > 1 else run.logits
    sure = ((wanted[:, 1] - wanted[:, 0]).abs() > 1e-3).all(dim=0)
    assert sure.float().mean() > 0.99
    assert torch.equal(ours[0].argmax(dim=0)[sure], pred[sure])


def test_published_encoders(run: Run) -> None:
    facts = run.golden.facts.get("encoders_in_out", {})
    failures = []
    for shot in {0, min(1, run.shots - 1)}:  # files of several shots may tell of the last one
        try:
            for name, (given, out) in facts.items():
                check_statistics(run.passed[name][shot][0], given, 1e-5, f"input of {name}")
                check_statistics(run.passed[name][shot][1], out, 2e-5, f"output of {name}")
            break
        except AssertionError as error:
            failures.append(error)
    else:
        raise failures[0]
    if "encoded_before_decoder_shot0" in run.golden.tensors:
        wanted = run.golden.tensors["encoded_before_decoder_shot0"]
        close(run.passed["decoder1"][0][0], wanted, 2e-5, "encoded")


def test_published_loss_and_gradients(run: Run) -> None:
    if run.shots > 1:
        pytest.skip("several shots have a vote, not a loss")
    target = run.golden.tensors["query_mask"][None]
    loss = F.cross_entropy(run.logits, target.long())
    close(loss, run.golden.tensors["loss_eval"], 2e-6, "loss")
    if run.wanted_gradients is not None:
        loss.backward()
        found = {
            LAYOUT.published(name): float(p.grad.double().norm())
            for name, p in run.method.named_parameters()
            if p.grad is not None
        }
        check_gradients(found, run.wanted_gradients, rtol=1e-4, floor=1e-6)


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "vgg16"])
def test_published_names_load_strictly(shared: Path, backbone: str) -> None:
    shapes = read_keys(shared / "golden" / "keys" / f"hsnet_{backbone}_keys.txt")
    state = {f"module.{k}": torch.zeros(()).expand(s) for k, s in shapes.items()}
    head = {k: v for k, v in state.items() if "classifier" not in k}  # VGG's has 124 M numbers
    head |= {k: torch.zeros(1) for k in state.keys() - head.keys()}
    method = hsnet(backbone)
    report = load_checkpoint(method, head)
    assert report.checkpoint.variant.backbone == backbone
    assert report.loaded + sum(report.dropped.values()) == len(shapes)
    assert not any(v.any() for v in method.state_dict().values())
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert trained == CARD["backbones"][backbone]
    for name in shapes:
        assert LAYOUT.why_dropped(name) or LAYOUT.published(LAYOUT.rename(name)) == name
    assert LAYOUT.detect({k: v for k, v in state.items() if "hpn_learner" not in k}) is None


def answers(votes: list[list[int]]) -> Tensor:
    """Logits [K, 2, 1, P] of shots that say 0 or 1 at P pixels."""
    said = torch.tensor(votes)[:, None]
    return torch.stack([1.0 - said, said.float()], dim=1)


@pytest.mark.parametrize(
    ("votes", "published", "majority"),
    [
        ([[1, 1, 0, 0], [1, 0, 0, 0]], [1, 1, 0, 0], [1, 1, 0, 0]),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], [0, 0, 0, 0], [0, 0, 0, 0]),
        # of 5 shots at most 2 agree: 1 vote is half of the most, and no majority
        ([[1, 1, 0, 0], [1, 0, 0, 0], *[[0] * 4] * 3], [1, 1, 0, 0], [0, 0, 0, 0]),
        ([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]],)
        + ([1, 1, 0, 0],) * 2,
        ([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]], [1, 1, 0, 0], [1, 1, 0, 0]),
    ],
)
def test_vote(votes: list[list[int]], published: list[int], majority: list[int]) -> None:
    assert vote_logits(answers(votes)).argmax(dim=1)[0, 0].tolist() == published
    assert vote_logits(answers(votes), official=False).argmax(dim=1)[0, 0].tolist() == majority


def episode(shots: int, size: int, ways: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(1, ways, shots, 3, size, size, generator=generator)
    masks = torch.zeros(1, ways, shots, size, size, dtype=torch.uint8)
    masks[..., size // 4 : size // 2, size // 3 :] = 1
    target = torch.zeros(1, size, size, dtype=torch.uint8)
    target[:, : size // 2] = 1
    return images, masks, torch.rand(1, 3, size, size, generator=generator), target


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize(("size", "shots", "ways"), [(64, 1, 1), (97, 2, 1), (65, 1, 2)])
def test_any_backbone_and_side(backbone: str, size: int, shots: int, ways: int) -> None:
    method = hsnet(backbone)
    images, masks, query, _ = episode(shots, size, ways)
    with torch.no_grad():
        logits = method(images, masks, query)
        empty = method(images, 0 * masks, query)
    assert logits.shape == (1, 1 + ways, size, size)
    assert logits.isfinite().all()
    assert empty.isfinite().all()


def head_masks(size: int) -> dict[str, Tensor]:
    """Masks [size, size] of some pixels, one cell, all and none."""
    some, one = (torch.zeros(size, size, dtype=torch.uint8) for _ in range(2))
    some[size // 4 : size // 2, size // 3 :] = 1
    some[: size // 8] = 255
    one[0, 0] = 1
    return {"some": some, "one": one, "all": torch.ones_like(one), "none": torch.zeros_like(one)}


def random_features(method: HSNet, size: int, seed: int) -> Features:
    """Maps [1, C, h, w] of every block at the sizes that the backbone has of such images."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        shapes = {n: m.shape for n, m in method.encode(torch.zeros(1, 3, size, size)).items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["some", "one", "all", "none"])
@pytest.mark.parametrize(
    ("backbone", "size"), [("resnet18", 97), ("tf_efficientnet_lite0", 130), ("vgg16", 264)]
)
def test_the_head_equals_its_formulas(backbone: str, size: int, name: str) -> None:
    method, mask = hsnet(backbone), head_masks(size)[name]
    support, query = random_features(method, size, 1), random_features(method, size, 2)
    if name == "one":  # in the corner, which every resize keeps
        wheres = [v for k, v in method.support_part(support, mask).items() if k[:-1] == "where"]
        assert [int((where >= 0).sum()) for where in wheres] == [1, 1, 1]
    with torch.no_grad():
        wanted = slow_head(method, support, mask, query)
        found = method.segment_one(support, mask[None], query)
    assert float(wanted.std()) > 1e-4
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["some", "all", "none"])
def test_gradients_of_the_head_equal_those_of_its_formulas(name: str) -> None:
    method, mask = hsnet("resnet18").double(), head_masks(97)[name]
    support, query = (
        {name: maps.double() for name, maps in random_features(method.float(), 97, seed).items()}
        for seed in (1, 2)
    )
    method.double().train()
    target = (torch.arange(97 * 97).reshape(1, 97, 97) % 5 == 0).long()
    learns = {name: p for name, p in method.named_parameters() if p.requires_grad}
    found, wanted = (
        torch.autograd.grad(F.cross_entropy(logits, target), list(learns.values()))
        for logits in (
            method.segment_one(support, mask[None], query),
            slow_head(method, support, mask, query),
        )
    )
    for parameter, ours, theirs in zip(learns, found, wanted, strict=True):
        atol = 1e-7 * float(theirs.norm()) + 1e-13
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=0, msg=parameter)


def test_parts_hold_only_cells_under_the_mask() -> None:
    method = hsnet("resnet18")
    features, masks = random_features(method, 97, 1), head_masks(97)
    kept = {
        name: sum(v.nbytes for v in method.support_part(features, mask).values())
        for name, mask in masks.items()
    }
    assert kept["none"] < kept["one"] < kept["some"] < 0.3 * kept["all"]
    asked = method.query_part(features)
    assert asked.keys() == {"cells0", "cells1", "cells2"}
    assert sum(v.numel() for v in asked.values()) == sum(v.numel() for v in features.values())


def test_stages_whose_supports_are_squeezed_to_different_sizes() -> None:
    # VGG's pools round down: 33, 16 and 8 cells become 2, 1 and 1
    method, (images, masks, query, _) = hsnet("vgg16"), episode(1, 264)
    sizes = []
    for part in (method.encoder_c3, method.encoder_c4, method.encoder_c5):
        part.register_forward_hook(lambda _, __, out: sizes.append(out.where.shape[-1]))
    with torch.no_grad():
        logits = method(images, masks, query)
    assert sizes == [2, 1, 1]
    assert logits.isfinite().all()


def test_shots_are_answered_alone_and_vote() -> None:
    method = hsnet("tf_efficientnet_lite0")
    images, masks, query, _ = episode(3, 64)
    with torch.no_grad():
        shown, asked = method.encode(images[0, 0]), method.encode(query)
        singly = [{name: maps[k : k + 1] for name, maps in shown.items()} for k in range(3)]
        alone = torch.cat(
            [method.segment_one(one, masks[0, 0, [k]], asked) for k, one in enumerate(singly)]
        )
        alone_votes = method.segment_one(shown, masks[0, 0], asked)
        method.train()
        mean = method.segment_one(shown, masks[0, 0], asked)
    assert (alone[0] - alone[1]).abs().max() > 1e-5
    torch.testing.assert_close(alone_votes, vote_logits(alone), atol=0, rtol=0)
    torch.testing.assert_close(mean[0], alone.mean(dim=0), atol=1e-5, rtol=0)


def test_support_and_query_are_not_exchangeable() -> None:
    method = hsnet("tf_efficientnet_lite0")
    images, masks, query, _ = episode(1, 64)
    with torch.no_grad():
        full = method(images, 0 * masks + 1, query)
        swapped = method(query[None, None, None][:, :, :, 0], 0 * masks + 1, images[0, 0])
    assert (full - swapped).abs().max() > 1e-4


def test_a_second_size_does_not_depend_on_the_first() -> None:
    method = hsnet("tf_efficientnet_lite0")
    large, small = episode(1, 97)[:3], episode(1, 64)[:3]
    with torch.no_grad():
        wanted = method(*small)
        method(*large)
        torch.testing.assert_close(method(*small), wanted, atol=0, rtol=0)


def test_ignored_pixels_are_background() -> None:
    method = hsnet("tf_efficientnet_lite0")
    images, masks, query, target = episode(1, 64)
    ignored, ignored_target = masks.clone(), target.clone()
    ignored[masks == 0], ignored_target[target == 0] = 255, 255
    with torch.no_grad():
        torch.testing.assert_close(method(images, ignored, query), method(images, masks, query))
        wanted = F.cross_entropy(method(images, masks, query), target.long())
        found = method.loss(images, masks, query, ignored_target)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("shots", [1, 2])
def test_training_reaches_every_parameter_but_the_backbones(shots: int) -> None:
    method = hsnet("tf_efficientnet_lite0").train()
    method.loss(*episode(shots, 64)).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("backbone."), name
    assert not method.backbone.training


def test_bf16_stays_finite_and_near() -> None:
    method = hsnet("tf_efficientnet_lite0")
    images, masks, query, _ = episode(1, 97)
    with torch.no_grad():
        exact = method(images, masks, query)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = method(images, masks, query)
    assert rough.isfinite().all()
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()


class Fake(Backbone):
    """Levels without a network."""

    def __init__(self, blocks: dict[str, list[int]]) -> None:
        maps = {
            level: {f"{level}.{i}": Level(width, 4) for i, width in enumerate(widths)}
            for level, widths in blocks.items()
        }
        levels = {level: Level(widths[-1], 4) for level, widths in blocks.items()}
        weights = WeightsInfo("none", None)
        super().__init__("fake", levels, (0.5,) * 3, (0.5,) * 3, weights, blocks=maps)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (
            {"c3": [8], "c4": [8]},
            "hsnet needs the levels c3, c4, c5; backbone fake has c3, c4:",
        ),
        ({"c3": [8, 16], "c4": [8], "c5": [8]}, "those of c3 in backbone fake have 8, 16 channels"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(
    blocks: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(FssBenchError, match=re.escape(message)) as caught:
        create_method("hsnet", Fake(blocks))
    assert "\n" not in str(caught.value)


def test_ways_of_equal_votes_are_told_apart_by_the_margin() -> None:
    logits = torch.zeros(2, 2, 1, 2)
    logits[0, 1, 0], logits[1, 1, 0] = torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 1.5])
    found = vote_logits(logits)[0]
    assert found.argmax(dim=0).tolist() == [[1, 1]]  # one vote of two each
    assert found[1, 0, 0] > found[1, 0, 1]  # mean margins 0.5 and 0.25
