import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench.ops import (
    cosine_to_prototypes,
    cross_entropy,
    extent,
    foreground,
    interpolation_matrix,
    masked_average_pool,
    resize_corners,
    resize_logits,
    transposed_resize,
)

SIZES = [((5, 7), (40, 56)), ((13, 13), (97, 101)), ((12, 12), (12, 12)), ((20, 9), (11, 30))]


def upsampled_pool(features: Tensor, masks: Tensor) -> Tensor:
    """The slow way: upsample the features, then average under the mask."""
    large = F.interpolate(features, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    weights = masks[:, None].to(features.dtype)
    return (large * weights).sum(dim=(2, 3)) / (weights.sum(dim=(2, 3)) + 1e-5)


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_matrix_is_torchs_bilinear_interpolation(
    small: tuple[int, int], large: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, *small, dtype=torch.float64, generator=generator)
    wanted = F.interpolate(image, size=large, mode="bilinear", align_corners=False)
    rows = interpolation_matrix(small[0], large[0], image)
    columns = interpolation_matrix(small[1], large[1], image)
    torch.testing.assert_close(rows @ image @ columns.T, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_masked_average_pool_equals_upsampling_the_features(
    small: tuple[int, int], large: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 8, *small, dtype=torch.float64, generator=generator)
    masks = torch.rand(3, *large, generator=generator) > 0.7
    pooled = masked_average_pool(features, masks)
    torch.testing.assert_close(pooled, upsampled_pool(features, masks), atol=1e-6, rtol=0)


def test_pooling_under_a_shrunken_mask_is_something_else() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(1, 4, 6, 6, generator=generator)
    masks = torch.zeros(1, 50, 50)
    masks[:, 3:20, 5:33] = 1
    nearest = F.interpolate(masks[:, None], size=(6, 6), mode="nearest")
    shrunken = (features * nearest).sum(dim=(2, 3)) / nearest.sum()
    assert (masked_average_pool(features, masks) - shrunken).abs().max() > 1e-2


def test_transposed_resize_keeps_the_area() -> None:
    masks = torch.zeros(2, 33, 47)
    masks[0, 2:9, 4:40] = 1
    cells = transposed_resize(masks, (5, 6))
    torch.testing.assert_close(cells.sum(dim=(1, 2)), torch.tensor([7.0 * 36, 0.0]))


def test_empty_mask_gives_zeros() -> None:
    pooled = masked_average_pool(torch.randn(2, 3, 4, 4), torch.zeros(2, 32, 32))
    assert torch.equal(pooled, torch.zeros(2, 3))


def test_cosine_against_a_loop() -> None:
    features, prototypes = torch.randn(2, 5, 3, 4), torch.randn(2, 3, 5)
    scores = cosine_to_prototypes(features, prototypes)
    for b in range(2):
        for p in range(3):
            for y in range(3):
                for x in range(4):
                    cell, prototype = features[b, :, y, x], prototypes[b, p]
                    wanted = (cell @ prototype) / (cell.norm() * prototype.norm())
                    assert scores[b, p, y, x].item() == pytest.approx(wanted.item(), abs=1e-5)


def test_cosine_with_a_zero_prototype_is_zero() -> None:
    assert cosine_to_prototypes(torch.randn(1, 4, 2, 2), torch.zeros(1, 1, 4)).abs().max() == 0


def test_resize_logits() -> None:
    logits = torch.randn(1, 2, 6, 6)
    assert resize_logits(logits, (6, 6)) is logits
    wanted = F.interpolate(logits, (9, 13), mode="bilinear", align_corners=False)
    assert torch.equal(resize_logits(logits, (9, 13)), wanted)


def test_corners_stay_where_they_are_in_a_resize() -> None:
    maps = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    wanted = torch.tensor([[[[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]]])
    assert torch.equal(resize_corners(maps, (3, 3)), wanted)
    assert resize_corners(maps, (2, 2)) is maps


def test_ignored_pixels_are_no_foreground() -> None:
    assert foreground(torch.tensor([0, 1, 255, 1])).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_an_extent_tells_a_size_and_holds_nothing() -> None:
    found = extent(torch.rand(2, 3, 5, 7))
    assert found.shape == (2, 0, 5, 7)
    assert found.numel() == 0


@pytest.mark.parametrize(("void", "counted"), [(255, [0, 1]), (0, [0, 1, 0]), (1, [0, 1, 1])])
def test_cross_entropy_counts_ignored_pixels_as_told(void: int, counted: list[int]) -> None:
    logits = torch.tensor([[[[2.0, 0.0, 1.0]], [[0.0, 1.0, 3.0]]]])
    masks = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    chances = logits[0, :, 0].softmax(dim=0)
    wanted = -sum(chances[c, i].log() for i, c in enumerate(counted)) / len(counted)
    torch.testing.assert_close(cross_entropy(logits, masks, void), wanted)
    assert masks[0, 0, 2] == 255
