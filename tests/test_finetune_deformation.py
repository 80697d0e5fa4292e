"""U-Net's border weights and elastic deformation, against slow formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fss_bench.heads.border import border_weights
from fss_bench.heads.elastic import deform, displacements

Mask = NDArray[np.bool_]


def drawn(picture: str) -> Mask:
    return np.array([[c == "#" for c in line] for line in picture.split()])


def flood(mask: Mask, start: tuple[int, int]) -> Mask:
    found, front = np.zeros_like(mask), [start]
    while front:
        y, x = front.pop()
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not found[y, x]:
            found[y, x] = True
            front += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return found


def slow_borders(mask: Mask, sigma: float) -> NDArray[np.float64]:
    objects: list[Mask] = []
    for start in zip(*np.nonzero(mask), strict=True):
        if not any(one[start] for one in objects):
            objects.append(flood(mask, start))
    borders = [
        [(y, x) for y, x in zip(*np.nonzero(one), strict=True) if edge(one, y, x)]
        for one in objects
    ]
    weights = np.zeros(mask.shape)
    for y, x in np.ndindex(*mask.shape):
        first, second = sorted(
            min(math.hypot(y - v, x - u) for v, u in border) for border in borders
        )[:2]
        weights[y, x] = math.exp(-((first + second) ** 2) / (2 * sigma**2))
    return weights


def edge(one: Mask, y: int, x: int) -> bool:
    near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return any(0 <= v < one.shape[0] and 0 <= u < one.shape[1] and not one[v, u] for v, u in near)


THREE = """
###.......
####...##.
#####..##.
####......
###..#....
....##....
"""


@pytest.mark.parametrize("sigma", [5.0, 2.0])
def test_border_weights_equal_loops(sigma: float) -> None:
    mask = drawn(THREE)
    found = border_weights(mask, sigma)
    np.testing.assert_allclose(found, slow_borders(mask, sigma), rtol=1e-5)
    assert found.max() < 1


def test_the_gap_weighs_most_and_one_object_nothing() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 3:12] = mask[5:15, 15:24] = True
    weights = border_weights(mask)
    assert weights[10, 13] == pytest.approx(math.exp(-16 / 50), rel=1e-5)
    assert weights[10, 13] > weights[10, 28]
    assert weights[10, 13] > weights[1, 13]
    mask[:, 15:] = False
    assert not border_weights(mask).any()
    assert not border_weights(np.zeros((4, 4), dtype=bool)).any()


def blot(size: int = 40) -> tuple[Tensor, Tensor]:
    mask = torch.zeros(1, size, size, dtype=torch.long)
    mask[:, 8:30, 12:25] = 1
    return mask[:, None].float().repeat(1, 3, 1, 1), mask


def test_image_and_mask_move_alike() -> None:
    image, mask = blot()
    shift = displacements(image, mask, 4.0, 0)
    moved = deform(mask[:, None].float(), shift, nearest=True)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert (moved != mask).float().mean() > 0.02
    smooth = deform(image, shift)[:, :1]
    sure = (smooth - 0.5).abs() > 0.499  # elsewhere bilinear and nearest may differ by a pixel
    assert sure.float().mean() > 0.85
    assert torch.equal((smooth > 0.5)[sure], (moved > 0.5)[sure])
    assert torch.equal(deform(image, shift, nearest=True)[:, :1], moved)


def test_pixels_are_taken_from_where_the_displacement_points() -> None:
    image = torch.rand(1, 2, 9, 12, generator=torch.Generator().manual_seed(0))
    shift = torch.zeros(1, 2, 9, 12)
    shift[:, 0], shift[:, 1] = 2, -1
    moved = deform(image, shift)
    torch.testing.assert_close(moved[..., 1:, :-2], image[..., :-1, 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., 0, :-2], image[..., 0, 2:], atol=1e-5, rtol=0)  # mirrored
    torch.testing.assert_close(moved[..., 1:, -2], image[..., :-1, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., 1:, -1], image[..., :-1, -2], atol=1e-5, rtol=0)
    half = deform(image, torch.full((1, 2, 9, 12), 0.5))
    wanted = F.avg_pool2d(image, 2, stride=1)
    torch.testing.assert_close(half[..., :-1, :-1], wanted, atol=1e-5, rtol=0)
    assert torch.equal(deform(image, torch.zeros_like(shift), nearest=True), image)


def test_displacements_interpolate_nine_vectors() -> None:
    image, mask = blot(41)
    shift = displacements(image, mask, 10.0, 3)
    nodes = shift[..., ::20, ::20]
    wanted = F.interpolate(nodes, (41, 41), mode="bicubic", align_corners=True)
    torch.testing.assert_close(shift, wanted, atol=1e-3, rtol=0)
    assert torch.equal(displacements(image, mask, 0.0, 3), torch.zeros(1, 2, 41, 41))
    torch.testing.assert_close(displacements(image, mask, 5.0, 3), shift / 2)


def test_vectors_are_gaussian_of_the_size_asked() -> None:
    image, mask = blot(5)
    drawn_vectors = torch.cat(
        [displacements(image, mask, 10.0, key)[..., ::2, ::2].flatten() for key in range(300)]
    )
    assert abs(float(drawn_vectors.mean())) < 0.6
    assert abs(float(drawn_vectors.std()) - 10) < 0.4
    assert abs(float((drawn_vectors.abs() < 10).float().mean()) - 0.683) < 0.03


def test_a_draw_depends_on_the_support_and_the_key_alone() -> None:
    image, mask = blot()
    other = image.clone()
    other[0, 0, 0, 0] = 0.5
    state = torch.get_rng_state()
    first = displacements(torch.cat([image, other]), torch.cat([mask, mask]), 3.0, 0, 1)
    assert torch.equal(torch.get_rng_state(), state)
    turned = displacements(torch.cat([other, image]), torch.cat([mask, mask]), 3.0, 0, 1)
    assert torch.equal(first.flip(0), turned)
    assert torch.equal(first[:1], displacements(image, mask, 3.0, 0, 1))
    for different in (
        first[1:],
        displacements(image, mask, 3.0, 0, 2),
        displacements(image, mask, 3.0, 1, 1),
        displacements(image, 0 * mask, 3.0, 0, 1),
    ):
        assert not torch.equal(first[:1], different)
