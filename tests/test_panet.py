from pathlib import Path

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
    gradients,
    read_golden,
    read_keys,
    recipe_state,
    state_sha256,
)
from torch import Tensor

from fss_bench import create_backbone, create_method
from fss_bench.checkpoint import layouts
from fss_bench.checkpoint_loading import load_checkpoint
from fss_bench.methods.panet import PANet
from fss_bench.ops import masked_average_pool, resize_logits

FILES = [p.stem for p in golden_files(SHARED / "golden", "panet_*")]


def panet(level: str = "c3", **options: float) -> PANet:
    method = create_method(
        "panet", create_backbone("tf_efficientnet_lite0", weights="none"), level=level, **options
    )
    assert isinstance(method, PANet)
    return method


def slow_scores(method: PANet, level: str, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Section 3.2 and 3.3 of the paper, one episode, by upsampling and loops: [1 + N, h, w]."""
    ways, shots, side = support.shape[0], support.shape[1], support.shape[-1]
    foreground, background = [], []
    for way in range(ways):
        for shot in range(shots):
            features = method.backbone(support[way, shot][None], [level])[level]
            large = F.interpolate(features, (side, side), mode="bilinear", align_corners=False)[0]
            pools = []
            for value in (1, 0):
                inside = masks[way, shot] == value
                pools.append(large[:, inside].sum(dim=1) / (inside.sum() + 1e-5))
            foreground.append(pools[0])
            background.append(pools[1])
    prototypes = [torch.stack(background).mean(dim=0)]
    for way in range(ways):
        prototypes.append(torch.stack(foreground[way * shots : (way + 1) * shots]).mean(dim=0))
    cells = method.backbone(query[None], [level])[level][0]
    return torch.stack([F.cosine_similarity(cells, p[:, None, None], dim=0) for p in prototypes])


def episode(ways: int, shots: int, size: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    support = torch.rand(ways, shots, 3, size, size, generator=generator)
    masks = torch.randint(0, 2, (ways, shots, size // 8, size // 8), generator=generator)
    masks = masks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).to(torch.uint8)
    masks[..., :3, :] = 255
    return support, masks, torch.rand(3, size, size, generator=generator)


def test_scores_equal_the_slow_formula() -> None:
    method = panet("c3")
    support, masks, query = episode(ways=2, shots=2)
    logits = method(support[None], masks[None], query[None])[0]
    wanted = 20 * slow_scores(method, "c3", support, masks, query)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


def test_several_levels_average_their_scores_at_the_finest() -> None:
    method = panet("c3+c4", scale=1.0)
    support, masks, query = episode(ways=1, shots=1)
    fine = slow_scores(method, "c3", support, masks, query)
    coarse = slow_scores(method, "c4", support, masks, query)[None]
    coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)[0]
    logits = method(support[None], masks[None], query[None])[0]
    torch.testing.assert_close(logits, (fine + coarse) / 2, atol=1e-4, rtol=0)


def test_default_level_and_size_come_from_the_backbone() -> None:
    method = create_method("panet", create_backbone("tf_efficientnet_lite0", weights="none"))
    assert (method.levels, method.input_size) == (("c5_0",), 384)
    method = create_method("panet", create_backbone("resnet50", weights="none"))
    assert (method.levels, method.input_size) == (("c4",), 417)
    method = create_method("panet", create_backbone("resnet50", weights="none"), input_size=321)
    assert method.input_size == 321


def published_state(shared: Path) -> dict[str, Tensor]:
    return recipe_state(read_keys(shared / "golden/keys/panet_vgg16_keys.txt"), {})


def published(shared: Path, golden: Golden) -> PANet:
    backbone = create_backbone("vgg16_panet", weights="none")
    method = create_method("panet", backbone, align=golden.facts["align"])
    report = load_checkpoint(method, published_state(shared))
    assert (report.loaded, report.dropped) == (26, {})
    assert isinstance(method, PANet)
    return method


def golden_episode(golden: Golden) -> tuple[Tensor, Tensor, Tensor]:
    """Supports [1, N, K, 3, H, W], their masks, and all queries [Q, 3, H, W]."""
    ways, shots = golden.facts["way"], golden.facts["shots"]
    names = [[f"{w}_{k}" for k in range(shots)] for w in range(ways)]
    images = [[golden.image(f"support_img_u8_{n}") for n in way] for way in names]
    masks = [[golden.tensors[f"support_mask_{n}"] for n in way] for way in names]
    queries = golden.numbered("query_img_u8_") or ["query_img_u8"]
    return (
        torch.stack([torch.stack(way) for way in images])[None],
        torch.stack([torch.stack(way) for way in masks])[None],
        torch.stack([golden.image(q) for q in queries]),
    )


@pytest.mark.parametrize("name", FILES)
def test_equals_the_published_network(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    assert state_sha256(published_state(shared)) == golden.facts["state_sha256"]
    method, wanted = published(shared, golden), golden.tensors
    support, masks, queries = golden_episode(golden)
    size = (queries.shape[-2], queries.shape[-1])
    with torch.no_grad():
        features = method.encode(support.flatten(0, 2))["c5"]
        query = method.encode(queries)["c5"]
        logits = [method(support, masks, q[None]) for q in queries]
    scores = resize_logits(torch.cat(logits), size)
    close(scores, wanted["scores"], 1e-4, "scores")
    check_prediction(scores, wanted["pred"], 1e-4)
    check_statistics(torch.cat([features, query]), golden.facts["features"], 1e-4, "features")
    for key, value in (("fg_prototype_each_shot", 1), ("bg_prototype_each_shot", 0)):
        pooled = masked_average_pool(features, masks.flatten(0, 2) == value)
        close(pooled, wanted[key].reshape(pooled.shape), 1e-4, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_losses_and_gradients_equal_the_published_ones(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    method, wanted = published(shared, golden), golden.tensors
    support, masks, queries = golden_episode(golden)
    terms = method.loss_terms(support, masks, queries, wanted["query_label"][None])
    close(terms["query"], wanted["query_loss"], 1e-5)
    close(terms.get("alignment", torch.zeros(())), wanted["align_loss"], 1e-5)
    loss = torch.stack(list(terms.values())).sum()
    close(loss, wanted["total_loss_train"], 1e-5)
    found = gradients(method, loss, layouts()["panet"].published)
    check_gradients(found, golden.facts["grad_l2_train"], rtol=1e-4, floor=1e-6)


def slow_alignment(method: PANet, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Section 3.4 by loops: one episode of features [N, K, C, h, w] and query [C, h, w]."""
    ways, shots = masks.shape[:2]
    at = method.levels[0]
    logits = method.segment({at: support[None]}, masks[None], {at: query[None]})[0]
    chosen = logits.argmax(dim=0)
    vectors = [
        (query * (chosen == i)).sum(dim=(1, 2)) / ((chosen == i).sum() + 1e-5)
        for i in range(1 + ways)
    ]
    total = torch.zeros(())
    for way in range(ways):
        if not (chosen == 1 + way).any():
            continue
        for shot in range(shots):
            scores = [
                F.cosine_similarity(support[way, shot], v[:, None, None], dim=0)
                for v in (vectors[0], vectors[1 + way])
            ]
            large = F.interpolate(20 * torch.stack(scores)[None], masks.shape[-2:], mode="bilinear")
            labels = masks[way, shot].long()[None]
            total = total + F.cross_entropy(large, labels, ignore_index=255) / (ways * shots)
    return total


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (2, 3)])
def test_alignment_equals_loops(ways: int, shots: int) -> None:
    method = panet()
    generator = torch.Generator().manual_seed(3)
    support = torch.randn(ways, shots, 16, 6, 6, generator=generator)
    masks = torch.randint(0, 3, (ways, shots, 24, 24), generator=generator)
    masks = torch.where(masks == 2, 255, masks)
    query = torch.randn(16, 6, 6, generator=generator)
    maps, asked = {"c3": support[None]}, {"c3": query[None]}
    logits = method.segment(maps, masks[None], asked)
    found = method.alignment(maps, masks[None], asked, logits)
    wanted = slow_alignment(method, support, masks, query)
    assert wanted > 0
    close(found, wanted, 1e-5)


def test_a_way_that_is_predicted_nowhere_still_counts_in_the_mean() -> None:
    method = panet()
    query, support = torch.randn(1, 16, 4, 4), torch.randn(1, 2, 1, 16, 4, 4)
    masks = torch.randint(0, 2, (1, 2, 1, 16, 16))
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1] = 1  # way 1 everywhere, way 2 nowhere
    both = method.alignment({"c3": support}, masks, {"c3": query}, logits)
    alone = method.alignment({"c3": support[:, :1]}, masks[:, :1], {"c3": query}, logits[:, :2])
    assert alone > 0
    close(both, alone / 2, 1e-6)


def test_low_resolution_masks_are_another_method() -> None:
    features = torch.randn(1, 8, 5, 5)
    mask = torch.zeros(1, 41, 41)
    mask[:, 7:20, 13:30] = 1
    exact = masked_average_pool(features, mask)
    low = F.interpolate(mask[None], (5, 5), mode="bilinear")[0]
    coarse = (features * low[:, None]).sum(dim=(2, 3)) / low.sum()
    assert (exact - coarse).abs().max() > 1e-2
