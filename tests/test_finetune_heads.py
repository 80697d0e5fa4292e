"""Heads of `finetune`: levels, shapes, unpooling, and what is mirrored."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from tiny_backbone import PixelBackbone
from torch import Tensor, nn

from fss_bench import create_backbone, create_method
from fss_bench.backbone import Level
from fss_bench.errors import FssBenchError
from fss_bench.heads.cosine import CosineHead, class_means
from fss_bench.heads.deeplab import DeepLabHead
from fss_bench.heads.head import Head, pyramid
from fss_bench.heads.segnet import SegNetHead, max_pool, max_unpool, narrow
from fss_bench.heads.unet import UNetHead
from fss_bench.methods.finetune import HEADS

BACKBONES = {
    "tf_efficientnet_lite0": {
        "cosine": ["c5_0"],
        "unet": ["c2", "c3", "c4", "c5"],
        "deeplabv3plus": ["c2", "c4"],
        "segnet": ["c1", "c2", "c3", "c4"],
    },
    "vgg16_bn": {
        "cosine": ["c4"],
        "unet": ["c2", "c3", "c4", "c5"],
        "deeplabv3plus": ["c2", "c4"],
        "segnet": ["c0", "c1", "c2", "c3", "c4"],
    },
    "resnet50_deepstem": {
        "cosine": ["c4"],
        "unet": ["c2", "c5"],
        "deeplabv3plus": ["c2", "c5"],
        "segnet": ["c1", "c2", "c5"],
    },
    "vit_tiny_patch16_224": {"cosine": ["c4"], "unet": ["c4"], "segnet": ["c4"]},
}


def maps_of(levels: list[Level], side: int, supports: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(supports, v.channels, side // v.stride, side // v.stride, generator=generator)
        for v in levels
    ]


@pytest.mark.parametrize("name", BACKBONES)
def test_default_levels_and_a_forward_pass(name: str) -> None:
    backbone = create_backbone(name, weights="none")
    side = backbone.fixed_size or 64
    found = {}
    for head, kind in HEADS.items():
        if head not in BACKBONES[name]:
            continue
        found[head] = kind.choose(backbone)
        levels = [backbone.levels[level] for level in found[head]]
        logits = kind(levels, 3)(maps_of(levels, side, 2))
        assert logits.shape[:2] == (2, 3)
    assert found == BACKBONES[name]


def test_a_head_that_a_backbone_is_too_flat_for_says_so() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", weights="none")
    with pytest.raises(FssBenchError, match="choose a --backbone that has them, such as resnet50"):
        create_method("finetune", backbone, head="deeplabv3plus")


def test_the_pyramid_is_the_deepest_level_of_every_stride() -> None:
    assert pyramid(create_backbone("tf_efficientnet_lite0", weights="none")) == [
        *("c1", "c2", "c3", "c4", "c5")
    ]
    assert pyramid(create_backbone("vgg16_bn_msanet", weights="none")) == ["c1", "c2", "c3", "c5"]


@pytest.mark.parametrize("kind", [UNetHead, DeepLabHead, SegNetHead])
def test_decoders_start_blank(kind: type[Head]) -> None:
    levels = [Level(4, 4), Level(6, 8)]
    head = kind(levels, 3)
    logits = head(maps_of(levels, 32, 2))
    assert (logits == 0).all()
    assert not kind.informed
    (head(maps_of(levels, 32, 2))[:, 1].sum()).backward()
    assert any(p.grad is not None and p.grad.any() for p in head.parameters())


def test_decoders_are_those_of_segmentation_models_pytorch() -> None:
    levels = [Level(4, 4), Level(6, 16)]
    assert isinstance(UNetHead(levels, 2).decoder, UnetDecoder)
    assert isinstance(DeepLabHead(levels, 2).decoder, DeepLabV3PlusDecoder)


@pytest.mark.parametrize(
    ("strides", "sides", "wanted"),
    [((4, 8), (8, 4), 16), ((1, 2), (8, 4), 8), ((4, 8), (9, 5), 18), ((16,), (4,), 8)],
)
def test_unet_doubles_the_finest_side(
    strides: tuple[int, ...], sides: tuple[int, ...], wanted: int
) -> None:
    levels = [Level(4, stride) for stride in strides]
    maps = [torch.rand(1, 4, side, side) for side in sides]
    assert UNetHead(levels, 2)(maps).shape == (1, 2, wanted, wanted)


@pytest.mark.parametrize(("strides", "rates"), [((4, 16), (6, 12, 18)), ((4, 8), (12, 24, 36))])
def test_dilations_double_below_stride_16(strides: tuple[int, int], rates: tuple[int, ...]) -> None:
    head = DeepLabHead([Level(4, strides[0]), Level(8, strides[1])], 2)
    found = {m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d)} - {1}
    assert tuple(sorted(found)) == rates


@pytest.mark.parametrize(("ratio", "fine", "deep"), [(4, 27, 7), (2, 13, 7)])
def test_one_support_of_odd_side_trains_deeplab(ratio: int, fine: int, deep: int) -> None:
    head = DeepLabHead([Level(4, 4), Level(8, 4 * ratio)], 2).train()
    logits = head([torch.rand(1, 4, fine, fine), torch.rand(1, 8, deep, deep)])
    assert logits.shape == (1, 2, ratio * deep, ratio * deep)


def test_class_means_equal_upsampled_loops() -> None:
    maps = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 8, 9), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = 255
    large = F.interpolate(maps, (8, 9), mode="bilinear", align_corners=False)
    found = class_means(maps, labels, 4)
    for c in range(3):
        total, count = torch.zeros(4), 0
        for s, y, x in np.ndindex(2, 8, 9):
            if labels[s, y, x] == c:
                total, count = total + large[s, :, y, x], count + 1
        torch.testing.assert_close(found[c], total / count, atol=1e-5, rtol=1e-5)
    assert (found[3] == 0).all()


def test_vectors_start_with_a_mean_square_of_one_or_at_zero() -> None:
    head = CosineHead([Level(4, 4)], 3)
    maps = torch.rand(1, 4, 5, 5)
    labels = torch.zeros(1, 5, 5, dtype=torch.long)
    labels[:, 2] = 1
    head.begin([maps], labels)
    squares = head.vectors.detach().square().mean(dim=1)
    torch.testing.assert_close(squares, torch.tensor([1.0, 1.0, 0.0]))
    assert (head([maps])[:, 2] == 0).all()


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("up", [True, False])
def test_unpooling_puts_maxima_back_where_they_were(side: int, up: bool) -> None:
    maps = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    below = torch.empty(2, 5, -(-side // 2), -(-side // 2)) if up else torch.empty(2, 5, 3, 3)
    values, places = max_pool(maps, below)
    back = max_unpool(values, places, (side, side))
    wanted = torch.zeros_like(maps)
    for s, c, y, x in np.ndindex(*values.shape):
        window = maps[s, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        at = np.unravel_index(int(window.argmax()), window.shape)
        wanted[s, c, 2 * y + at[0], 2 * x + at[1]] = window.max()
    assert torch.equal(back, wanted)
    torch.testing.assert_close(F.max_unpool2d(values, places, 2, output_size=(side, side)), back)


def test_unpooling_passes_gradients_from_the_places_of_maxima_alone() -> None:
    _, places = max_pool(torch.rand(1, 1, 4, 4), None)
    maps = torch.zeros(1, 1, 2, 2, requires_grad=True)
    weights = torch.arange(16.0).view(1, 1, 4, 4)
    (max_unpool(maps, places, (4, 4)) * weights).sum().backward()
    assert maps.grad is not None
    assert torch.equal(maps.grad, places.float())


def test_segnet_mirrors_vgg16() -> None:
    backbone = create_backbone("vgg16_bn", weights="none")
    head = SegNetHead([backbone.levels[f"c{i}"] for i in range(5)], 21)
    decoder = [
        [(m.in_channels, m.out_channels) for m in stage.modules() if isinstance(m, nn.Conv2d)]
        for stage in head.stages
    ]
    convs = [m for m in backbone.model.features if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
    encoder: list[list[tuple[int, int]]] = [[]]
    for layer in convs:
        if isinstance(layer, nn.MaxPool2d):
            encoder.append([])
        else:
            encoder[-1].append((layer.out_channels, layer.in_channels))
    encoder[0][0] = (64, 21)
    assert decoder == [stage[::-1] for stage in encoder if stage]


def test_places_are_those_of_vggs_own_pools() -> None:
    backbone = create_backbone("vgg16_bn", weights="none")
    own: list[Tensor] = []
    for layer in backbone.model.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(
                lambda pool, given, _: own.append(
                    F.max_pool2d(given[0], pool.kernel_size, pool.stride, return_indices=True)[1]
                )
            )
    maps = list(backbone(torch.rand(1, 3, 50, 50), ["c0", "c1", "c2", "c3", "c4", "c5"]).values())
    assert len(own) == 5
    for wanted, (fine, deep) in zip(own, pairwise(maps), strict=True):
        assert torch.equal(max_pool(fine, deep)[1], wanted)


def test_wide_maps_are_averaged_over_neighbouring_channels() -> None:
    maps = torch.rand(1, 1024, 3, 4)
    wanted = (maps[:, 0::2] + maps[:, 1::2]) / 2
    torch.testing.assert_close(narrow(maps), wanted)
    assert narrow(maps[:, :512]).shape == (1, 512, 3, 4)
    assert torch.equal(narrow(maps[:, :512]), maps[:, :512])


def test_levels_that_are_not_halves_are_refused() -> None:
    with pytest.raises(FssBenchError, match=r"half the side .* got 9 and 6 cells"):
        max_pool(torch.rand(1, 2, 9, 9), torch.rand(1, 2, 6, 6))


def test_more_levels_than_unet_has_are_refused() -> None:
    backbone = PixelBackbone([2**i for i in range(7)])
    with pytest.raises(FssBenchError, match="takes 6 levels at most, got 7"):
        create_method("finetune", backbone, head="unet", level="+".join(f"c{i}" for i in range(7)))
