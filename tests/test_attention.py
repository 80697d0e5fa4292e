import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fss_bench import attention
from fss_bench.attention import masked_mean_attention, sinusoids


def naive(query: Tensor, key: Tensor, masks: Tensor) -> Tensor:
    scores = torch.einsum("bhnd,bhmd->bhnm", query, key) / math.sqrt(query.shape[-1])
    return torch.einsum("bhnm,bmp->bhnp", scores.softmax(dim=-1), masks.expand(len(query), -1, -1))


def inputs(columns: int, batch: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(columns)
    query = torch.randn(2, 4, 13, width, generator=generator, requires_grad=True)
    key = torch.randn(2, 4, 29, width, generator=generator, requires_grad=True)
    return query, key, torch.rand(batch, 29, columns, generator=generator)


@pytest.mark.parametrize(("columns", "batch", "width"), [(1, 1, 16), (5, 2, 16), (11, 1, 5)])
def test_fused_equals_naive_with_gradients(columns: int, batch: int, width: int) -> None:
    query, key, masks = inputs(columns, batch, width)
    fused, plain = masked_mean_attention(query, key, masks), naive(query, key, masks)
    assert fused.shape == (2, 4, 13, columns)
    torch.testing.assert_close(fused, plain, atol=1e-6, rtol=0)
    with torch.no_grad():  # another way to the same
        torch.testing.assert_close(
            masked_mean_attention(query, key, masks), plain, atol=1e-6, rtol=0
        )
    weights = torch.randn(fused.shape, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad((fused * weights).sum(), (query, key))
    theirs = torch.autograd.grad((plain * weights).sum(), (query, key))
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 1e-2
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_the_fused_kernel_is_one_that_keeps_no_weights() -> None:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where it cannot run
        masked_mean_attention(*inputs(1, 1, 16))


@pytest.mark.parametrize("sizes", [(4, 8), (5, 7), (1, 1), (64, 64)])
def test_chunks_of_any_size_give_the_same(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of thousands, which overflow without the largest being taken off."""
    query, key, masks = (tensor.detach() for tensor in inputs(3, 2, 16))
    query = 1000 * query
    monkeypatch.setattr(attention, "QUERIES", sizes[0])
    monkeypatch.setattr(attention, "KEYS", sizes[1])
    found = masked_mean_attention(query, key, masks)
    wanted = naive(query.double(), key.double(), masks.double())
    torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=0)


def test_no_keys_and_no_masks() -> None:
    query, key, masks = (tensor.detach() for tensor in inputs(1, 1, 16))
    assert masked_mean_attention(query, key, masks[..., :0]).shape == (2, 4, 13, 0)


def test_dropout_takes_the_numbers_of_the_plain_formula() -> None:
    query, key, masks = inputs(2, 1, 16)
    torch.manual_seed(7)
    found = masked_mean_attention(query, key, masks, dropout=0.5)
    torch.manual_seed(7)
    scores = query @ key.transpose(-2, -1) / 4
    kept = torch.nn.functional.dropout(scores.softmax(dim=-1), 0.5)
    torch.testing.assert_close(found, kept @ masks[:, None], atol=1e-6, rtol=0)


def test_positions() -> None:
    codes = sinusoids(50, 6, torch.device("cpu"))
    assert codes.shape == (50, 6)
    for p in (0, 1, 49):
        for j in range(3):
            angle = p / 10000 ** (2 * j / 6)
            assert float(codes[p, 2 * j]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(codes[p, 2 * j + 1]) == pytest.approx(math.cos(angle), abs=1e-5)
