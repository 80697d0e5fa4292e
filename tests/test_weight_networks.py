"""Which network a file is of: named rightly, or not at all; and what is said of it then."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from fss_bench import create_backbone
from fss_bench.architectures import architecture_of, is_network
from fss_bench.conversion import convert, describe
from fss_bench.errors import WeightsError


def sketch(name: str) -> dict[str, Tensor]:
    """A network's tensors at their full size, of zeros, which take no room."""
    with torch.device("meta"):
        shapes = timm.create_model(name).state_dict()
    return {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}


NAMED = (
    *("resnet18", "resnet34", "resnet50", "wide_resnet50_2", "resnext50_32x4d"),
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
)
NOT_TOLD = (
    *("resnet26", "seresnet50", "resnet50d", "resnet50_gn", "ecaresnet50t", "resnetv2_50"),
    *("vit_small_patch16_224", "deit_small_patch16_224", "vit_base_patch16_clip_224"),
    *("beit_base_patch16_224", "deit3_small_patch16_224", "convnext_tiny", "efficientnet_b0"),
    *("vgg11", "convnextv2_atto", "mobilenetv3_small_100", "vit_base_patch16_siglip_224"),
)


@pytest.mark.parametrize("name", NAMED)
def test_networks_are_named(name: str) -> None:
    assert architecture_of(sketch(name), "timm") == name


@pytest.mark.parametrize("name", NOT_TOLD)
def test_networks_that_are_not_told_apart_are_not_named(name: str) -> None:
    state = sketch(name)
    assert architecture_of(state, "timm") is None
    assert is_network(state)


@pytest.mark.parametrize("layout", ["dino_backbone", "mae", "deit"])
@pytest.mark.parametrize(
    "name", ["vit_base_patch16_clip_224", "beit_base_patch16_224", "deit3_small_patch16_224"]
)
def test_other_transformers_are_no_plain_ones(name: str, layout: str) -> None:
    assert architecture_of(sketch(name), layout) is None


def test_plain_transformers_are_named_by_their_layout() -> None:
    state = sketch("vit_small_patch16_224")
    assert architecture_of(state, "dino_backbone") == "vit_small_patch16_224"
    assert architecture_of(state, "deit") == "deit_small_patch16_224"
    wide = sketch("deit_base_patch16_384")
    assert architecture_of(wide, "deit") == "deit_base_patch16_384"
    assert architecture_of(sketch("vit_base_patch32_224"), "deit") is None  # there is none


def test_names_that_timm_does_not_have_are_not_given() -> None:
    state = sketch("vit_small_plus_patch16_dinov3_qkvb")
    state["patch_embed.proj.weight"] = torch.zeros(()).expand(1024, 3, 16, 16)
    state |= {f"blocks.{i}.attn.qkv.weight": torch.zeros(1) for i in range(24)}
    state["storage_tokens"], state["blocks.0.mlp.w1.weight"] = torch.zeros(1), torch.zeros(1)
    assert architecture_of(state, "dinov3") is None  # vit_large_plus


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_tensor_more_less_or_of_another_shape_is_another_network(name: str) -> None:
    state = sketch(name)
    last = [key for key in state if key.endswith("bias")][3]
    assert architecture_of(state, "mae") == name
    assert architecture_of({**state, "extra.weight": torch.zeros(1)}, "mae") is None
    assert architecture_of({k: v for k, v in state.items() if k != last}, "mae") is None
    assert architecture_of({**state, last: torch.zeros(7)}, "mae") is None
    assert architecture_of({key: torch.zeros(()) for key in state}, "mae") is None


def test_numbers_of_blocks_may_be_of_any_length() -> None:
    state = sketch("vit_tiny_patch16_224")
    state["blocks." + "9" * 5000 + ".norm1.weight"] = torch.zeros(1)
    assert architecture_of(state, "mae") is None


def test_tensors_of_other_names_are_no_network() -> None:
    for state in ({"a": torch.zeros(2, 2, 2, 2)}, {"conv1.weight": torch.zeros(1)}):
        assert not is_network(state)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("convnext_tiny", "stem.0.weight [96, 3, 4, 4]"),
        ("efficientnet_b0", "conv_stem.weight [32, 3, 3, 3]"),
        ("vgg11", "features.0.weight [64, 3, 3, 3]"),
    ],
)
def test_network_of_unknown_name_is_inspected_and_converted(
    name: str, first: str, tmp_path: Path
) -> None:
    state, path = sketch(name), tmp_path / "f.pth"
    torch.save(state, path)
    text = "\n".join(describe(path))
    assert "layout timm: a network's own names" in text
    assert f"{len(state)} tensors" in text
    assert f"from {first} to " in text
    assert "architecture not told apart: give --backbone NAME" in text
    assert f"use: --backbone NAME --weights {path}" in text


def test_converted_network_of_unknown_name_is_the_same(tmp_path: Path) -> None:
    name, path, ours = "test_efficientnet", tmp_path / "f.pth", tmp_path / "f.safetensors"
    torch.save(timm.create_model(name).state_dict(), path)
    assert "not told apart" in "\n".join(convert(path, ours))
    one, other = (create_backbone(name, file).state_dict() for file in (path, ours))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_inspecting_says_which_layouts_a_file_may_have(tmp_path: Path) -> None:
    path = tmp_path / "f.pth"
    torch.save(sketch("vit_tiny_patch16_224"), path)
    with pytest.raises(WeightsError, match=r"layout=deit for DeiT; layout=timm .*--layout NAME"):
        describe(path)
    assert "network deit_tiny_patch16_224" in "\n".join(describe(path, layout="deit"))
    assert "not told apart" in "\n".join(describe(path, layout="timm"))


def test_response_norms_are_not_vicregls(tmp_path: Path) -> None:
    """ConvNeXt V2 under its original names has no layer scales either."""
    state, path = sketch("convnextv2_atto"), tmp_path / "f.pth"
    found = {"downsample_layers.0.0.weight": torch.zeros(()).expand(40, 3, 4, 4)}
    for block in range(2):
        found[f"stages.0.{block}.dwconv.weight"] = torch.zeros(40, 1, 7, 7)
        found[f"stages.0.{block}.grn.gamma"] = torch.zeros(1, 1, 1, 160)
    torch.save(found, path)
    with pytest.raises(WeightsError, match=r"\(a network's own names.* does not fit"):
        create_backbone("convnextv2_atto", path)
    assert state  # the network is timm's
