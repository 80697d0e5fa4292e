"""What names and shapes do not tell: heads, positions, padding, statistics, biases, rotations.

Each test would fail for the reading that suggests itself.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from published_weights import (
    DINOV2,
    DINOV2_REGISTERS,
    DINOV3,
    DINOV3_UNBIASED,
    PUBLISHED,
    RAW,
    SATELLITE,
    TYPO,
    VIT,
    VIT_SMALL,
    Published,
    as_tensorflow,
)
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor
from weight_features import assert_same, features_of, images, load, reference, same, write
from weight_layout_files import (
    State,
    bare,
    dino_backbone,
    dinov2,
    dinov2_registers,
    dinov3,
    dinov3_without_biases,
    fixed_positions,
    mae,
    moco_v3_for_deit,
    moco_v3_vit,
    periods,
    random_state,
    rounded_token,
    vicregl_convnext,
    with_state,
)

from fss_bench import create_backbone
from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone
from fss_bench.errors import WeightsError

NO_DINOV3 = pytest.mark.skipif(
    "vit_small_patch16_dinov3" not in timm.list_models(), reason="this timm has no DINOv3"
)


def kind_of(layout: str) -> Published:
    return next(kind for kind in PUBLISHED if kind.layout == layout)


def differ(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Whether maps are another reading's, by far more than rounding, at every level."""
    return all((found[k] - wanted[k]).std() > 0.01 * wanted[k].std() for k in wanted)


# heads --------------------------------------------------------------------------------------------


def test_small_transformer_of_moco_v3_has_twelve_heads(tmp_path: Path) -> None:
    state = fixed_positions(random_state(VIT_SMALL))
    backbone: Any = create_backbone(VIT_SMALL, write(tmp_path / "f.pth", moco_v3_vit(state, state)))
    assert {block.attn.num_heads for block in backbone.model.blocks} == {12}
    six = features_of(with_state(VIT_SMALL, state), images())
    assert differ(backbone(images()), six)


def test_wider_transformer_of_moco_v3_has_the_heads_of_timm(tmp_path: Path) -> None:
    state = random_state(VIT)
    backbone: Any = create_backbone(VIT, write(tmp_path / "f.pth", moco_v3_vit(state, state)))
    assert {block.attn.num_heads for block in backbone.model.blocks} == {3}


def test_small_transformer_written_for_deit_is_read_as_is_asked(tmp_path: Path) -> None:
    """The file is the same for both; timm's reading has 6 heads and its own statistics."""
    state = fixed_positions(random_state(VIT_SMALL))
    path = write(tmp_path / "f.pth", moco_v3_for_deit(state, state))
    moco = create_backbone(VIT_SMALL, path, layout="moco_v3_vit_small")
    plain = create_backbone(VIT_SMALL, path, layout="timm")
    assert_same(moco(images()), features_of(with_state(VIT_SMALL, state, num_heads=12), images()))
    halves = ((0.5,) * 3, (0.5,) * 3)
    assert_same(plain(images()), features_of(with_state(VIT_SMALL, state), images(), halves))
    assert differ(moco(images()), plain(images()))


# positions ----------------------------------------------------------------------------------------


def cubic(distance: float, a: float) -> float:
    x = abs(distance)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def resampled(table: Tensor, side: int, scale: float) -> np.ndarray:
    """Bicubic by its definition: cell i is at (i + 1/2) / scale - 1/2, edges repeat, a = -0.75."""
    cells = math.isqrt(table.shape[1] - 1)
    weights = np.zeros((side, cells))
    for i in range(side):
        place = (i + 0.5) / scale - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[i, min(max(j, 0), cells - 1)] += cubic(place - j, -0.75)
    grid = table[0, 1:].double().numpy().reshape(cells, cells, -1)
    wide = np.einsum("ij,kl,jlc->ikc", weights, weights, grid).reshape(1, side * side, -1)
    return np.concatenate([table[:, :1].double().numpy(), wide], axis=1)


def official(table: Tensor, side: int, **how: Any) -> Tensor:
    """As the original codes call it."""
    cells = math.isqrt(table.shape[1] - 1)
    grid = table[:, 1:].reshape(1, cells, cells, -1).permute(0, 3, 1, 2)
    wide = F.interpolate(grid, mode="bicubic", **how)
    return torch.cat([table[:, :1], wide.permute(0, 2, 3, 1).reshape(1, side * side, -1)], dim=1)


def with_offset(table: Tensor, side: int) -> Tensor:
    """DINO's and DINOv2's: a scale of (cells + 0.1) / cells of the file."""
    scale = (side + 0.1) / math.isqrt(table.shape[1] - 1)
    return official(table, side, scale_factor=(scale, scale))


def to_size(table: Tensor, side: int) -> Tensor:
    """MAE's: to a size, not antialiased."""
    return official(table, side, size=(side, side), align_corners=False)


def of_timm(content: State, name: str, size: int) -> State:
    """A file under timm's names, resampled by timm."""
    model = timm.create_model(name, num_classes=0, img_size=size)
    return checkpoint_filter_fn(dict(content), model)


def positions(backbone: Backbone) -> Tensor:
    table: Tensor = backbone.model.pos_embed.detach()  # type: ignore[union-attr,operator]
    return table


@pytest.mark.parametrize("size", [32, 112, 176])  # 64 is the file's: 4 x 4 cells
def test_positions_of_dino_are_scaled_with_its_offset(size: int, tmp_path: Path) -> None:
    state, side = random_state(VIT), size // 16
    path = write(tmp_path / "f.pth", dino_backbone(state, state))
    backbone = create_backbone(VIT, path, image_size=size)
    table = state["pos_embed"]
    assert torch.equal(positions(backbone), with_offset(table, side))
    by_definition = resampled(table, side, (side + 0.1) / 4)
    assert np.abs(positions(backbone).numpy() - by_definition).max() < 1e-5
    assert (positions(backbone) - to_size(table, side)).std() > 1e-3
    assert (positions(backbone) - of_timm(state, VIT, size)["pos_embed"]).std() > 1e-2
    model = with_state(VIT, {**state, "pos_embed": with_offset(table, side)}, img_size=size)
    assert_same(backbone(images(size)), features_of(model, images(size)))


@pytest.mark.parametrize("size", [42, 112])  # 70 is the file's: 5 x 5 cells of 14
def test_positions_of_dinov2_are_scaled_with_its_offset(size: int, tmp_path: Path) -> None:
    state, side = random_state(DINOV2), size // 14
    path = write(tmp_path / "f.pth", dinov2(state, state))
    backbone = create_backbone(DINOV2, path, image_size=size)
    table = state["pos_embed"]
    assert torch.equal(positions(backbone), with_offset(table, side))
    assert (positions(backbone) - of_timm(state, DINOV2, size)["pos_embed"]).std() > 1e-2
    model = with_state(DINOV2, {**state, "pos_embed": with_offset(table, side)}, img_size=size)
    assert_same(backbone(images(size)), features_of(model, images(size)))


@pytest.mark.parametrize("layout", ["dinov2_registers", "dinov2_training_registers"])
def test_positions_of_dinov2_with_registers_are_those_of_timm(layout: str, tmp_path: Path) -> None:
    kind = kind_of(layout)
    state = rounded_token(random_state(DINOV2_REGISTERS))  # of 5 x 5 cells
    path = write(tmp_path / "f.pth", kind.build(state, state))
    backbone = create_backbone(DINOV2_REGISTERS, path, image_size=112)
    wanted = of_timm(dinov2_registers(state, state), DINOV2_REGISTERS, 112)
    assert torch.equal(positions(backbone), wanted["pos_embed"])
    model = with_state(DINOV2_REGISTERS, wanted, img_size=112)
    assert_same(backbone(images(112)), features_of(model, images(112)))
    table = torch.cat([wanted["cls_token"], state["pos_embed"]], dim=1)
    assert (positions(backbone) - with_offset(table, 8)[:, 1:]).std() > 1e-2


@pytest.mark.parametrize("size", [48, 112])
@pytest.mark.parametrize("layout", ["mae", "moco_v3"])
def test_positions_of_mae_and_moco_are_not_antialiased(
    layout: str, size: int, tmp_path: Path
) -> None:
    state, side = fixed_positions(random_state(VIT)), size // 16
    content = mae(state, state) if layout == "mae" else moco_v3_vit(state, state)
    backbone = create_backbone(VIT, write(tmp_path / "f.pth", content), image_size=size)
    table = state["pos_embed"]
    assert np.abs(positions(backbone).numpy() - resampled(table, side, side / 4)).max() < 1e-5
    assert torch.equal(positions(backbone), to_size(table, side))
    assert (positions(backbone) - with_offset(table, side)).std() > 1e-3
    assert (positions(backbone) - of_timm(state, VIT, size)["pos_embed"]).std() > 1e-2


def test_positions_of_timm_are_those_of_timm(tmp_path: Path) -> None:
    state = random_state(VIT)
    path = write(tmp_path / "f.pth", bare(state, state))
    backbone = create_backbone(VIT, path, layout="timm", image_size=112)
    assert torch.equal(positions(backbone), of_timm(state, VIT, 112)["pos_embed"])


def test_other_patch_sizes_are_refused_not_resampled(tmp_path: Path) -> None:
    state = random_state(VIT)
    state["patch_embed.proj.weight"] = torch.ones(48, 3, 8, 8)
    path = write(tmp_path / "f.pth", dino_backbone(state, state))
    with pytest.raises(WeightsError, match="its patches are 8 pixels wide, the model's 16: choose"):
        create_backbone(VIT, path)


# padding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 65, 66, 67])
def test_byol_pads_as_tensorflow(side: int, tmp_path: Path) -> None:
    kind = kind_of("byol")
    backbone = load(kind, write(tmp_path / "f.pth", kind.content()))
    pixels = images(side)
    found = backbone(pixels)
    assert_same(found, reference(kind, "query", pixels))
    plain = features_of(with_state(kind.backbone, kind.state("query")), pixels)
    if side == 65:  # all sides inside are odd: the two rules are one
        assert same(found, plain)
    else:
        assert found.keys() == plain.keys()
        assert differ({"c5": found["c5"]}, {"c5": plain["c5"]})


@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_byol_pads_as_tensorflow_where_it_has_strides(stride: int, tmp_path: Path) -> None:
    kind = kind_of("byol")
    path = write(tmp_path / "f.pth", kind.content())
    found = load(kind, path, output_stride=stride)(images())
    model = with_state(kind.backbone, kind.state("query"), output_stride=stride)
    wanted = features_of(as_tensorflow(model), images())
    deepest = found["c5"] if "c5" in found else list(found.values())[-1]
    assert torch.equal(deepest, list(wanted.values())[-1])
    assert deepest.shape[-1] == 64 // stride


# statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "mean", "std"),
    [
        ("simclr_v1", *RAW),
        ("simclr_v2", *RAW),
        ("swav", *TYPO),
        ("vicregl", *TYPO),
        ("vicregl_convnext", *TYPO),
        ("dinov3_satellite", *SATELLITE),
    ],
)
def test_statistics_are_those_of_the_weights(
    layout: str, mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    kind = kind_of(layout)
    backbone = load(kind, write(tmp_path / "f.pth", kind.content()))
    assert torch.equal(backbone.mean.flatten(), torch.tensor(mean))
    assert torch.equal(backbone.std.flatten(), torch.tensor(std))
    pixels = images(backbone.fixed_size or 64)
    usual = features_of(kind.model(kind.roles[0]), pixels)
    assert not same(backbone(pixels), usual)


@pytest.mark.parametrize("layout", ["dino", "dino_backbone", "mae", "moco_v3", "lightly_vit"])
def test_transformers_want_other_statistics_than_those_of_timm(layout: str, tmp_path: Path) -> None:
    kind = next(k for k in PUBLISHED if k.layout == layout and k.backbone == VIT)
    assert timm.create_model(VIT).pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    backbone = load(kind, write(tmp_path / "f.pth", kind.content()))
    assert torch.equal(backbone.mean.flatten(), torch.tensor(IMAGENET_MEAN))
    assert torch.equal(backbone.std.flatten(), torch.tensor(IMAGENET_STD))


# ConvNeXt -----------------------------------------------------------------------------------------


def test_convnext_of_vicregl_has_layer_scales_of_one(tmp_path: Path) -> None:
    kind = kind_of("vicregl_convnext")
    state = random_state(kind.backbone)
    backbone: Any = load(kind, write(tmp_path / "f.pth", vicregl_convnext(state, state)))
    scales = [v for k, v in backbone.model.state_dict().items() if k.endswith("gamma")]
    assert len(scales) == sum(k.endswith("gamma") for k in state)
    assert all((value == 1).all() for value in scales)


# DINOv3 -------------------------------------------------------------------------------------------


@NO_DINOV3
def test_biases_of_dinov3_are_refused_by_a_model_without_them(tmp_path: Path) -> None:
    state = random_state(DINOV3)
    path = write(tmp_path / "f.pth", dinov3(state, state))
    with pytest.raises(WeightsError, match=r"its attention has biases: choose .* ends in _qkvb"):
        create_backbone(DINOV3_UNBIASED, path)
    assert_same(
        create_backbone(DINOV3, path)(images()), features_of(with_state(DINOV3, state), images())
    )


@NO_DINOV3
def test_dinov3_without_biases_is_read_by_both_models(tmp_path: Path) -> None:
    state = random_state(DINOV3_UNBIASED)
    path = write(tmp_path / "f.pth", dinov3_without_biases(state, state))
    wanted = features_of(with_state(DINOV3_UNBIASED, state), images())
    assert_same(create_backbone(DINOV3_UNBIASED, path)(images()), wanted)
    biased = create_backbone(DINOV3, path)(images())
    assert all(torch.allclose(biased[k], wanted[k], rtol=1e-4, atol=1e-4) for k in wanted)


@NO_DINOV3
@pytest.mark.parametrize("noise", [float("nan"), float("inf"), 5.0])
def test_masked_biases_of_dinov3_may_be_anything(noise: float, tmp_path: Path) -> None:
    state = random_state(DINOV3)
    content = dinov3(state, state)
    content["blocks.0.attn.qkv.bias"][64:128] = noise
    backbone = create_backbone(DINOV3, write(tmp_path / "f.pth", content))
    assert_same(backbone(images()), features_of(with_state(DINOV3, state), images()))


@NO_DINOV3
def test_biases_of_keys_are_refused(tmp_path: Path) -> None:
    state = random_state(DINOV3)
    content = dinov3(state, state)
    content["blocks.1.attn.qkv.bias_mask"][:] = 1
    with pytest.raises(WeightsError, match="its keys have biases, which timm's have not"):
        create_backbone(DINOV3, write(tmp_path / "f.pth", content))


@NO_DINOV3
@pytest.mark.parametrize("base", [10.0, 90.0, 110.0, 1000.0])
def test_rotations_of_another_base_are_refused(base: float, tmp_path: Path) -> None:
    state = random_state(DINOV3)
    content = {**dinov3(state, state), "rope_embed.periods": periods(base)}
    with pytest.raises(WeightsError, match="its rotary periods are not the model's"):
        create_backbone(DINOV3, write(tmp_path / "f.pth", content))


@NO_DINOV3
def test_rotations_of_another_width_are_refused(tmp_path: Path) -> None:
    state = random_state(DINOV3)
    content = {**dinov3(state, state), "rope_embed.periods": periods(100.0, 32)}
    with pytest.raises(WeightsError, match="its rotary periods are not the model's"):
        create_backbone(DINOV3, write(tmp_path / "f.pth", content))


@NO_DINOV3
def test_dinov3_takes_other_sizes_exactly(tmp_path: Path) -> None:
    state = random_state(DINOV3)
    path = write(tmp_path / "f.pth", dinov3(state, state))
    backbone = create_backbone(DINOV3, path, image_size=112)
    model = with_state(DINOV3, state, img_size=112)
    assert_same(backbone(images(112)), features_of(model, images(112)))
