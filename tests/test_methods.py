"""The contract that every registered method keeps."""

import inspect

import pytest
import torch
from torch import Tensor, nn

from fss_bench import create_backbone, create_method
from fss_bench.errors import FssBenchError, UnknownNameError
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


@pytest.mark.parametrize(
    ("batch", "ways", "shots", "size"), [(1, 1, 1, 64), (2, 3, 2, 97), (1, 2, 5, 65)]
)
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


def test_no_way_is_preferred_for_its_place(method: nn.Module) -> None:
    support, masks, query = inputs(1, 2, 3)
    logits = method(support, masks, query)
    swapped = method(support.flip(1), masks.flip(1), query).argmax(dim=1)
    best = logits.topk(2, dim=1).values
    told_apart = best[:, 0] - best[:, 1] > 1e-6
    assert told_apart.float().mean() > 0.5  # a border without information may be tied
    renamed = torch.tensor([0, 2, 1])[swapped]
    assert torch.equal(logits.argmax(dim=1)[told_apart], renamed[told_apart])


def test_permuting_shots_changes_nothing_where_the_method_says_so(method: nn.Module) -> None:
    if not getattr(method, "shots_commute", True):
        pytest.skip("its published form depends on the order of shots")
    support, masks, query = inputs(1, 1, 3)
    order = [1, 2, 0]
    torch.testing.assert_close(
        method(support[:, :, order], masks[:, :, order], query),
        method(support, masks, query),
        atol=1e-4,
        rtol=0,
    )


def test_other_supports_give_another_answer(method: nn.Module) -> None:
    support, masks, query = inputs(1, 1, 1)
    other, further, _ = inputs(1, 1, 1, seed=1)
    answer = method(support, masks, query)
    assert not torch.equal(answer, method(other, masks, query))
    assert not torch.equal(answer, method(support, further, query))


def test_the_query_mask_is_no_input(method: nn.Module) -> None:
    taken = list(inspect.signature(method.forward).parameters)
    assert taken == ["support_images", "support_masks", "query_images"]


def test_forward_is_encode_then_segment(method: nn.Module) -> None:
    if not splits(method):
        pytest.skip("it is not split")
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


def test_an_answer_leaves_no_trace(method: nn.Module) -> None:
    def traces() -> tuple[object, ...]:
        attributes = {
            f"{name}.{key}": repr(value)
            for name, module in method.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, (bool, int, float, str, tuple, list, dict, set))
            and not key.startswith("_")
        }
        tensors = {k: v.clone() for k, v in method.state_dict().items()}
        return attributes, tensors, torch.get_rng_state(), torch.is_grad_enabled()

    before = traces()
    method(*inputs(1, 2, 2))
    attributes, tensors, generator, grad = traces()
    assert attributes == before[0]
    assert isinstance(tensors, dict)
    assert isinstance(before[1], dict)
    assert all(torch.equal(v, before[1][k]) for k, v in tensors.items())
    assert torch.equal(torch.as_tensor(generator), torch.as_tensor(before[2]))
    assert grad == before[3]
    assert not any(module.training for module in method.modules())


def test_gradients_reach_what_is_trained_and_nothing_else(method: nn.Module) -> None:
    if not hasattr(method, "loss"):
        pytest.skip("it has no loss")
    support, masks, query = inputs(1, 1, 1)
    labels = torch.randint(0, 2, (1, 64, 64), generator=torch.Generator().manual_seed(2))
    if method.registered_name == "finetune":
        with pytest.raises(FssBenchError, match="learns nothing"):
            method.loss(support, masks, query, labels)
        return
    loss = method.loss(support, masks, query, labels)
    assert loss.isfinite()
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    if not trained:
        assert not loss.requires_grad
        return
    method.zero_grad()
    loss.backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None}
    unused = {n for n in trained - reached if n.startswith("support_backbone.")}  # after its level
    assert reached == trained - unused
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    method.zero_grad()


def test_training_mode_leaves_what_is_frozen_in_eval_mode(method: nn.Module) -> None:
    method.train()
    frozen = [
        name
        for name, module in method.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.training
        and not any(p.requires_grad for p in module.parameters())
    ]
    method.eval()
    assert not frozen


def test_a_method_starts_the_same_every_time(method: nn.Module) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    backbone = create_backbone("tf_efficientnet_lite0", weights="none")
    twin = create_method(str(method.registered_name), backbone)
    pairs = zip(twin.parameters(), method.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_dict_makes_the_same_method(method: nn.Module) -> None:
    name = str(method.registered_name)
    twin = create_method(name, create_backbone("tf_efficientnet_lite0", weights="none", seed=1))
    given = inputs(1, 1, 2)
    twin.load_state_dict(method.state_dict(), strict=True)
    assert torch.equal(twin(*given), method(*given))


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("shots", [1, 2])
def test_masks_of_one_value_give_finite_logits(method: nn.Module, value: int, shots: int) -> None:
    support, masks, query = inputs(1, 1, shots)
    assert method(support, torch.full_like(masks, value), query).isfinite().all()


def test_runs_under_bf16_autocast(method: nn.Module) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert method(*inputs(1, 1, 1)).float().isfinite().all()


def test_unknown_option_suggests_the_nearest() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", weights="none")
    with pytest.raises(UnknownNameError, match=r"'levl'.*did you mean 'level'"):
        create_method("panet", backbone, levl="c4")
