from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
from parity import (
    check_gradients,
    check_prediction,
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
from fss_bench.checkpoint import layouts, read_checkpoint
from fss_bench.checkpoint_loading import create_from_checkpoint
from fss_bench.errors import WeightsError
from fss_bench.fcn import annotation_grid, bilinear_kernel, decode
from fss_bench.methods.guided import GuidedNetwork
from fss_bench.revolver import FIXED

VARIANTS = ("cofeat-late", "cofeat-late-lite")
FILES = [
    p.stem
    for p in golden_files(SHARED / "golden", "revolver_*")
    if p.stem.split("_")[1] in VARIANTS
]


def published_state(shared: Path, variant: str) -> dict[str, Tensor]:
    shapes = read_keys(shared / f"golden/keys/revolver_{variant}_keys.txt")
    constants = {name: fixed(shapes[name]) for name, fixed in FIXED.items() if name in shapes}
    for name in ("z", "num_z"):
        if name in shapes:
            constants[name] = torch.zeros(shapes[name])
    return recipe_state(shapes, constants)


@pytest.fixture
def small() -> GuidedNetwork:
    backbone = create_backbone("tf_efficientnet_lite0", weights="none")
    method = create_method("guided", backbone, width=8)
    assert isinstance(method, GuidedNetwork)
    return method


@pytest.mark.parametrize("name", FILES)
def test_equals_the_published_network(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    state = published_state(shared, golden.facts["variant"])
    assert state_sha256(state) == golden.facts["state_sha256"]
    method = create_from_checkpoint(read_checkpoint(state))
    assert isinstance(method, GuidedNetwork)
    query, wanted = golden.image("query_img_u8")[None], golden.tensors
    with torch.no_grad():
        features = [method.encode(image)["fc6"][0] for image, _ in golden.supports()]
        guide = method.guide([features], [[mask[0] for _, mask in golden.supports()]])
        size = (query.shape[-2], query.shape[-1])
        scores = method.answer(method.encode(query), guide, size)
    close(guide.vectors, wanted["guide_z"], 1e-5 * float(wanted["guide_z"].abs().max()), "guide_z")
    close(scores, wanted["scores"], 1e-5 * float(wanted["scores"].abs().max()), "scores")
    check_prediction(scores, wanted["pred"], 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_loss_and_gradients_equal_the_published_ones(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    method = create_from_checkpoint(
        read_checkpoint(published_state(shared, golden.facts["variant"]))
    )
    assert isinstance(method, GuidedNetwork)
    loss = method.loss(*golden.episode(), golden.tensors["query_mask"][None])
    close(loss, golden.tensors["loss_eval"], 1e-4)
    found = gradients(method, loss, layouts()["guided"].published)
    wanted = golden.facts.get("grad_l2_eval_mode", {})
    check_gradients({k: v for k, v in found.items() if wanted}, wanted, rtol=1e-3, floor=1e-6)


def test_a_published_file_loads_and_its_guide_and_kernels_are_left_out(shared: Path) -> None:
    state = published_state(shared, "cofeat-late-lite")
    method = create_from_checkpoint(read_checkpoint(state))
    renamed = {layouts()["guided"].rename(n) for n in state if n not in FIXED}
    assert renamed - {"z", "num_z"} == set(method.state_dict())
    state["decoder.weight"] = state["decoder.weight"] + 0.1
    with pytest.raises(WeightsError, match=r"decoder\.weight is a constant"):
        create_from_checkpoint(read_checkpoint(state))


@pytest.mark.slow
def test_the_wide_published_file_loads(shared: Path) -> None:
    method = create_from_checkpoint(read_checkpoint(published_state(shared, "cofeat-late")))
    assert isinstance(method, GuidedNetwork)
    assert method.width == 4096


def slow_scores(method: GuidedNetwork, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """One episode by the paper: pool each support a class, mean, tile, concatenate, two layers."""
    ways, shots = masks.shape[:2]
    vectors = []
    for class_id in range(1 + ways):
        pooled = []
        for way in range(ways):
            if class_id not in (0, 1 + way):
                continue
            for shot in range(shots):
                marked = (masks[way, shot] == (class_id > 0)).float()
                if marked.sum() == 0:
                    continue
                grid = F.adaptive_avg_pool2d(marked[None, None], support.shape[-2:])[0, 0]
                pooled.append((support[way, shot] * grid).sum(dim=(1, 2)) / (1e-6 + grid.sum()))
        vectors.append(torch.stack(pooled).mean(dim=0) if pooled else torch.zeros(method.width))
    scores = []
    for vector in vectors:
        tiled = vector[None, :, None, None].expand(1, -1, *query.shape[-2:])
        scores.append(method.score(F.relu(method.fc7(torch.cat([query, tiled], dim=1)))))
    return torch.cat(scores, dim=1)


def test_equals_a_slow_network(small: GuidedNetwork) -> None:
    generator = torch.Generator().manual_seed(0)
    support = torch.rand(2, 3, 3, 96, 96, generator=generator)
    masks = torch.randint(0, 2, (2, 3, 96, 96), generator=generator)
    masks[1, 2] = 0  # a support without foreground
    query = torch.rand(1, 3, 96, 96, generator=generator)
    with torch.no_grad():
        features = small.encode(support.flatten(0, 1))["fc6"].unflatten(0, (2, 3))
        slow = slow_scores(small, features, masks, small.encode(query)["fc6"])
        close(small(support[None], masks[None], query), slow, 1e-5)


def test_the_guide_grows_support_by_support(small: GuidedNetwork) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(1, 4, 8, 3, 3, generator=generator)
    masks = torch.randint(0, 2, (1, 4, 96, 96), generator=generator)
    guide = small.empty_guide()
    for shot in range(4):
        before = guide.vectors.clone()
        mask = masks[0, shot]
        later = small.update(guide, features[0, shot], torch.stack([mask == 0, mask == 1]).float())
        assert torch.equal(guide.vectors, before)  # the given guide stays
        guide = later
        whole = small.guide(features[:, : shot + 1], masks[:, : shot + 1])
        close(guide.vectors, whole.vectors, 1e-6)
    assert guide.counts.tolist() == [4, 4]


def test_a_support_without_annotation_ends_the_published_guide(small: GuidedNetwork) -> None:
    features = torch.rand(1, 3, 8, 3, 3)
    masks = torch.randint(0, 2, (1, 3, 96, 96))
    masks[0, 1] = 255
    assert small.guide(features, masks).counts.tolist() == [1, 1]
    small.official = False
    corrected = small.guide(features, masks)
    assert corrected.counts.tolist() == [2, 2]
    kept = small.guide(features[:, [0, 2]], masks[:, [0, 2]])
    close(corrected.vectors, kept.vectors, 1e-6)


def test_one_point_guides_with_the_features_under_it(small: GuidedNetwork) -> None:
    features = torch.rand(1, 1, 8, 3, 3)
    masks = torch.full((1, 1, 96, 96), 255)
    masks[0, 0, 40, 80] = 1  # cell (1, 2)
    guide = small.guide(features, masks)
    assert guide.counts.tolist() == [0, 1]
    close(guide.vectors[1], features[0, 0, :, 1, 2], 1e-2)  # 1e-6 is added to a 1/1024 of a cell
    assert guide.vectors[0].eq(0).all()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (417, 417), (64, 65), (333, 500)])
def test_the_decoder_reads_linearly_with_zeros_outside(height: int, width: int) -> None:
    cells = (-(-height // 32) - 1, -(-width // 32) - 1)
    scores = torch.rand(1, 2, *cells)
    found = decode(scores, (height, width), aligned=True)
    padded = F.pad(scores, (1, 1, 1, 1))
    for y, x in ((0, 0), (height // 2, width // 3), (height - 1, width - 1), (31, 32)):
        at = [(y + 0.5) / 32 - 1 + 1, (x + 0.5) / 32 - 1 + 1]  # in the padded grid
        low = [int(a) for a in at]
        part = [a - b for a, b in zip(at, low, strict=True)]
        value = torch.zeros(2)
        for dy in (0, 1):
            for dx in (0, 1):
                row, column = low[0] + dy, low[1] + dx
                if row < padded.shape[2] and column < padded.shape[3]:
                    share = (part[0] if dy else 1 - part[0]) * (part[1] if dx else 1 - part[1])
                    value += share * padded[0, :, row, column]
        close(found[0, :, y, x], value, 1e-5, f"{y}, {x}")


def test_aligned_annotations_have_the_size_of_the_features_and_sum_to_one() -> None:
    masks = torch.zeros(1, 2, 375, 500)
    masks[0, 1, 100:200, 50:300] = 1
    grid = annotation_grid(masks, (11, 15), aligned=True)
    assert grid.shape == (1, 2, 11, 15)
    assert grid[0, 0].sum() == 0
    close(grid[0, 1].sum(), torch.tensor(1.0), 1e-5)
    rows, columns = grid[0, 1].nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max())) == (2, 6)  # windows that meet rows 100 to 199
    assert (int(columns.min()), int(columns.max())) == (0, 9)
    assert bilinear_kernel().sum() == 1024


def test_the_order_of_annotated_shots_does_not_matter(small: GuidedNetwork) -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(1, 3, 8, 3, 3, generator=generator)
    masks = torch.randint(0, 2, (1, 3, 96, 96), generator=generator)
    order = [2, 0, 1]
    first, second = small.guide(features, masks), small.guide(features[:, order], masks[:, order])
    close(first.vectors, second.vectors, 1e-6)
    assert not small.shots_commute  # but a shot without annotation ends the guide
    backbone = create_backbone("tf_efficientnet_lite0", weights="none")
    assert create_method("guided", backbone, width=8, official=False).shots_commute


def test_the_answer_has_the_size_of_the_query() -> None:
    backbone = create_backbone("vgg16_fcn32s", weights="none")
    for name in ("guided", "cofcn"):
        method = create_method(name, backbone, width=8)
        support, masks = torch.rand(1, 1, 1, 3, 64, 96), torch.ones(1, 1, 1, 64, 96)
        with torch.no_grad():
            logits = method(support, masks, torch.rand(1, 3, 96, 64))
        assert logits.shape == (1, 2, 96, 64)
