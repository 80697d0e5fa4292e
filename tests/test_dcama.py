import math
import re
from functools import cache, lru_cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
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
from fss_bench.attention import sinusoids
from fss_bench.backbone import Backbone, Level, WeightsInfo
from fss_bench.checkpoint_loading import load_checkpoint
from fss_bench.checkpoints.dcama import LAYOUT
from fss_bench.errors import FssBenchError
from fss_bench.methods.dcama import CARD, DCAMA, MaskAttention
from fss_bench.ops import resize_corners

GOLDENS = [path.stem for path in golden_files(SHARED / "golden", "dcama_*")]
OURS = {"swin": "swin_base_patch4_window12_384"}
HEAD = {
    "conv1": "conv_c5",
    "conv2": "conv_c4",
    "conv3": "conv_c3",
    "conv4": "merge_c4",
    "conv5": "merge_c3",
}


def dcama(backbone: str) -> DCAMA:
    method = create_method("dcama", create_backbone(backbone, weights="none"))
    assert isinstance(method, DCAMA)
    return method


def constant(name: str, shape: tuple[int, ...]) -> Tensor | None:
    """What the published constructor makes and the recipe leaves."""
    if re.fullmatch(r"model\.pe\.\d\.pe", name):
        return sinusoids(shape[1], shape[2], torch.device("cpu"))[None]
    if name.endswith("relative_position_index"):
        rows, columns = torch.arange(144) // 12, torch.arange(144) % 12
        down, right = rows[:, None] - rows, columns[:, None] - columns
        return (down + 11) * 23 + right + 11
    if name.endswith("attn_mask"):
        side = 12 * math.isqrt(shape[0])
        strip = (torch.arange(side) >= side - 12).long() + (torch.arange(side) >= side - 6).long()
        regions = 3 * strip[:, None] + strip
        windows = regions.reshape(side // 12, 12, side // 12, 12).transpose(1, 2).reshape(-1, 144)
        return torch.where(windows[:, :, None] != windows[:, None], -100.0, 0.0)
    return None


@lru_cache(maxsize=1)
def published(backbone: str) -> tuple[DCAMA, str]:
    """The method with the recipe's weights, and the digest of the published state dict."""
    shapes = read_keys(SHARED / "golden" / "keys" / f"dcama_{backbone}_keys.txt")
    constants = {k: v for k, s in shapes.items() if (v := constant(k, s)) is not None}
    state = recipe_state(shapes, constants)
    method = dcama(OURS.get(backbone, backbone))
    load_checkpoint(method, state)
    return method, state_sha256(state)


class Run:
    """Our answer to a golden file, with what passed through the head."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.method, sha256 = published(golden.facts["backbone"])
        assert sha256 == golden.facts["state_sha256"]
        self.method.zero_grad()
        self.maps: dict[str, Tensor] = {}
        parts = {name: getattr(self.method, name) for name in (*HEAD.values(), "mixer2")}
        parts["mixer1"] = self.method.mixer1[-1]  # its first convolution runs in parts
        parts |= {f"attention{i}": part for i, part in enumerate(self.method.attentions)}
        handles = [
            part.register_forward_hook(
                lambda _, __, out, name=name: self.maps.update({name: out.detach().clone()})
            )
            for name, part in parts.items()
        ]
        self.episode = (*golden.episode(), golden.tensors["query_mask"][None])
        answers: list[Tensor] = []
        handles.append(self.method.register_forward_hook(lambda _, __, out: answers.append(out)))
        wants_gradients = "grad_l2_eval_mode" in golden.facts
        with torch.set_grad_enabled(wants_gradients):
            self.terms = self.method.loss_terms(*self.episode)
        if wants_gradients:
            self.terms["query"].backward()
        self.logits = answers[0].detach()
        for handle in handles:
            handle.remove()


@pytest.fixture(scope="module", params=GOLDENS)
def run(request: pytest.FixtureRequest, shared: Path) -> Run:
    return Run(read_golden(shared / "golden" / f"{request.param}.safetensors"))


def test_published_logits(run: Run) -> None:
    wanted = run.golden.tensors["logits"]
    close(run.logits, wanted, 1e-4, "logits")
    same = run.logits.argmax(dim=1) == run.golden.tensors["pred"]
    margin = (wanted[:, 1] - wanted[:, 0]).abs()
    assert same[margin > 2e-4].all()


def test_published_attention(run: Run) -> None:
    maps = [m for i in range(3) for m in run.maps[f"attention{i}"]]
    names = run.golden.numbered("coarse_")
    assert len(names) == len(maps)
    for name, ours in zip(names, maps, strict=True):
        wanted = run.golden.tensors[name].flatten()
        close(ours, wanted, 5e-6, name)


def test_published_features(run: Run) -> None:
    facts, (support, _, query, _) = run.golden.facts, run.episode
    for key, image in (("query_feats", query), ("support0_feats", support[0, 0, :1])):
        blocks = run.method.backbone.blocks
        names = [name for level in ("c2", "c3", "c4", "c5") for name in blocks[level]]
        features = run.method.backbone(image, names)
        assert len(names) == len(facts[key])
        for name, wanted in zip(names, facts[key], strict=True):
            check_statistics(features[name], wanted, 1e-4, f"{key} {name}")


def test_published_head(run: Run) -> None:
    for name, wanted in run.golden.facts["head_stats"].items():
        check_statistics(run.maps[HEAD.get(name, name)], wanted, 5e-5, name)


def test_published_losses(run: Run) -> None:
    tensors = run.golden.tensors
    assert set(run.terms) == {"query"}
    if "loss_eval" in tensors:
        found = run.terms["query"].detach()
        close(found, tensors["loss_eval"], 2e-6, "loss")
    if "loss_train_manual_seed0" in tensors:
        run.method.train()
        torch.manual_seed(0)
        with torch.no_grad():
            found = run.method.loss(*run.episode)
        run.method.eval()
        close(found, tensors["loss_train_manual_seed0"], 2e-6, "loss in training, seed 0")


def test_published_gradients(run: Run) -> None:
    wanted = run.golden.facts.get("grad_l2_eval_mode")
    if wanted is None:
        pytest.skip("this file has no gradients")
    found = {
        LAYOUT.published(name): float(p.grad.double().norm())
        for name, p in run.method.named_parameters()
        if p.grad is not None
    }
    check_gradients(found, wanted, rtol=1e-4, floor=1e-6)


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "swin"])
def test_published_names_load_strictly(shared: Path, backbone: str) -> None:
    shapes = read_keys(shared / "golden" / "keys" / f"dcama_{backbone}_keys.txt")
    state = {f"module.{k}": torch.zeros(()).expand(s) for k, s in shapes.items()}
    method = dcama(OURS.get(backbone, backbone))
    report = load_checkpoint(method, state)
    assert report.checkpoint.variant.backbone == method.backbone.name
    assert report.loaded + sum(report.dropped.values()) == len(shapes)
    assert not any(v.any() for v in method.state_dict().values())
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert trained == CARD["backbones"][method.backbone.name]
    for name in shapes:
        assert LAYOUT.why_dropped(name) or LAYOUT.published(LAYOUT.rename(name)) == name
    other = {k: s for k, s in shapes.items() if not k.startswith("model.DCAMA")}
    assert LAYOUT.detect({k: torch.zeros(()).expand(s) for k, s in other.items()}) is None


def slow_attention(part: MaskAttention, query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
    """Section 1.3 of ../shared/METHODS.md by loops over blocks and heads: [n, N]."""
    n, shots, width = support.shape[:3]
    cells = query.shape[-2] * query.shape[-1]
    codes = torch.empty(cells, width)
    for p in range(cells):
        for j in range(width // 2):
            angle = p / 10000 ** (2 * j / width)
            codes[p, 2 * j], codes[p, 2 * j + 1] = math.sin(angle), math.cos(angle)
    values = F.interpolate(masks, query.shape[-2:], mode="bilinear", align_corners=True).flatten()
    rows = []
    for b in range(n):
        queries = part.query(query[b].flatten(1).T + codes)
        keys = torch.cat([part.key(support[b, k].flatten(1).T + codes) for k in range(shots)])
        total = torch.zeros(cells)
        for head in range(8):
            own = slice(head * width // 8, (head + 1) * width // 8)
            scores = queries[:, own] @ keys[:, own].T / math.sqrt(width // 8)
            total = total + (scores.exp() / scores.exp().sum(dim=1, keepdim=True)) @ values
        rows.append(total / 8)
    return torch.stack(rows)


@cache
def small_stage(shots: int) -> tuple[MaskAttention, Tensor, Tensor, Tensor]:
    torch.manual_seed(shots)
    part = MaskAttention(32).eval()
    masks = (torch.rand(shots, 1, 17, 17) > 0.5).float()
    return part, torch.randn(2, 32, 3, 4), torch.randn(2, shots, 32, 3, 4), masks


@pytest.mark.parametrize("shots", [1, 3])
def test_attention_equals_the_slow_formula(shots: int) -> None:
    part, query, support, masks = small_stage(shots)
    wanted = slow_attention(part, query, support, masks)
    shots_of = [part.keys(support[:, k]) for k in range(shots)]
    column = resize_corners(masks, (3, 4)).reshape(1, -1, 1)
    for grad in (True, False):  # another kernel each
        with torch.set_grad_enabled(grad):
            found = part(part.queries(query), torch.cat(shots_of, dim=2), column)
            by_block = part.attend(query, support, masks)[0].flatten(1)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
        torch.testing.assert_close(by_block, wanted, atol=1e-6, rtol=0)


def test_attention_with_dropout_is_right_on_average() -> None:
    part, query, support, masks = small_stage(1)
    part.train()
    torch.manual_seed(0)
    with torch.no_grad():
        draws = torch.stack([part.attend(query, support, 0 * masks + 1) for _ in range(300)])
    part.eval()
    # every row of weights sums to 1, so under a full mask half-dropped weights average to 1
    assert draws.std(dim=0).min() > 0.05
    assert abs(float(draws.mean()) - 1) < 0.01


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
    method = dcama(backbone)
    images, masks, query, _ = episode(shots, size, ways)
    with torch.no_grad():
        logits = method(images, masks, query)
        empty = method(images, 0 * masks, query)
    assert logits.shape == (1, 1 + ways, size, size)
    assert logits.isfinite().all()
    assert empty.isfinite().all()
    assert not torch.equal(logits, empty)


def test_equal_shots_count_once_and_order_does_not_matter() -> None:
    method = dcama("tf_efficientnet_lite0")
    images, masks, query, _ = episode(2, 64)
    with torch.no_grad():
        one = method(images[:, :, :1], masks[:, :, :1], query)
        twice = method(images[:, :, [0, 0]], masks[:, :, [0, 0]], query)
        both = method(images, masks, query)
        turned = method(images.flip(2), masks.flip(2), query)
    torch.testing.assert_close(twice, one, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned, both, atol=1e-5, rtol=0)
    assert (both - one).abs().max() > 1e-4


def test_ignored_pixels_are_background() -> None:
    method = dcama("tf_efficientnet_lite0")
    images, masks, query, target = episode(1, 64)
    ignored, ignored_target = masks.clone(), target.clone()
    ignored[masks == 0], ignored_target[target == 0] = 255, 255
    with torch.no_grad():
        torch.testing.assert_close(method(images, ignored, query), method(images, masks, query))
        wanted = F.cross_entropy(method(images, masks, query), target.long())
        found = method.loss(images, masks, query, ignored_target)
    torch.testing.assert_close(found, wanted)


def test_training_reaches_every_parameter_but_the_backbones() -> None:
    method = dcama("tf_efficientnet_lite0").train()
    method.loss(*episode(1, 64)).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is None) == name.startswith("backbone."), name
    assert not method.backbone.training


def test_bf16_stays_finite_and_near() -> None:
    method = dcama("tf_efficientnet_lite0")
    images, masks, query, _ = episode(2, 97)
    with torch.no_grad():
        exact = method(images, masks, query)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = method(images, masks, query)
    assert rough.isfinite().all()
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()


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
            {"c2": [8], "c3": [8], "c4": [8]},
            "c5; backbone fake has c2, c3, c4: choose",
        ),
        ({"c2": [8], "c3": [8], "c4": [20], "c5": [8]}, "8 heads, which cannot share 20 channels"),
        ({"c2": [8], "c3": [8, 16], "c4": [8], "c5": [8]}, "c3 in backbone fake have 8, 16 chan"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(
    blocks: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(FssBenchError, match=re.escape(message)) as caught:
        create_method("dcama", Fake(blocks))
    assert "\n" not in str(caught.value)
