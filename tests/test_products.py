"""Products by convolution against torch's own, and where they are left to it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fss_bench.products import convolves, linear, product, product_over_rows

Product = Callable[[Tensor, Tensor], Tensor]
PRODUCTS: dict[str, tuple[Product, Product]] = {
    "product": (lambda a, b: product(a, b.mT), lambda a, b: a @ b.mT),
    "product_over_rows": (product_over_rows, lambda a, b: a @ b.mT),
    "linear": (lambda a, b: linear(a[None], b)[0], lambda a, b: F.linear(a[None], b)[0]),
    "linear with bias": (
        lambda a, b: linear(a[None], b, b.sum(dim=1))[0],
        lambda a, b: F.linear(a[None], b, b.sum(dim=1))[0],
    ),
}
"""Of rows a [M, C] and b [N, C], ours and torch's."""
every = pytest.mark.parametrize("name", PRODUCTS)


def factors(m: int, n: int, c: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m + 100 * n + 10000 * c)
    a, b = torch.randn(m, c, generator=generator), torch.randn(n, c, generator=generator)
    return a.to(dtype), b.to(dtype)


@every
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_full_precision_equals_the_matrix_product(name: str, m: int, n: int, c: int) -> None:
    ours, theirs = PRODUCTS[name]
    a, b = factors(m, n, c)
    found = ours(a, b)
    assert (found.shape, found.dtype) == ((m, n), torch.float32)
    wanted = theirs(a.double(), b.double())
    torch.testing.assert_close(found.double(), wanted, atol=1e-5 * c, rtol=0)


@every
@pytest.mark.parametrize("sizes", [(2300, 7, 640), (5, 2304, 33), (300, 300, 1)])
def test_sizes_of_attention(name: str, sizes: tuple[int, int, int]) -> None:
    ours, theirs = PRODUCTS[name]
    a, b = factors(*sizes)
    torch.testing.assert_close(ours(a, b), theirs(a, b), atol=2e-4, rtol=0)


@every
@pytest.mark.parametrize("empty", ["m", "c", "mc", "n", "mn", "nc", "mnc"])
def test_empty_sizes(name: str, empty: str) -> None:
    sizes = [0 if letter in empty else size for letter, size in zip("mnc", (3, 5, 4), strict=True)]
    ours, theirs = PRODUCTS[name]
    a, b = factors(*sizes)
    assert torch.equal(ours(a, b), theirs(a, b))


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_are_torchs_own(name: str, dtype: torch.dtype) -> None:
    ours, theirs = PRODUCTS[name]
    a, b = factors(9, 5, 7, dtype)
    found = ours(a, b)
    assert found.dtype == dtype
    assert torch.equal(found, theirs(a, b))
    assert not convolves(a, b)


@every
def test_autocast_is_torchs_own(name: str) -> None:
    ours, theirs = PRODUCTS[name]
    a, b = factors(9, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = ours(a, b), theirs(a, b)
        assert not convolves(a, b)
    assert found.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(found, wanted)
    assert convolves(a, b)


@every
@pytest.mark.parametrize("learns", [(True, True), (True, False), (False, True)])
def test_gradients_are_torchs_own(name: str, learns: tuple[bool, bool]) -> None:
    def gradients(function: Product) -> tuple[Tensor, ...]:
        given = [x.requires_grad_(on) for x, on in zip(factors(9, 5, 7), learns, strict=True)]
        found = function(*given)
        weights = torch.arange(45.0).reshape(9, 5)
        wanted = [x for x in given if x.requires_grad]
        return (found.detach(), *torch.autograd.grad((found * weights).sum(), wanted))

    ours, theirs = (gradients(function) for function in PRODUCTS[name])
    assert len(ours) == 1 + sum(learns)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@every
def test_what_learns_convolves_where_no_gradients_are_kept(name: str) -> None:
    a, b = (x.requires_grad_() for x in factors(9, 5, 7))
    assert not convolves(a, b)
    with torch.no_grad():
        assert convolves(a, b)
        found = PRODUCTS[name][0](a, b)
    assert not found.requires_grad
    torch.testing.assert_close(found, (PRODUCTS[name][1](a, b)).detach(), atol=1e-5, rtol=0)


@every
def test_factors_in_any_order_are_not_written_to(name: str) -> None:
    ours, theirs = PRODUCTS[name]
    wide, tall = factors(24, 16, 8)
    for a, b in ((wide[::3], tall[1::2]), (wide.mT.contiguous().mT, tall.mT.contiguous().mT)):
        before = a.clone(), b.clone()
        torch.testing.assert_close(ours(a, b), theirs(a, b), atol=1e-5, rtol=0)
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])


def test_the_layouts_of_the_results() -> None:
    a, b = factors(9, 5, 7)
    assert product(a, b.mT.contiguous()).is_contiguous()
    assert product_over_rows(a, b).mT.is_contiguous()


def test_linear_of_several_maps() -> None:
    generator = torch.Generator().manual_seed(0)
    cells, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((3, 20, 8), (6, 8), (6,))
    )
    found = linear(cells, weight, bias)
    torch.testing.assert_close(found, F.linear(cells, weight, bias), atol=1e-5, rtol=0)
