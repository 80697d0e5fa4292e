"""The contract that every registered method keeps."""

import pytest
import torch
from torch import Tensor, nn

from fss_bench import create_backbone, create_method
from fss_bench.errors import UnknownNameError
from fss_bench.method import splits
from fss_bench.registry import methods

Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module", params=methods.names())
def method(request: pytest.FixtureRequest) -> nn.Module:
    return create_method(request.param, create_backbone("tf_efficientnet_lite0", weights="none"))


def inputs(batch: int, ways: int, shots: int, size: int = 64, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    support = torch.rand(batch, ways, shots, 3, size, size, generator=generator)
    masks = torch.randint(0, 3, (batch, ways, shots, size, size), generator=generator)
    masks = torch.where(masks == 2, 255, masks).to(torch.uint8)
    return support, masks, torch.rand(batch, 3, size, size, generator=generator)


@pytest.mark.parametrize(("batch", "ways", "shots", "size"), [(1, 1, 1, 64), (2, 3, 2, 97)])
def test_logits_have_a_channel_a_way_and_background(
    method: nn.Module, batch: int, ways: int, shots: int, size: int
) -> None:
    logits = method(*inputs(batch, ways, shots, size))
    assert logits.shape[:2] == (batch, 1 + ways)
    assert logits.isfinite().all()


def test_batch_equals_its_items(method: nn.Module) -> None:
    support, masks, query = inputs(3, 2, 2)
    together = method(support, masks, query)
    alone = [method(support[i : i + 1], masks[i : i + 1], query[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_permuting_ways_permutes_the_output(method: nn.Module) -> None:
    support, masks, query = inputs(1, 3, 1)
    order = [2, 0, 1]
    logits, permuted = (
        method(support, masks, query),
        method(support[:, order], masks[:, order], query),
    )
    wanted = torch.cat([logits[:, :1], logits[:, 1:][:, order]], dim=1)
    torch.testing.assert_close(permuted, wanted, atol=1e-4, rtol=0)


def test_permuting_shots_changes_nothing(method: nn.Module) -> None:
    support, masks, query = inputs(1, 1, 3)
    order = [1, 2, 0]
    torch.testing.assert_close(
        method(support[:, :, order], masks[:, :, order], query),
        method(support, masks, query),
        atol=1e-4,
        rtol=0,
    )


def test_forward_is_encode_then_segment(method: nn.Module) -> None:
    assert splits(method)
    support, masks, query = inputs(1, 1, 2)
    shape = support.shape[:3]
    maps = method.encode(support.flatten(0, 2))
    maps = {k: v.reshape(*shape, *v.shape[1:]) for k, v in maps.items()}
    composed = method.segment(maps, masks, method.encode(query))
    assert torch.equal(composed, method(support, masks, query))


def test_inputs_are_not_written_to_and_answers_repeat(method: nn.Module) -> None:
    given = inputs(1, 1, 1)
    copies = tuple(t.clone() for t in given)
    first, second = method(*given), method(*given)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


@pytest.mark.parametrize("value", [0, 1, 255])
def test_masks_of_one_value_give_finite_logits(method: nn.Module, value: int) -> None:
    support, masks, query = inputs(1, 1, 1)
    assert method(support, torch.full_like(masks, value), query).isfinite().all()


def test_runs_under_bf16_autocast(method: nn.Module) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert method(*inputs(1, 1, 1)).float().isfinite().all()


def test_unknown_option_suggests_the_nearest() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", weights="none")
    with pytest.raises(UnknownNameError, match=r"'levl'.*did you mean 'level'"):
        create_method("panet", backbone, levl="c4")
