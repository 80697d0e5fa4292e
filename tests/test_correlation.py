from itertools import product
from typing import Any

import pytest
import torch
from hsnet_reference import as_6d, from_6d, permuted_conv, slow_block, slow_correlation, slow_resize
from torch import Tensor

from fss_bench.correlation import (
    CenterPivotConv4d,
    Pairs,
    SqueezeBlock,
    correlation,
    query_cells,
    resize_pairs,
    support_cells,
)
from fss_bench.ops import resize_corners

INSIDE = {
    "all": torch.ones(5, 6, dtype=torch.bool),
    "some": torch.arange(30).reshape(5, 6) % 7 < 3,
    "one": torch.arange(30).reshape(5, 6) == 13,
    "none": torch.zeros(5, 6, dtype=torch.bool),
}
"""Support cells under a mask."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masked(inside: Tensor, channels: int = 2, query: tuple[int, int] = (3, 4)) -> Pairs:
    return from_6d(random(1, channels, *query, *inside.shape), inside)


def correlate(query: Tensor, support: Tensor, weights: Tensor) -> Pairs:
    return correlation(query_cells(query), *support_cells(support, weights))


def test_correlation_equals_a_loop() -> None:
    query, support = random(2, 5, 2, 3), random(2, 5, 4, 2, seed=1)
    weights = torch.ones(4, 2)
    weights[0, 0], weights[2, 1] = 0, 0.25
    pairs = correlate(query, support, weights)
    assert pairs.rows.shape == (7, 2, 2, 3)
    assert pairs.where.tolist() == [[-1, 0], [1, 2], [3, 4], [5, 6]]
    found = as_6d(pairs)[0]
    assert found.shape == (2, 2, 3, 4, 2)
    for b, i, j, k, m in product(range(2), range(2), range(3), range(4), range(2)):
        a, c = query[b, :, i, j], weights[k, m] * support[b, :, k, m]
        wanted = (a @ c) / ((a.norm() + 1e-5) * (c.norm() + 1e-5))
        assert float(found[b, i, j, k, m]) == pytest.approx(max(0.0, float(wanted)), abs=1e-6)
    assert (found[..., 0, 0] == 0).all()
    assert (found > 0.1).any()


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correlation_of_what_is_inside_equals_that_of_all(name: str, dtype: torch.dtype) -> None:
    query, support = random(3, 8, 4, 3).to(dtype), random(3, 8, 5, 6, seed=1).to(dtype)
    weights = INSIDE[name] * random(5, 6, seed=2).abs().clamp(1e-6, 1).to(dtype)
    pairs = correlate(query, support, weights)
    assert len(pairs.rows) == INSIDE[name].sum()
    assert pairs.rows.dtype == dtype
    wanted = slow_correlation(query, support * weights)
    atol = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(as_6d(pairs), wanted, atol=atol, rtol=0)


def test_cells_are_contiguous_and_unit_however_they_are_given() -> None:
    maps = 100 * random(2, 8, 4, 3).half()  # squares of it overflow fp16
    for given in (maps, maps.contiguous(memory_format=torch.channels_last)):
        asked = query_cells(given)
        shown, _ = support_cells(given, torch.ones(4, 3))
        assert asked.shape == (2, 4, 3, 8)
        assert asked.is_contiguous()
        assert shown.is_contiguous()
        torch.testing.assert_close(asked.flatten(1, 2), shown)
        torch.testing.assert_close(asked.norm(dim=-1), torch.ones(2, 4, 3), atol=1e-6, rtol=0)


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


SHAPES = [(3, 1), (3, 2), (5, 2), (5, 4)]


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize(("kernel", "stride"), SHAPES)
def test_convolution_equals_its_definition(kernel: int, stride: int, name: str) -> None:
    torch.manual_seed(kernel)
    layer = CenterPivotConv4d(2, 3, kernel, stride)
    pairs = masked(INSIDE[name])
    with torch.no_grad():
        wanted = slow_conv(layer, as_6d(pairs), kernel)
        torch.testing.assert_close(permuted_conv(layer, as_6d(pairs)), wanted, atol=1e-5, rtol=0)
        free = layer(pairs)
    for found in (free, layer(pairs)):  # the way that learns is another
        assert (
            found.where.tolist() == torch.arange(len(found.rows)).view(found.where.shape).tolist()
        )
        torch.testing.assert_close(as_6d(found), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize(("kernel", "stride"), SHAPES)
def test_gradients_of_a_convolution_equal_the_permuted_ones(
    kernel: int, stride: int, name: str
) -> None:
    torch.manual_seed(kernel)
    layer = CenterPivotConv4d(2, 3, kernel, stride).double()
    rows, where = masked(INSIDE[name])
    gradients: list[tuple[Tensor, ...]] = []
    for way in (layer, lambda pairs: from_6d(permuted_conv(layer, as_6d(pairs)))):
        given: Tensor = rows.double().requires_grad_()
        out: Any = way(Pairs(given, where))
        weighted = (out.rows * random(*out.rows.shape)).sum()
        gradients.append(torch.autograd.grad(weighted, [given, *layer.parameters()]))
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-12, rtol=0)


def test_convolution_tells_query_from_support() -> None:
    torch.manual_seed(0)
    layer = CenterPivotConv4d(2, 3, 3, 1)
    pairs = random(1, 2, 4, 4, 4, 4)
    with torch.no_grad():
        plain = as_6d(layer(from_6d(pairs)))
        turned = as_6d(layer(from_6d(pairs.permute(0, 1, 4, 5, 2, 3)))).permute(0, 1, 4, 5, 2, 3)
    assert (plain - turned).abs().max() > 0.1


@pytest.mark.parametrize("name", INSIDE)
def test_blocks_equal_permuted_ones_with_torchs_norm(name: str) -> None:
    torch.manual_seed(0)
    block = SqueezeBlock(2, (8, 16), (5, 3), (2, 2))
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)  # scales, shifts and biases tell channels apart
    pairs = masked(INSIDE[name])
    kept = pairs.rows.clone()
    with torch.no_grad():
        wanted = slow_block(block, as_6d(pairs))
        free = as_6d(block(pairs))
    assert torch.equal(pairs.rows, kept)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(free, wanted, atol=1e-5 * scale, rtol=0)
    torch.testing.assert_close(as_6d(block(pairs)), wanted, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("name", INSIDE)
def test_gradients_of_blocks_equal_the_permuted_ones(name: str) -> None:
    torch.manual_seed(0)
    block = SqueezeBlock(2, (8, 16), (5, 3), (2, 2)).double()
    rows, where = masked(INSIDE[name])
    pairs = Pairs(rows.double(), where)
    found, wanted = as_6d(block(pairs)), slow_block(block, as_6d(pairs))
    torch.testing.assert_close(found, wanted, atol=1e-11, rtol=0)
    weights = random(*wanted.shape)
    for ours, theirs in zip(
        *(
            torch.autograd.grad((out * weights).sum(), list(block.parameters()))
            for out in (found, wanted)
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_a_mean_far_from_zero_does_not_spoil_the_norm() -> None:
    torch.manual_seed(0)
    block = SqueezeBlock(2, (4,), (3,), (1,))
    with torch.no_grad():
        block[0].conv1.bias.fill_(300.0)
        exact = slow_block(block.double(), as_6d(masked(INSIDE["some"])).double())
        found = as_6d(block.float()(masked(INSIDE["some"]))).double()
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=0)  # 300 has 3e-5 in fp32


def test_resizing_acts_on_the_query_and_where_needed_on_the_support() -> None:
    values = random(1, 2, 3, 4, 2, 2)
    pairs, like = from_6d(values), from_6d(torch.empty(1, 2, 5, 7, 2, 2))
    resized = as_6d(resize_pairs(pairs, like))
    for k, m in product(range(2), repeat=2):
        torch.testing.assert_close(resized[..., k, m], resize_corners(values[..., k, m], (5, 7)))
    both = as_6d(resize_pairs(pairs, from_6d(torch.empty(1, 2, 5, 7, 3, 1))))
    torch.testing.assert_close(both[..., 1, 0], (resized[..., 0, 0] + resized[..., 1, 0]) / 2)
    assert both.shape == (1, 2, 5, 7, 3, 1)
    torch.testing.assert_close(both, slow_resize(values, (5, 7, 3, 1)))
