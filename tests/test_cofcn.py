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
from fss_bench.backbone import Backbone
from fss_bench.checkpoint import layouts, read_checkpoint
from fss_bench.checkpoint_loading import create_from_checkpoint
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.methods.cofcn import CoFCN, widened
from fss_bench.revolver import FIXED

VARIANTS = {"cofeat-early": "early", "cofeat-late-lite-unshared": "late"}
FILES = [
    p.stem
    for p in golden_files(SHARED / "golden", "revolver_*")
    if p.stem.split("_")[1] in VARIANTS
]


def published_state(shared: Path, variant: str) -> dict[str, Tensor]:
    shapes = read_keys(shared / f"golden/keys/revolver_{variant}_keys.txt")
    constants = {name: fixed(shapes[name]) for name, fixed in FIXED.items() if name in shapes}
    return recipe_state(shapes, constants)


@pytest.fixture
def backbone() -> Backbone:
    return create_backbone("tf_efficientnet_lite0", weights="none")


@pytest.mark.parametrize("name", FILES)
def test_equals_the_published_network(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    state = published_state(shared, golden.facts["variant"])
    assert state_sha256(state) == golden.facts["state_sha256"]
    method = create_from_checkpoint(read_checkpoint(state))
    assert isinstance(method, CoFCN)
    assert method.fusion == VARIANTS[golden.facts["variant"]]
    query, wanted = golden.image("query_img_u8")[None], golden.tensors
    with torch.no_grad():
        scores = method.answer(
            method.query_features(query),
            method.joined_vector(golden.supports()),
            (query.shape[-2], query.shape[-1]),
        )
    close(scores, wanted["scores"], 1e-5 * float(wanted["scores"].abs().max()), "scores")
    check_prediction(scores, wanted["pred"], 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_loss_and_gradients_equal_the_published_ones(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    method = create_from_checkpoint(
        read_checkpoint(published_state(shared, golden.facts["variant"]))
    )
    assert isinstance(method, CoFCN)
    loss = method.loss(*golden.episode(), golden.tensors["query_mask"][None])
    close(loss, golden.tensors["loss_eval"], 1e-4)
    found = gradients(method, loss, layouts()[method.checkpoint.layout].published)
    wanted = golden.facts.get("grad_l2_eval_mode", {})
    check_gradients({k: v for k, v in found.items() if wanted}, wanted, rtol=1e-3, floor=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_of_a_published_file_is_loaded(shared: Path, variant: str) -> None:
    state = published_state(shared, variant)
    method = create_from_checkpoint(read_checkpoint(state))
    names = {layouts()[method.checkpoint.layout].rename(n) for n in state if n not in FIXED}
    assert names == set(method.state_dict())


def inputs(shots: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (1, 1, shots, 96, 96), generator=generator)
    masks = torch.where(masks == 2, 255, masks)
    images = torch.rand(1, 1, shots, 3, 96, 96, generator=generator)
    return images, masks, torch.rand(1, 3, 96, 96, generator=generator)


def test_early_fusion_equals_tiling_and_concatenation(backbone: Backbone) -> None:
    method = create_method("cofcn", backbone, width=8)
    assert isinstance(method, CoFCN)
    support, masks, query = inputs(2)
    with torch.no_grad():
        cells = method.support_features(support[0, 0], masks[0, 0])
        features = method.query_features(query)
        mean = torch.cat([cells[0].flatten(1), cells[1].flatten(1)], dim=1).mean(dim=1)
        tiled = mean[None, :, None, None].expand_as(features)
        slow = method.score(F.relu(method.fc7(torch.cat([tiled, features], dim=1))))
        close(method(support, masks, query), slow, 1e-5)


def test_late_fusion_equals_tiling_and_concatenation(backbone: Backbone) -> None:
    method = create_method("cofcn", backbone, width=8, fusion="late")
    assert isinstance(method, CoFCN)
    support, masks, query = inputs(2)
    masks[0, 0, 1] = torch.where(masks[0, 0, 1] == 1, 255, masks[0, 0, 1])  # no foreground
    with torch.no_grad():
        features, cells = method.query_features(query), method.query_features(support[0, 0])
        means = []
        for value in (1, 0):
            pooled = []
            for shot in range(2):
                grid = F.adaptive_avg_pool2d(
                    (masks[0, 0, shot] == value).float()[None, None], cells.shape[-2:]
                )
                pooled.append((cells[shot] * grid[0]).sum(dim=(1, 2)) / (1e-6 + grid.sum()))
            means.append(torch.stack(pooled).mean(dim=0))  # over all shots, empty ones too
        tiled = [m[None, :, None, None].expand_as(features) for m in means]
        slow = method.score(F.relu(method.fc7(torch.cat([features, *tiled], dim=1))))
        close(method(support, masks, query), slow, 1e-5)


def test_new_input_channels_start_as_the_mean_of_the_others(backbone: Backbone) -> None:
    twin = widened(backbone, 2)
    first, own = twin.model.conv_stem.weight, backbone.model.conv_stem.weight
    assert first.shape[1] == 5
    assert torch.equal(first[:, :3], own)
    assert torch.equal(first[:, 3], own.mean(dim=1))
    assert first.requires_grad
    assert not own.requires_grad
    assert own.shape[1] == 3


def test_wider_points_say_more(backbone: Backbone) -> None:
    support, _, query = inputs(1)
    masks = torch.full((1, 1, 1, 96, 96), 255)
    masks[..., 40, 40], masks[..., 80, 20] = 1, 0
    dense = masks.clone()
    dense[..., 35:46, 35:46], dense[..., 75:86, 15:26] = 1, 0
    method = create_method("cofcn", backbone, width=8, dilate=11)
    plain = create_method("cofcn", backbone, width=8)
    plain.load_state_dict(method.state_dict())
    with torch.no_grad():
        assert torch.equal(method(support, masks, query), plain(support, dense, query))
        assert not torch.equal(plain(support, masks, query), plain(support, dense, query))


def test_wrong_options_are_named(backbone: Backbone) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'late'"):
        create_method("cofcn", backbone, fusion="lat")
    with pytest.raises(FssBenchError, match="dilate=4: it must be odd"):
        create_method("cofcn", backbone, dilate=4)
