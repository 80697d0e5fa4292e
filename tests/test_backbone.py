import pytest
import torch

from fss_bench import create_backbone
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.registry import backbones

SMALL = "tf_efficientnet_lite0"


def side(name: str) -> int:
    return 384 if name.startswith("swin") else 64


PUBLISHED_SIZES = {
    "resnet50_deepstem": {"c1": 32, "c2": 16, "c3": 8, "c4": 8, "c5": 8},
    "resnet101_deepstem": {"c1": 32, "c2": 16, "c3": 8, "c4": 8, "c5": 8},
    "vgg16_bn_msanet": {"c1": 32, "c2": 16, "c3": 8, "c4": 4, "c5": 4},
    "vgg16_fcn32s": {"c5": 7},  # 64 and two paddings of 80, in 32s
    "vgg16_panet": {"c5": 8},
    "vgg16_sgone": {"c3": 8, "c4": 8, "c5": 8},
}
"""Sides of the levels of 64-pixel images, where published networks have other strides."""


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_published_variants_have_their_own_strides(name: str) -> None:
    backbone = create_backbone(name, weights="none")
    maps = backbone(torch.rand(2, 3, 64, 64))
    assert list(maps) == list(backbone.levels)
    assert {level: features.shape[-1] for level, features in maps.items()} == PUBLISHED_SIZES[name]
    for level, features in maps.items():
        assert features.shape[1] == backbone.levels[level].channels
        assert features.isfinite().all()
    assert backbone.default_level in backbone.levels


@pytest.mark.parametrize("name", sorted(set(backbones.names()) - set(PUBLISHED_SIZES)))
def test_every_registered_backbone_keeps_the_contract(name: str) -> None:
    backbone = create_backbone(name, weights="none")
    size = side(name)
    maps = backbone(torch.rand(2, 3, size, size))
    assert list(maps) == list(backbone.levels)
    for level, features in maps.items():
        channels, stride = backbone.levels[level].channels, backbone.levels[level].stride
        assert features.shape == (2, channels, size // stride, size // stride)
        assert features.isfinite().all()
    assert {"c3", "c4", "c5"} <= set(maps)
    assert [backbone.levels[f"c{i}"].stride for i in (3, 4, 5)] == [8, 16, 32]
    assert backbone.default_level in backbone.levels


def test_asking_for_some_levels_gives_the_same_maps() -> None:
    backbone = create_backbone(SMALL, weights="none")
    images = torch.rand(1, 3, 64, 64)
    everything = backbone(images)
    for levels in (["c3"], ["c5_0"], ["c4", "c5_0"], ["c5", "c2"]):
        some = backbone(images, levels)
        assert list(some) == levels
        assert all(torch.equal(some[level], everything[level]) for level in levels)


def test_tapped_level_is_the_inner_stage() -> None:
    backbone = create_backbone(SMALL, weights="none")
    images = torch.rand(1, 3, 64, 64)
    x = (images - backbone.mean) / backbone.std
    network = backbone.model
    x = network.bn1(network.conv_stem(x))
    for stage in network.blocks[:6]:
        x = stage(x)
    torch.testing.assert_close(backbone(images)["c5_0"], x)


def test_owns_normalisation_and_does_not_clamp() -> None:
    backbone = create_backbone(SMALL, weights="none")
    assert backbone.mean.flatten().tolist() == backbone.std.flatten().tolist() == [0.5, 0.5, 0.5]
    bright = backbone(torch.full((1, 3, 64, 64), 1.0), ["c3"])["c3"]
    brighter = backbone(torch.full((1, 3, 64, 64), 1.5), ["c3"])["c3"]
    assert not torch.equal(bright, brighter)


def test_frozen_means_eval_mode_and_no_gradients() -> None:
    frozen = create_backbone(SMALL, weights="none").train()
    assert not frozen.training
    assert not frozen.model.training
    assert not any(p.requires_grad for p in frozen.parameters())
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert not frozen(images, ["c3"])["c3"].requires_grad
    loose = create_backbone(SMALL, weights="none", frozen=False).train()
    assert loose.model.training
    assert loose(torch.rand(2, 3, 64, 64), ["c3"])["c3"].requires_grad


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = create_backbone(SMALL, weights="none", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    b = create_backbone(SMALL, weights="none", seed=3)
    c = create_backbone(SMALL, weights="none", seed=4)
    weight = "model.conv_stem.weight"
    assert torch.equal(a.state_dict()[weight], b.state_dict()[weight])
    assert not torch.equal(a.state_dict()[weight], c.state_dict()[weight])
    assert a.weights == b.weights != c.weights


def test_output_stride_dilates_but_keeps_level_names() -> None:
    backbone = create_backbone("resnet50", weights="none", output_stride=8)
    maps = backbone(torch.rand(1, 3, 64, 64), ["c3", "c4", "c5"])
    assert [m.shape[-1] for m in maps.values()] == [8, 8, 8]
    assert [m.shape[1] for m in maps.values()] == [512, 1024, 2048]


def test_any_timm_model_by_name() -> None:
    backbone = create_backbone("mobilenetv3_small_050", weights="none")
    assert backbone(torch.rand(1, 3, 64, 64), ["c4"])["c4"].shape[-1] == 4


def test_unknown_names_levels_and_options_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"resnet5O.*did you mean 'resnet50'"):
        create_backbone("resnet5O", weights="none")
    with pytest.raises(UnknownNameError, match=r"outputstride.*did you mean 'output_stride'"):
        create_backbone(SMALL, weights="none", outputstride=8)
    backbone = create_backbone(SMALL, weights="none")
    with pytest.raises(UnknownNameError, match="level of backbone"):
        backbone(torch.rand(1, 3, 64, 64), ["c9"])


def test_fixed_size_is_checked() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", weights="none")
    with pytest.raises(FssBenchError, match="takes 224x224 images, got 64x64"):
        backbone(torch.rand(1, 3, 64, 64))


def test_every_block_map_is_what_its_level_says() -> None:
    for name in ("resnet50", "vgg16", "tf_efficientnet_lite0", "vgg16_bn_msanet"):
        backbone = create_backbone(name, weights="none")
        names = [block for blocks in backbone.blocks.values() for block in blocks]
        maps = backbone(torch.rand(1, 3, 64, 64), names)
        for block, features in maps.items():
            assert features.shape[1] == backbone.size_of(block).channels
            assert features.shape[-1] == 64 // backbone.size_of(block).stride


def test_block_maps_are_taken_before_the_last_activation() -> None:
    for name, block, level in (("resnet18", "c5.1", "c5"), ("vgg16", "c3.2", "c3")):
        backbone = create_backbone(name, weights="none")
        for module in backbone.modules():  # residual branches start at zero: they hide the sign
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.weight, -1.0)
        maps = backbone(torch.rand(1, 3, 64, 64), [block, level])
        assert (maps[block] < 0).any()
        torch.testing.assert_close(maps[block].relu(), maps[level])


def test_levels_that_a_method_needs_are_named() -> None:
    with pytest.raises(FssBenchError, match=r"m needs the levels c2, c5; backbone vgg16_panet has"):
        create_backbone("vgg16_panet", weights="none").need_levels(["c2", "c5"], "m")


def test_weights_for_other_pixels_are_refused() -> None:
    with pytest.raises(FssBenchError, match=r"vgg16-00b39a1b\.pth with --weights"):
        create_backbone("vgg16_fcn32s", weights="imagenet")
