from itertools import product

import pytest
import torch
from torch import Tensor

from fss_bench.correlation import CenterPivotConv4d, correlation, resize_pairs
from fss_bench.ops import resize_corners


def test_correlation_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 5, 2, 3, generator=generator)
    support = torch.randn(2, 5, 4, 2, generator=generator)
    support[:, :, 0, 0] = 0  # outside the mask
    found = correlation(query, support)
    assert found.shape == (2, 2, 3, 4, 2)
    for b, i, j, k, m in product(range(2), range(2), range(3), range(4), range(2)):
        a, c = query[b, :, i, j], support[b, :, k, m]
        wanted = (a @ c) / ((a.norm() + 1e-5) * (c.norm() + 1e-5))
        assert float(found[b, i, j, k, m]) == pytest.approx(max(0.0, float(wanted)), abs=1e-6)
    assert (found[..., 0, 0] == 0).all()
    assert (found > 0.1).any()


def slow_conv(layer: CenterPivotConv4d, pairs: Tensor, kernel: int) -> Tensor:
    """The two planes by their definition, out of a padded tensor."""
    _, channels, *sizes = pairs.shape
    half, stride = kernel // 2, layer.stride
    padded = torch.zeros(1, channels, *(n + 2 * half for n in sizes), dtype=pairs.dtype)
    inside = tuple(slice(half, half + n) for n in sizes)
    padded[(0, slice(None), *inside)] = pairs[0]
    out = [sizes[0], sizes[1], -(-sizes[2] // stride), -(-sizes[3] // stride)]
    result = torch.zeros(1, len(layer.conv1.bias), *out, dtype=pairs.dtype)
    taps = list(product(range(kernel), repeat=2))
    for i, j, k, m in product(*(range(n) for n in out)):
        total = layer.conv1.bias + layer.conv2.bias
        for u, v in taps:
            near_query = padded[0, :, i + u, j + v, stride * k + half, stride * m + half]
            near_support = padded[0, :, i + half, j + half, stride * k + u, stride * m + v]
            total = total + layer.conv1.weight[:, :, u, v] @ near_query
            total = total + layer.conv2.weight[:, :, u, v] @ near_support
        result[0, :, i, j, k, m] = total
    return result


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 4)])
def test_convolution_equals_its_definition(kernel: int, stride: int) -> None:
    torch.manual_seed(kernel)
    layer = CenterPivotConv4d(2, 3, kernel, stride)
    pairs = torch.randn(1, 2, 3, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(pairs), slow_conv(layer, pairs, kernel), atol=1e-5, rtol=0)


def test_convolution_tells_query_from_support_and_episodes_apart() -> None:
    torch.manual_seed(0)
    layer = CenterPivotConv4d(2, 3, 3, 1)
    pairs = torch.randn(2, 2, 4, 4, 4, 4)
    with torch.no_grad():
        together = layer(pairs)
        swapped = layer(pairs.permute(0, 1, 4, 5, 2, 3)).permute(0, 1, 4, 5, 2, 3)
        torch.testing.assert_close(together[1:], layer(pairs[1:]), atol=1e-6, rtol=0)
    assert (together - swapped).abs().max() > 0.1


def test_resizing_acts_on_the_query_and_where_needed_on_the_support() -> None:
    pairs = torch.randn(1, 2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    resized = resize_pairs(pairs, torch.empty(1, 2, 5, 7, 2, 2))
    for k, m in product(range(2), repeat=2):
        torch.testing.assert_close(resized[..., k, m], resize_corners(pairs[..., k, m], (5, 7)))
    both = resize_pairs(pairs, torch.empty(1, 2, 5, 7, 3, 1))
    torch.testing.assert_close(both[..., 1, 0], (resized[..., 0, 0] + resized[..., 1, 0]) / 2)
    assert both.shape == (1, 2, 5, 7, 3, 1)
