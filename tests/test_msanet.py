import ast
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
from parity import (
    Golden,
    check_gradients,
    check_prediction,
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
from fss_bench.aspp import ASPP
from fss_bench.backbone import Backbone, Features, Level, WeightsInfo
from fss_bench.bam import ShotWeights
from fss_bench.checkpoint import layouts, read_checkpoint
from fss_bench.checkpoint_loading import create_from_checkpoint, load_checkpoint
from fss_bench.errors import FssBenchError, WeightsError
from fss_bench.methods import msanet as module
from fss_bench.methods.msanet import CARD, MSANet, Scores
from fss_bench.ops import resize_corners
from fss_bench.pspnet import PyramidPooling, psp_head, spread_convolution
from fss_bench.similarity import chained_masks, inside

GOLDENS = [path.stem for path in golden_files(SHARED / "golden", "msanet_*")]
KEYS = sorted(path.stem for path in (SHARED / "golden" / "keys").glob("msanet_*_keys.txt"))
ATOL = 5e-5  # golden/README.md
WATCHED = {
    "down_query": "down_query",
    "down_supp": "down_supp",
    "gate": "gate",
    "shot_weights": "weights",
    "hyper_final": "hyper_final",
    "meta.init_merge.1": "init_merge",
    "learner_base": "learner_base",
    **{f"meta.aspp.branches.{i}": f"branch{i}" for i in range(5)},
    "meta.res1.1": "res1_meta",
    "meta.res2": "res2_meta",
    "meta.cls": "cls_meta",
}
"""Our modules that run as a whole -> names in golden files."""


def official_shapes(backbone: str, shots: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict; ResNet-101's follow from ResNet-50's."""
    short = "vgg" if backbone.startswith("vgg") else backbone
    path = SHARED / "golden" / "keys" / f"msanet_{short}_{shots}shot_keys.txt"
    if path.exists() or short != "resnet101":
        return read_keys(path)
    shapes = official_shapes("resnet50", shots)
    block = {k.removeprefix("layer3.5."): v for k, v in shapes.items() if k.startswith("layer3.5.")}
    shapes |= {f"layer3.{i}.{k}": v for i in range(6, 23) for k, v in block.items()}
    return {**shapes, "hyper_final.0.weight": (64, 30, 1, 1)}


def empty_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {
        k: torch.zeros(v, dtype=torch.int64 if k.endswith("tracked") else torch.float32)
        for k, v in shapes.items()
    }


def parts_of(
    method: MSANet, support: Features, masks: Tensor, query: Features
) -> tuple[list[Features], Features]:
    """Parts of supports, features [K, C, h, w] a level and masks [K, H, W], and of a query."""
    shots = [
        method.support_part({level: maps[k : k + 1] for level, maps in support.items()}, mask)
        for k, mask in enumerate(masks)
    ]
    return shots, method.query_part(query)


class Run:
    """One golden file through our network: eval answer, intermediate maps, losses, gradients."""

    def __init__(self, golden: Golden) -> None:
        self.golden, facts = golden, golden.facts
        state = recipe_state(official_shapes(facts["backbone"], facts["shots"]), {})
        for name, values in facts["overrides_after_recipe"].items():
            state[name] = torch.tensor(values).reshape(state[name].shape)
        self.sha256 = state_sha256(state)
        checkpoint = read_checkpoint(state)
        self.layout = layouts()[checkpoint.layout]
        method = create_from_checkpoint(checkpoint)
        assert isinstance(method, MSANet)
        self.method = method
        self.maps: dict[str, list[Tensor]] = defaultdict(list)
        for ours, theirs in WATCHED.items():
            self._watch(ours, theirs)
        support, masks, query = golden.episode("support_label_")
        self.masks, self.size = masks[0, 0], (masks.shape[-2], masks.shape[-1])
        with torch.no_grad():
            features = method.encode(support[0, 0])
            self.features = self._features(query)
            self.query = {level: self.features[level] for level in method.levels}
            self.final = method.segment_one(features, self.masks, self.query)
            self.similarities, self.parts = self._joined(features)
        self.seen = {name: maps[0] for name, maps in self.maps.items()}
        whole, *branches = (self.seen.pop(f"branch{i}") for i in range(5))
        spread = whole.expand(-1, -1, *branches[0].shape[-2:])
        self.seen["ASPP_meta"] = torch.cat([spread, *branches], dim=1)
        self.meta = resize_corners(self.seen["cls_meta"], self.size)
        self.base = resize_corners(self.seen["learner_base"], self.size)
        self.terms = self._train(features, support, masks, query)

    def _joined(self, support: Features) -> tuple[Tensor, dict[str, Tensor]]:
        """Similarity maps, and what the published code joins for its first layer."""
        method, shots = self.method, range(len(self.masks))
        gated = [g * r for g, r in zip(self.maps["gate"], self.maps["down_supp"], strict=True)]
        parts, own = parts_of(method, support, self.masks, self.query)
        weights = self.maps["weights"][0]
        return method.similarities(parts, own), {
            "query_feat": self.maps["down_query"][0],
            "supp_pro": sum(weights[k] * parts[k]["prototype"] for k in shots),
            "hyper_final": self.maps["hyper_final"][0],
            "corr_query_mask": method.prior(parts, own, weights),
            "gam": torch.stack(gated).mean(dim=0),
        }

    def _features(self, query: Tensor) -> Features:
        """All that the method takes of the query, and what else the golden file tells of."""
        further = ["c1", self.method.backbone.blocks["c2"][-1]]
        return self.method.backbone(query, [*self.method.levels, *further])

    def _watch(self, ours: str, theirs: str) -> None:
        def keep(_: Any, __: tuple[Tensor], out: Tensor) -> None:
            self.maps[theirs].append(out.detach())

        self.method.get_submodule(ours).register_forward_hook(keep)

    def _train(
        self, features: Features, support: Tensor, masks: Tensor, query: Tensor
    ) -> dict[str, float]:
        """Losses and gradients with the features at hand: the backbone is frozen."""
        known = iter([features, self.query])
        self.method.encode = lambda _: next(known)  # type: ignore[method-assign]
        tensors = self.golden.tensors
        terms = self.method.loss_terms(
            support,
            masks,
            query,
            tensors["query_label"][None],
            base_masks=tensors["base_label"][None],
            base_class=torch.tensor(self.golden.facts["cat_idx"]).flatten()[0],
        )
        torch.stack([*terms.values()]).sum().backward()
        del self.method.encode
        self.gradients = {
            self.layout.published(name): float(p.grad.double().norm())
            for name, p in self.method.named_parameters()
            if p.grad is not None
        }
        return {name: float(term.detach()) for name, term in terms.items()}


@pytest.fixture(scope="module", params=GOLDENS)
def published(request: pytest.FixtureRequest, shared: Path) -> Run:
    return Run(read_golden(shared / "golden" / f"{request.param}.safetensors"))


def test_scores_are_the_published(published: Run) -> None:
    assert published.sha256 == published.golden.facts["state_sha256"]
    tensors = published.golden.tensors
    close(published.final, tensors["final_out"], ATOL, "final_out")
    close(published.meta, tensors["meta_out"], ATOL, "meta_out")
    check_prediction(published.final, tensors["pred"], ATOL)
    coarse = [k for k in tensors if k.startswith("base_out")]
    assert coarse
    for name in coarse:
        step = int((re.search(r"_s(\d+)$", name) or [0, "1"])[1])
        found = published.base[..., ::step, ::step]
        close(found, tensors[name], ATOL, name, 2**-11 if "_f16" in name else 0)
    check_statistics(published.base, published.golden.facts["base_out_stats"], ATOL, "base_out")


def test_maps_on_the_way_are_the_published(published: Run) -> None:
    tensors, facts = published.golden.tensors, published.golden.facts
    close(published.similarities, tensors["hyper_cat_before_conv"], ATOL, "hyper_cat_before_conv")
    close(published.seen["hyper_final"], tensors["hyper_final"], ATOL, "hyper_final")
    parts = published.parts
    close(parts["supp_pro"], tensors["supp_pro"], ATOL, "supp_pro")
    close(parts["corr_query_mask"], tensors["corr_query_mask"], ATOL, "corr_query_mask")
    assert set(facts["merge_in_stats"]) == set(parts)
    for name, wanted in facts["merge_in_stats"].items():
        spread = parts[name].expand(-1, -1, *parts["gam"].shape[-2:])
        check_statistics(spread, wanted, ATOL, name)
    for name, wanted in facts["head_stats"].items():
        check_statistics(published.seen[name.removeprefix("o_")], wanted, ATOL, name)


def test_features_are_the_published(published: Run) -> None:
    facts, method = published.golden.facts, published.method
    names = [name for group in method.groups for name in group]
    names = names if method.pooled else [method.backbone.blocks["c2"][-1], *names]
    levels, maps = ["c1", "c2", "c3", "c4", "c5"], dict(published.features)
    if not method.pooled:  # the published first layer ends with a pool
        maps["c1"] = F.max_pool2d(maps["c1"], 3, 2, 1)
    for kind, chosen in (("query_sim_feats", names), ("query_layers", levels)):
        for name, wanted in zip(chosen, facts[kind], strict=True):
            check_statistics(maps[name], wanted, ATOL, f"{kind} {name}")


def test_losses_and_gradients_are_the_published(published: Run) -> None:
    tensors, facts = published.golden.tensors, published.golden.facts
    for ours, theirs in (("main", "main_loss"), ("meta", "aux_loss1"), ("base", "aux_loss2")):
        assert abs(published.terms[ours] - float(tensors[theirs])) < 1e-5, ours
    check_gradients(published.gradients, facts["grad_l2"], rtol=1e-4, floor=1e-6)


def test_a_mask_resized_at_once_selects_other_positions(shared: Path) -> None:
    golden = read_golden(shared / "golden" / "msanet_resnet50_1shot.safetensors")
    mask = (golden.tensors["support_label_0"] == 1).float()[None, None]
    chained = chained_masks(mask, [(119, 119), (60, 60)])[-1]
    at_once = resize_corners(mask, (60, 60))
    assert [len(inside(m.flatten())) for m in (chained, at_once)] == [547, 568]  # METHODS.md, 4


@pytest.mark.parametrize("stem", KEYS)
def test_published_files_load_as_a_whole(stem: str, shared: Path) -> None:
    state = empty_state(read_keys(shared / "golden" / "keys" / f"{stem}.txt"))
    for value in state.values():
        value.fill_(1)
    checkpoint = read_checkpoint(state)
    shots = int(re.search(r"(\d+)shot", stem)[1])
    assert checkpoint.variant.shots == (shots,)
    assert checkpoint.variant.weights == "base-finetuned"
    assert checkpoint.protocol == "bam"
    method = create_from_checkpoint(checkpoint)
    assert checkpoint.variant.backbone in CARD["backbones"]
    assert all(bool((v == 1).all()) for v in method.state_dict().values())
    assert method.input_size == 473
    other = {k: v for k, v in state.items() if "kshot_rw" not in k}
    if shots == 1:
        other["kshot_rw.0.weight"] = torch.zeros(2, 5, 1, 1)
    with pytest.raises(WeightsError, match="kshot_rw"):
        load_checkpoint(method, other)


def test_resnet101_of_coco_loads(shared: Path) -> None:
    shapes = official_shapes("resnet101", 5)
    shapes |= {"learner_base.1.4.weight": (61, 512, 1, 1), "learner_base.1.4.bias": (61,)}
    method = create_from_checkpoint(read_checkpoint(empty_state(shapes)))
    assert (method.backbone.name, method.input_size) == ("resnet101_deepstem", 641)
    assert (method.shots, method.learner_base[1][4].out_channels) == (5, 61)


def test_layers_keep_their_order() -> None:
    for backbone, name in (("resnet50_deepstem", "msanet"), ("vgg16_bn_msanet", "msanet_vgg")):
        layout = layouts()[name]
        ours = [k for k in small(backbone).state_dict() if k.startswith("backbone.")]
        theirs = [layout.published(k) for k in ours]
        assert [layout.rename(k) for k in theirs] == ours
        numbers = [tuple(map(int, re.findall(r"\d+", k.rpartition(".")[0]))) for k in theirs]
        if name == "msanet_vgg":
            assert numbers == sorted(numbers)
        else:
            assert [n[0] for n in numbers] == sorted(n[0] for n in numbers)
            stem = [n for n in numbers if n[0] == 0]
            assert stem == sorted(stem)


def test_other_files_are_not_recognised() -> None:
    for name in ("msanet", "msanet_vgg"):
        assert layouts()[name].detect({"layer0.0.weight": torch.zeros(1)}) is None


@lru_cache
def small(name: str = "tf_efficientnet_lite0", **options: Any) -> MSANet:
    torch.manual_seed(0)
    method = create_method("msanet", create_backbone(name, weights="none"), **options)
    assert isinstance(method, MSANet)
    with torch.no_grad():
        method.ensemble.gram_merge.weight[0, 1] = 0.3
        method.ensemble.cls_merge.weight[0, 1] = 0.4
    return method


def episode(
    shots: int = 1, size: int = 97, ways: int = 1, batch: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    support = torch.rand(batch, ways, shots, 3, size, size, generator=generator)
    masks = torch.zeros(batch, ways, shots, size, size, dtype=torch.uint8)
    for w in range(ways):
        for k in range(shots):
            masks[:, w, k, 10 + 5 * k : 50 + 5 * k, 8 + 9 * w : 40 + 12 * k] = 1
    masks[..., :3, :] = 255
    return support, masks, torch.rand(batch, 3, size, size, generator=generator)


def inputs(method: MSANet, shots: int, size: int = 97) -> tuple[Features, Tensor, Features]:
    support, masks, query = episode(shots, size)
    with torch.no_grad():
        return method.encode(support[0, 0]), masks[0, 0], method.encode(query)


def test_weights_of_shots_follow_rank_or_input_order() -> None:
    distances = torch.tensor([0.3, 0.1, 0.2])
    for faulty, wanted in ((True, [0.5, 0.3, 0.2]), (False, [0.2, 0.5, 0.3])):
        weights = ShotWeights(3, by_input_order=faulty)
        with torch.no_grad():
            weights.kshot_rw[2].weight.zero_()
            weights.kshot_rw[2].bias.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
        torch.testing.assert_close(weights(distances), torch.tensor(wanted))
        assert weights(distances[:2]).tolist() == [0.5, 0.5]
    # the layers see the distances in ascending order
    weights = ShotWeights(3, by_input_order=True)
    expected = weights.kshot_rw(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)).flatten().softmax(0)
    torch.testing.assert_close(weights(distances), expected)
    assert ShotWeights(1, by_input_order=True)(distances).tolist() == pytest.approx([1 / 3] * 3)


def test_only_the_corrected_form_does_not_care_for_the_order_of_shots() -> None:
    for official in (True, False):
        method = small(shots=3, official=official)
        with torch.no_grad():
            method.shot_weights.kshot_rw[2].bias.copy_(torch.tensor([2.0, 0.0, -2.0]))
        support, masks, query = inputs(method, shots=3)
        turned = {level: maps.flip(0) for level, maps in support.items()}
        with torch.no_grad():
            one = method.segment_one(support, masks, query)
            other = method.segment_one(turned, masks.flip(0), query)
        assert method.shots_commute is not official
        assert torch.allclose(one, other, atol=1e-5) is method.shots_commute


def test_shots_commute_is_said_where_it_holds() -> None:
    assert small().shots_commute
    assert not small("vgg16_bn_msanet").shots_commute


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vgg16_bn_msanet"])
def test_the_same_shot_three_times_says_no_more_than_once(name: str) -> None:
    method = small(name)
    support, masks, query = inputs(method, shots=1)
    thrice = {level: maps.repeat(3, 1, 1, 1) for level, maps in support.items()}
    with torch.no_grad():
        once = method.segment_one(support, masks, query)
        found = method.segment_one(thrice, masks.repeat(3, 1, 1), query)
    torch.testing.assert_close(found, once, atol=1e-5, rtol=0)


def slow_map(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Mean positive cosine [1, 1, h, w] of all cells: query, support [1, C, h, w], mask [h, w]."""
    kept = inside(mask.flatten())
    cells, others = query[0].flatten(1), support[0].flatten(1)[:, kept] * mask.flatten()[kept]
    cells, others = (maps / (maps.norm(dim=0) + 1e-5) for maps in (cells, others))
    cosines = (others.T @ cells).clamp(min=0).sum(dim=0) / max(1, len(kept))
    return cosines.view(1, 1, *query.shape[-2:])


def slow_prior(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Highest cosine of all cells, stretched: arguments as in `slow_map`."""
    cells, others = query[0].flatten(1), (support[0] * mask).flatten(1)
    cosines = others.T @ cells / (others.norm(dim=0)[:, None] * cells.norm(dim=0) + 1e-7)
    best = cosines.amax(dim=0)
    best = (best - best.min()) / (best.max() - best.min() + 1e-7)
    return best.view(1, 1, *query.shape[-2:])


def slow_similarities(
    method: MSANet, support: Features, masks: Tensor, query: Features
) -> list[Tensor]:
    """Maps [K, 1, h, w] of every block at the size of c4."""
    on = (masks == 1).float()[:, None]
    names = [name for group in method.groups for name in group]
    first = [] if method.pooled else ["c2"]
    sizes = [(query[name].shape[-2], query[name].shape[-1]) for name in (*first, *names)]
    resized = chained_masks(on, sizes)[len(first) :]
    size = (query["c4"].shape[-2], query["c4"].shape[-1])
    return [
        torch.cat(
            [
                resize_corners(slow_map(query[n], support[n][k : k + 1], m[k, 0]), size)
                for k in range(len(masks))
            ]
        )
        for n, m in zip(names, resized, strict=True)
    ]


def slow_scores(
    method: MSANet, support: Features, masks: Tensor, query: Features, base_class: int | None
) -> Scores:
    """The published order of operations: maps joined, one convolution of all, all cells."""
    size = (query["c4"].shape[-2], query["c4"].shape[-1])
    on, deep = (masks == 1).float()[:, None], support["c5"]

    def gram(maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        lengths = flat.norm(dim=2)
        return flat @ flat.mT / (lengths[:, :, None] * lengths[:, None] + 1e-7)

    def reduced(maps: Features, layers: torch.nn.Module) -> Tensor:
        return layers(torch.cat([maps["c4"], resize_corners(maps["c3"], size)], dim=1))

    distances = (gram(query["c3"]) - gram(support["c3"])).flatten(1).norm(dim=1)
    distances = distances / query["c3"].shape[1]
    weights = method.shot_weights(distances)[:, None, None, None]
    shown = reduced(support, method.down_supp)
    sized, near = resize_corners(on, size), F.interpolate(on, size, mode="nearest")
    areas = sized.sum((2, 3), keepdim=True) + 0.0005
    prototypes = (shown * sized).sum((2, 3), keepdim=True) / areas
    under = resize_corners(on, (deep.shape[-2], deep.shape[-1]))
    priors = [slow_prior(query["c5"], d[None], m[0]) for d, m in zip(deep, under, strict=True)]
    found = slow_similarities(method, support, masks, query)
    last = len(method.groups[0]) if method.official and method.pooled else 0
    maps = [m[-1:] if i < last else m.mean(0, keepdim=True) for i, m in enumerate(found)]
    gated = method.gate((shown * near).mean((2, 3), keepdim=True)) * shown
    joined = [
        reduced(query, method.down_query),
        (weights * prototypes).sum(0, keepdim=True).expand(-1, -1, *size),
        method.hyper_final(torch.cat(maps, dim=1)),
        (weights * resize_corners(torch.cat(priors), size)).sum(0, keepdim=True),
        gated.mean(0, keepdim=True),
    ]
    learner = method.meta
    y = learner.res1(learner.aspp(learner.init_merge(torch.cat(joined, dim=1))))
    meta = learner.cls(learner.res2(y) + y)
    base = torch.nn.Sequential.forward(method.learner_base, query["c5"])
    base = resize_corners(base, size)
    unlike = (weights.flatten() * distances).sum()
    return Scores(method.ensemble(meta, base, unlike, base_class), meta, base)


def hard_masks(masks: Tensor, kind: str) -> Tensor:
    """Masks with the last one empty, of one pixel, or whole."""
    masks = masks.clone()
    if kind == "empty":
        masks[-1] = 0
    elif kind == "pixel":
        masks[-1], masks[-1, 48, 48] = 0, 1
    elif kind == "whole":
        masks[-1] = 1
    return masks


@pytest.mark.parametrize("kind", ["plain", "empty", "pixel", "whole"])
@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vgg16_bn_msanet"])
def test_scores_equal_the_slow_formulas(name: str, shots: int, kind: str) -> None:
    for official in (True, False):
        method = small(name, shots=shots, official=official)
        support, masks, query = inputs(method, shots)
        masks = hard_masks(masks, kind)
        with torch.no_grad():
            found = method.score(*parts_of(method, support, masks, query), base_class=2)
            wanted = slow_scores(method, support, masks, query, 2)
        for ours, slow in zip(found, wanted, strict=True):
            assert ours.shape == slow.shape
            torch.testing.assert_close(ours, slow, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "rtol"),
    # one unit of thousands may be at the kink of its ReLU, and moves these by 3e-3
    [("tf_efficientnet_lite0", 1e-2), ("vgg16_bn_msanet", 1e-4)],
)
def test_gradients_equal_those_of_the_slow_formulas(name: str, rtol: float) -> None:
    method = small(name, shots=2)
    support, masks, query = inputs(method, shots=2)
    support, query = (
        {k: v.requires_grad_() for k, v in given.items()} for given in (support, query)
    )
    gradients = []
    for scores in (
        method.score(*parts_of(method, support, masks, query)),
        slow_scores(method, support, masks, query, None),
    ):
        method.zero_grad(set_to_none=True)
        for given in (support, query):
            for maps in given.values():
                maps.grad = None
        (scores.final[:, 1].square().mean() + scores.meta[:, 0].sin().mean()).backward()
        sources = [*method.named_parameters(), *support.items(), *query.items()]
        gradients.append([(n, p.grad.clone()) for n, p in sources if p.grad is not None])
    method.zero_grad(set_to_none=True)
    found, wanted = gradients
    assert [n for n, _ in found] == [n for n, _ in wanted]
    assert {"c3", "c4", "c5", *(n for group in method.groups for n in group)} <= {
        n for n, _ in found
    }
    for (n, ours), (_, slow) in zip(found, wanted, strict=True):
        assert (ours - slow).norm() <= rtol * slow.norm(), n


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vgg16_bn_msanet"])
def test_an_episode_is_answered_alike_to_the_bit_alone_and_among_others(name: str) -> None:
    method = small(name)
    generator = torch.Generator().manual_seed(5)
    support = torch.rand(2, 1, 2, 3, 97, 97, generator=generator)
    masks, query = episode(2, batch=2)[1], torch.rand(2, 3, 97, 97, generator=generator)
    masks[1, 0, 0] = masks[1, 0, 0].T.clone()
    with torch.no_grad():
        maps = {
            k: v.reshape(2, 1, 2, *v.shape[1:])
            for k, v in method.encode(support.flatten(0, 2)).items()
        }
        asked = method.encode(query)
        both = method.segment(maps, masks, asked)
        for b in range(2):
            alone = method.segment(
                {k: v[b : b + 1] for k, v in maps.items()},
                masks[b : b + 1],
                {k: v[b : b + 1] for k, v in asked.items()},
            )
            assert torch.equal(alone[0], both[b])
    assert not torch.equal(both[0], both[1])


def test_parts_do_not_know_of_each_other_and_keep_what_is_inside() -> None:
    method = small()
    support, masks, query = inputs(method, shots=2)
    copies = {level: maps.clone() for level, maps in (*support.items(), *query.items())}
    with torch.no_grad():
        shots, own = parts_of(method, support, masks, query)
        (alone,), _ = parts_of(method, {k: v[1:] for k, v in support.items()}, masks[1:], query)
    for name, value in alone.items():
        assert torch.equal(value, shots[1][name]), name
    assert all(torch.equal(maps, copies[level]) for level, maps in query.items())
    for s, stack in enumerate(method.stacks):
        assert own[f"cells{s}"].shape[:3] == (len(stack), *query[stack[0]].shape[-2:])
        kept = shots[0][f"cells{s}"].shape[1]
        assert 0 < kept < query[stack[0]][0, 0].numel()
    for part in (*shots, own):
        assert all(value.is_contiguous() for name, value in part.items() if "cells" in name)


def test_vgg_takes_the_first_group_from_the_last_shot() -> None:
    method = small("vgg16_bn_msanet")
    assert [len(group) for group in method.groups] == [3, 3, 1]
    assert [len(stack) for stack in method.stacks] == [3, 3, 1]
    support, masks, query = inputs(method, shots=2, size=65)
    sizes = [tuple(query[n].shape[-2:]) for group in method.groups for n in group]
    assert sizes == [(9, 9)] * 3 + [(5, 5)] * 4
    each = slow_similarities(method, support, masks, query)
    with torch.no_grad():
        parts = parts_of(method, support, masks, query)
        found = method.similarities(*parts)
        method.official = False
        mended = method.similarities(*parts)
        method.official = True
    for index, maps in enumerate(each):
        mean = maps.mean(dim=0)
        torch.testing.assert_close(mended[:, index], mean, atol=1e-6, rtol=0)
        wanted = maps[-1] if index < 3 else mean
        torch.testing.assert_close(found[:, index], wanted, atol=1e-6, rtol=0)
    assert not torch.allclose(found[:, 0], mended[:, 0], atol=1e-4)


def test_chain_of_masks_starts_at_c2_where_blocks_are_whole_stages() -> None:
    method = small()
    assert [len(group) for group in method.groups] == [2, 3, 1]
    support, masks, query = inputs(method, shots=1)
    rows, columns = torch.meshgrid(torch.arange(97), torch.arange(97), indexing="ij")
    masks = ((rows - 50) ** 2 + (columns - 40) ** 2 < 500)[None].to(torch.uint8)
    assert query["c2"].shape == (1, 0, 25, 25)
    on = (masks == 1).float()[:, None]
    name = method.groups[0][0]
    weights = chained_masks(on, [(25, 25), (13, 13)])[-1]
    wanted = resize_corners(slow_map(query[name], support[name], weights[0, 0]), (7, 7))
    with torch.no_grad():
        found = method.similarities(*parts_of(method, support, masks, query))
    torch.testing.assert_close(found[:, :1], wanted, atol=1e-6, rtol=0)
    at_once = slow_map(query[name], support[name], resize_corners(on, (13, 13))[0, 0])
    assert not torch.allclose(wanted, resize_corners(at_once, (7, 7)), atol=1e-4)


@pytest.mark.parametrize("name", ["resnet50", "resnet50_deepstem", "vgg16", "vgg16_bn_msanet"])
@pytest.mark.parametrize("size", [64, 97])
def test_any_backbone_and_side(name: str, size: int) -> None:
    method = small(name)
    support, masks, query = episode(shots=2, size=size)
    with torch.no_grad():
        logits = method(support, masks, query)
    assert logits.shape == (1, 2, size, size)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_uniform_masks_give_finite_scores(value: int, dtype: torch.dtype | None) -> None:
    method = small()
    support, masks, query = episode()
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = method(support, torch.full_like(masks, value), query)
    assert logits.isfinite().all()


def test_bf16_is_close_to_fp32() -> None:
    method = small()
    given = episode(shots=2)
    with torch.no_grad():
        plain = method(*given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = method(*given)
    assert under.dtype == torch.float32
    assert (plain - under).abs().max() < 0.05


def test_several_ways_are_as_many_questions() -> None:
    method = small()
    support, masks, query = episode(ways=2)
    with torch.no_grad():
        both = method(support, masks, query)
        alone = [method(support[:, w : w + 1], masks[:, w : w + 1], query) for w in range(2)]
    assert both.shape == (1, 3, 97, 97)
    for w in range(2):
        wanted = alone[w][:, 1] - alone[w][:, 0]
        torch.testing.assert_close(both[:, w + 1], wanted, atol=1e-5, rtol=0)


def test_what_is_frozen_stays_so_in_training() -> None:
    method = small()
    method.train()
    assert not any(m.training for m in method.backbone.modules())
    assert not any(m.training for m in method.learner_base.modules())
    assert not method.hyper_final[1].training
    assert method.meta.training
    assert method.down_query.training
    support, masks, query = episode()
    before = {k: v.clone() for k, v in method.named_buffers()}
    loss = method.loss(support, masks, query, masks[:, 0, 0], base_masks=masks[:, 0, 0])
    loss.backward()
    method.eval()
    with_gradient = {n for n, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    frozen = ("backbone.", "learner_base.")
    assert with_gradient == {n for n, _ in method.named_parameters() if not n.startswith(frozen)}
    assert all(torch.equal(v, before[k]) for k, v in method.named_buffers())


def test_losses_are_cross_entropies_of_the_three_answers() -> None:
    method = small()
    support, masks, query = episode(batch=2, ways=2)
    labels = torch.zeros(2, 97, 97, dtype=torch.uint8)
    labels[:, 20:50, 20:60], labels[:, 60:80, 5:30], labels[:, :4] = 1, 2, 255
    base_labels = torch.zeros(2, 97, 97, dtype=torch.uint8)
    base_labels[:, 50:, 50:], base_labels[0, :9] = 7, 255
    classes = torch.tensor([[3, 6], [6, 0]])
    with torch.no_grad():
        terms = method.loss_terms(support, masks, query, labels, base_labels, classes)
        sums = {"main": 0.0, "meta": 0.0}
        base_loss = 0.0
        for b in range(2):
            own = method.encode(query[b : b + 1])
            for w in range(2):
                parts = parts_of(method, method.encode(support[b, w]), masks[b, w], own)
                scores = method.score(*parts, int(classes[b, w]))
                truth = (labels[b] == w + 1).long()
                truth[labels[b] == 255] = 255
                for name, logits in (("main", scores.final), ("meta", scores.meta)):
                    large = F.interpolate(logits, (97, 97), mode="bilinear", align_corners=True)
                    sums[name] += float(
                        F.cross_entropy(large, truth[None], ignore_index=255, reduction="sum")
                    ) / int((truth != 255).sum())
            large = F.interpolate(scores.base, (97, 97), mode="bilinear", align_corners=True)
            base_loss += float(
                F.cross_entropy(
                    large, base_labels[b : b + 1].long(), ignore_index=255, reduction="sum"
                )
            ) / int((base_labels[b] != 255).sum())
        bare = method.loss_terms(support, masks, query, labels)
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {
            "main": sums["main"] / 4,
            "meta": sums["meta"] / 4,
            "base": base_loss / 2,
        },
        rel=1e-5,
    )
    assert set(bare) == {"main", "meta"}
    assert float(bare["main"]) != pytest.approx(float(terms["main"]), rel=1e-6)


def test_base_classes_but_the_one_in_question_are_background() -> None:
    ensemble = small().ensemble
    meta = torch.tensor([0.2, 1.1]).view(1, 2, 1, 1)
    base = torch.arange(4.0).view(1, 4, 1, 1)
    p, r = meta.flatten().softmax(0), base.flatten().softmax(0)
    for excluded, others in ((None, r[1] + r[2] + r[3]), (1, r[1] + r[3])):
        with torch.no_grad():
            found = ensemble(meta, base, torch.tensor(0.5), excluded).flatten()
        wanted = [p[0] + 0.3 * 0.5 + 0.4 * others, p[1] + 0.3 * 0.5]
        torch.testing.assert_close(found, torch.stack(wanted))


def test_the_ensemble_begins_as_the_meta_learner() -> None:
    method = create_method("msanet", create_backbone("tf_efficientnet_lite0", weights="none"))
    for blend in (method.ensemble.gram_merge, method.ensemble.cls_merge):
        assert blend.weight.flatten().tolist() == [1.0, 0.0]


def test_card_counts_what_is_trained() -> None:
    found = {}
    for name in CARD["backbones"]:
        method = small(name)
        found[name] = sum(p.numel() for p in method.parameters() if p.requires_grad)
        assert method.input_size == CARD["input_size"]
    assert found == CARD["backbones"]


def test_card_is_a_literal() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CARD"
    ]
    assert [ast.literal_eval(value) for value in values] == [CARD]


def test_mistakes_are_named() -> None:
    info = WeightsInfo("none", None)
    flat = Backbone("flat", {"c4": Level(8, 16), "c5": Level(8, 32)}, (0, 0, 0), (1, 1, 1), info)
    with pytest.raises(FssBenchError, match="backbone flat has c4, c5: choose another --backbone"):
        MSANet(flat)
    for options in ({"shots": 0}, {"base_classes": 0}):
        with pytest.raises(FssBenchError, match="must be 1 or more"):
            MSANet(create_backbone("tf_efficientnet_lite0", weights="none"), **options)


def test_input_sides_are_the_published() -> None:
    backbone = create_backbone("resnet50_deepstem", weights="none")
    assert MSANet(backbone).input_size == 473
    assert MSANet(backbone, base_classes=60).input_size == 641
    assert MSANet(backbone, input_size=321).input_size == 321


def test_pyramids_join_their_parts_in_order() -> None:
    maps = torch.rand(1, 4, 7, 7)
    pooled = PyramidPooling(4, 3).eval()
    found = pooled(maps)
    assert found.shape == (1, 16, 7, 7)
    assert torch.equal(found[:, :4], maps)
    thirds = F.adaptive_avg_pool2d(maps, 3)
    thirds = F.conv2d(thirds, pooled.features[2][1].weight)
    thirds = pooled.features[2][2](thirds).relu()
    wanted = F.interpolate(thirds, (7, 7), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found[:, 10:13], wanted)
    atrous = ASPP(4)
    found = atrous(maps)
    whole = F.conv2d(maps.mean((2, 3), keepdim=True), *atrous.branches[0][0].parameters()).relu()
    torch.testing.assert_close(found[:, :4], whole.expand(-1, -1, 7, 7))
    for branch, dilation in ((2, 6), (3, 12), (4, 18)):
        weight, bias = atrous.branches[branch][0].parameters()
        wanted = F.conv2d(maps, weight, bias, padding=dilation, dilation=dilation).relu()
        torch.testing.assert_close(found[:, 4 * branch : 4 * branch + 4], wanted)


@pytest.mark.parametrize("size", [(7, 7), (9, 5), (1, 1), (6, 3)])
def test_a_convolution_is_spread_from_the_cells_of_a_grid(size: tuple[int, int]) -> None:
    weight = torch.randn(5, 4, 3, 3)
    for grid in ((1, 1), (2, 2), (3, 3), (6, 6), (2, 3)):
        cells = torch.randn(2, 4, *grid)
        wanted = F.conv2d(
            F.interpolate(cells, size, mode="bilinear", align_corners=True), weight, padding=1
        )
        found = spread_convolution(cells, weight, size)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 12), (13, 9), (4, 4)])
def test_the_base_learner_is_the_same_where_nothing_learns(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head = psp_head(16, 5).eval()
    for norm in (m for m in head.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    maps = torch.randn(2, 16, *size)
    wanted = torch.nn.Sequential.forward(head, maps)
    assert torch.equal(head(maps), wanted)
    with torch.no_grad():
        found = head(maps)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.equal(found, wanted)
