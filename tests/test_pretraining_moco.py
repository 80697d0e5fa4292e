import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_ranks import MEAN, STD, images, on_ranks, tiny_recipe, trunk, unit
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.pretraining import moco
from fss_bench.pretraining.batches import default_bn_groups
from fss_bench.pretraining.moco import MoCo
from fss_bench.pretraining.objective import Outcome, create_objective, momentum_at


def objective(
    version: int = 2, batch: int = 8, name: str = "test_resnet", seed: int = 0, **changes: Any
) -> MoCo:
    options = {"batch_size": batch, "queue_size": 3 * batch, "dim": 16, "bn_groups": 2, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MoCo(tiny_recipe("moco", version, **options), trunk(name, seed), MEAN, STD)


def step(model: MoCo, seed: int, batch: int = 8) -> Outcome:
    model.start_step(0.0)
    return model(images(batch, seed), images(batch, seed + 1000), torch.arange(batch))


def nudge(model: MoCo, seed: int) -> None:
    """A stand-in for an optimiser's step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


def unshuffled(batch: Tensor, distributed: bool = False) -> tuple[Tensor, Tensor]:
    return batch, torch.arange(len(batch))


# -- loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "temperature"), [(1, 0.07), (2, 0.2)])
def test_loss_and_accuracy_equal_the_formula(version: int, temperature: float) -> None:
    model = objective(version).eval()  # running statistics: keys do not depend on the shuffle
    first, second = images(8), images(8, 1)
    with torch.no_grad():
        queries = unit(model.encoder(first)).double()
        keys = unit(model.momentum_encoder(second)).double()
    queue = model.extra_state()["queue"].double()
    losses, right = [], 0
    for q, k in zip(queries, keys, strict=True):
        positive = math.exp(float(q @ k) / temperature)
        negative = [math.exp(float(q @ old) / temperature) for old in queue]
        losses.append(-math.log(positive / (positive + sum(negative))))
        right += all(positive > n for n in negative)
    found = model(first, second, torch.arange(8))
    assert found.loss.item() == pytest.approx(sum(losses) / 8, abs=1e-5)
    assert found.accuracy.item() == pytest.approx(right / 8)


def test_accuracy_counts_queries_above_all_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    model = objective()
    own = torch.eye(8, 16)
    for encoder in (model.encoder, model.momentum_encoder):
        monkeypatch.setattr(encoder, "forward", lambda batch, groups: batch.flatten(1)[:, :16])
    model.contrast.memory_bank.bank[:] = -own[0]
    model.contrast.memory_bank.bank[:5] = own[:5]  # no nearer than the positive, nor farther
    views = torch.zeros(8, 3, 4, 4)
    views[:, 0] = own.view(8, 4, 4)
    monkeypatch.setattr(moco, "batch_shuffle", unshuffled)
    assert model(views, views, torch.arange(8)).accuracy.item() == pytest.approx(3 / 8)


def test_heads_are_those_of_the_papers() -> None:
    linear = objective(1).encoder.head
    assert isinstance(linear, nn.Linear)
    assert linear.weight.shape == (16, 96)
    layers = list(objective(2).encoder.head.layers)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in objective(2).encoder.head.parameters()] == [
        (96, 96),
        (96,),
        (16, 96),
        (16,),
    ]


def test_autocast_does_not_reach_the_logits() -> None:
    model = objective().eval()
    first, second = images(8), images(8, 1)
    queue = model.extra_state()["queue"].double()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(first, second, torch.arange(8))
        queries = unit(model.encoder(first).float()).double()
        keys = unit(model.momentum_encoder(second).float()).double()
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ queue.T], dim=1) / 0.2
    expected = (logits.logsumexp(dim=1) - logits[:, 0]).mean()
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(expected.item(), abs=1e-5)


# -- momentum encoder ------------------------------------------------------------------------------


def test_keys_parameters_are_a_moving_average() -> None:
    model = objective(momentum=0.9)
    nudge(model, 0)
    before = [p.double().clone() for p in model.momentum_encoder.parameters()]
    step(model, 0)
    moved = 0.0
    for k, old, q in zip(
        model.momentum_encoder.parameters(), before, model.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(k.double(), 0.9 * old + 0.1 * q.double(), atol=1e-6, rtol=1e-6)
        moved = max(moved, float((k - old).abs().max()))
    assert moved > 1e-3  # a key encoder that stands still would fail here


def test_momentum_moves_once_a_step_however_many_forwards() -> None:
    model = objective(momentum=0.9)
    nudge(model, 0)
    step(model, 0)
    after = [p.clone() for p in model.momentum_encoder.parameters()]
    model(images(8), images(8, 1), torch.arange(8))
    assert all(
        torch.equal(a, b) for a, b in zip(model.momentum_encoder.parameters(), after, strict=True)
    )


def test_keys_come_from_the_moving_average() -> None:
    model = objective(momentum=0.5).eval()
    step(model, 0)
    nudge(model, 0)
    second = images(8, 1000)
    frozen = unit(model.momentum_encoder(second)).detach()
    step(model, 0)
    keys = model.extra_state()["queue"][8:16]
    expected = unit(model.momentum_encoder(second)).detach()
    torch.testing.assert_close(keys, expected, atol=1e-6, rtol=1e-5)
    assert (keys - frozen).abs().max() > 1e-2  # those of an encoder that never moved
    assert (keys - unit(model.encoder(second))).abs().max() > 1e-2  # nor is it the query encoder


def test_only_the_query_encoder_gets_gradients() -> None:
    model = objective()
    step(model, 0).loss.backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.momentum_encoder.parameters())


def test_batch_norm_buffers_of_the_key_encoder_are_its_own() -> None:
    model = objective(momentum=0.9)
    before = model.momentum_encoder.trunk.bn1.running_mean.clone()
    model.start_step(0.0)
    assert torch.equal(model.momentum_encoder.trunk.bn1.running_mean, before)
    dark, bright = images(8) * 0.2, 0.8 + images(8, 1) * 0.2
    model(dark, bright, torch.arange(8))
    q, k = model.encoder.trunk.bn1, model.momentum_encoder.trunk.bn1
    assert q.num_batches_tracked == k.num_batches_tracked == 2  # once a group
    assert (q.running_mean - k.running_mean).abs().max() > 1e-2
    assert not torch.equal(k.running_mean, before)


def test_momentum_schedules() -> None:
    constant, rising = tiny_recipe("moco", 2), tiny_recipe("moco", 3)
    assert [momentum_at(constant, p) for p in (0.0, 0.5, 0.9)] == [0.999] * 3
    for p in (0.0, 0.25, 0.5, 0.99):
        expected = 1 - 0.5 * (1 + math.cos(math.pi * p)) * (1 - 0.99)
        assert momentum_at(rising, p) == pytest.approx(expected, abs=1e-12)


# -- queue -----------------------------------------------------------------------------------------


def test_the_queue_is_first_in_first_out_and_wraps_exactly() -> None:
    model = objective().eval()  # running statistics: keys can be had again
    expected = model.extra_state()["queue"]
    assert expected.shape == (24, 16)
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(24))
    for n in range(5):
        nudge(model, n)
        step(model, n)
        keys = unit(model.momentum_encoder(images(8, n + 1000))).detach()
        at = 8 * n % 24
        expected[at : at + 8] = keys
        found = model.extra_state()
        torch.testing.assert_close(found["queue"], expected, atol=1e-6, rtol=1e-5)
        assert found["queue_pointer"].tolist() == [(at + 8) % 24]


def test_a_batch_is_no_negative_of_itself() -> None:
    model = objective(queue_size=8).eval()
    old = model.extra_state()["queue"].double()
    first, second = images(8), images(8, 1)
    with torch.no_grad():
        queries, keys = unit(model.encoder(first)), unit(model.momentum_encoder(second))
    found = model(first, second, torch.arange(8))
    assert (model.extra_state()["queue"] - keys).abs().max() < 1e-6  # it holds nothing but them
    positive = (queries * keys).sum(dim=1, keepdim=True).double()
    for negatives, equal in ((old, True), (keys.double(), False)):
        logits = torch.cat([positive, queries.double() @ negatives.T], dim=1) / 0.2
        loss = (logits.logsumexp(dim=1) - logits[:, 0]).mean().item()
        assert (abs(loss - found.loss.item()) < 1e-5) == equal


def test_the_queue_stands_still_without_gradients() -> None:
    model = objective()
    before = model.extra_state()
    with torch.no_grad():
        step(model, 0)
    after = model.extra_state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_extra_state_restores_queue_and_pointer_exactly() -> None:
    model = objective()
    first = model.extra_state()
    step(model, 0)
    saved = model.extra_state()
    step(model, 1)
    assert not torch.equal(saved["queue"], model.extra_state()["queue"])  # a copy, not a view
    other = objective(seed=5)
    assert not torch.equal(first["queue"], other.extra_state()["queue"])
    other.load_extra_state(saved)
    assert set(saved) == {"queue", "queue_pointer"}
    assert all(torch.equal(saved[name], other.extra_state()[name]) for name in saved)
    assert saved["queue_pointer"].tolist() == [8]


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    model, other = objective(), objective(seed=5)
    step(model, 0)
    other.load_state_dict(model.state_dict())
    other.load_extra_state(model.extra_state())
    losses = []
    for run in (model, other):
        torch.manual_seed(3)
        nudge(run, 1)
        losses.append(step(run, 1).loss)
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(model.extra_state()["queue"], other.extra_state()["queue"])


def test_a_state_dict_lacks_the_queue() -> None:
    """Why `extra_state` is there: lightly's buffers are not persistent."""
    model = objective()
    assert model.contrast.state_dict() == {}
    assert not any(tensor.shape == (24, 16) for tensor in model.state_dict().values())


def test_another_queue_is_refused() -> None:
    state = objective(queue_size=16).extra_state()
    with pytest.raises(FssBenchError, match=r"'queue': \[16, 16\].* instead of .*\[24, 16\]"):
        objective().load_extra_state(state)
    with pytest.raises(FssBenchError, match="no state beside the weights"):
        objective().load_extra_state({})


def test_construction_follows_the_global_generator() -> None:
    same, other = objective(seed=1), objective(seed=2)
    queue = objective(seed=1).extra_state()["queue"]
    assert torch.equal(queue, same.extra_state()["queue"])
    assert not torch.equal(queue, other.extra_state()["queue"])


@pytest.mark.parametrize(("queue", "cure"), [(20, 16), (4, 8)])
def test_a_queue_must_hold_whole_batches(queue: int, cure: int) -> None:
    with pytest.raises(FssBenchError, match=f"{queue} keys .* batch of 8.*queue_size={cure}"):
        objective(queue_size=queue)


def test_a_batch_that_would_overrun_the_queue_is_refused() -> None:
    with pytest.raises(FssBenchError, match="24 keys is no multiple of the batch of 10"):
        step(objective(), 0, batch=10)


# -- shuffled batch normalisation ------------------------------------------------------------------


def share_found_by_statistics(name: str, version: int, seed: int) -> float:
    """Share of queries whose nearest key, of views that have nothing in common, is of their group.

    32 images in 8 groups of 4. Three of a group are noise, drawn anew for the second view. The
    fourth is the same in both views and sets the group's statistics. So only batch normalisation
    can tell a query which keys went through the network with its own image; by chance it is 1 in 8.
    """
    model = objective(version, 32, name, seed, queue_size=32, bn_groups=8)
    marker = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    views = [0.5 + 0.02 * (images(32, 100 + 2 * seed + n) - 0.5) for n in range(2)]
    for view in views:
        view[::4] = marker.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    queries = unit(model.encoder(views[0], 8)).detach()
    torch.manual_seed(seed)
    model(*views, torch.arange(32))
    keys = model.extra_state()["queue"]
    noise = torch.arange(32) % 4 != 0
    group = torch.arange(32)[noise] // 4
    nearest = (queries[noise] @ keys[noise].T).argmax(dim=1)
    return float((group[nearest] == group).float().mean())


@pytest.mark.parametrize("version", [1, 2])
def test_shuffling_stops_the_leak_through_batch_statistics(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = [share_found_by_statistics("test_resnet", version, seed) for seed in range(6)]
    monkeypatch.setattr(moco, "batch_shuffle", unshuffled)
    leaks = [share_found_by_statistics("test_resnet", version, seed) for seed in range(6)]
    assert sum(leaks) / 6 > 0.5
    assert sum(shares) / 6 < 0.2  # 144 queries at a chance of 1 in 8: three standard errors


def test_keys_line_up_with_queries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled, plain = objective().eval(), objective().eval()
    torch.manual_seed(0)
    step(shuffled, 0)
    monkeypatch.setattr(moco, "batch_shuffle", unshuffled)
    step(plain, 0)
    torch.testing.assert_close(
        shuffled.extra_state()["queue"], plain.extra_state()["queue"], atol=1e-6, rtol=1e-5
    )


def test_keys_are_shuffled_and_queries_are_not() -> None:
    model = objective()
    seen: dict[str, Tensor] = {}
    for name, encoder in (("first", model.encoder), ("second", model.momentum_encoder)):
        encoder.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.update({name: inputs[0].clone()})
        )
    first, second = images(8), images(8, 1)
    torch.manual_seed(0)
    model(first, second, torch.arange(8))
    assert torch.equal(seen["first"], first)
    order = [int((second - image).flatten(1).abs().sum(dim=1).argmin()) for image in seen["second"]]
    assert sorted(order) == list(range(8)) != order


def test_default_groups() -> None:
    assert [default_bn_groups(batch, 1) for batch in (256, 32, 16, 24, 8, 10)] == [8, 8, 4, 4, 2, 2]
    assert default_bn_groups(256, 2) == default_bn_groups(7, 8) == 1
    assert objective(batch=16, bn_groups=0).bn_groups == 4
    assert (
        objective(
            batch=7,
            bn_groups=0,
            name="test_vit",
        ).bn_groups
        == 1
    )


@pytest.mark.parametrize(("batch", "cure"), [(6, 8), (9, 10), (31, 32), (2, 8)])
def test_a_batch_that_cannot_be_split_is_refused(batch: int, cure: int) -> None:
    with pytest.raises(FssBenchError, match=f"batch of {batch} images.*--batch-size of {cure}"):
        default_bn_groups(batch, 1)
    default_bn_groups(cure, 1)


# -- several processes -----------------------------------------------------------------------------


def test_ranks_mix_their_keys_and_share_one_queue(tmp_path: Path) -> None:
    first, second = images(16), images(16, 1)

    def work(rank: int) -> dict[str, Any]:
        own = slice(8 * rank, 8 * rank + 8)
        model = objective(batch=16, bn_groups=1)
        seen: list[Tensor] = []
        model.momentum_encoder.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0].clone())
        )
        model.eval()
        torch.manual_seed(100 + rank)
        found = model(first[own], second[own], torch.arange(16)[own])
        torch.manual_seed(100 + rank)
        again = model(first[own], second[own], torch.arange(16)[own])
        differences = (second[None] - seen[0][:, None]).flatten(2).abs().sum(dim=2)
        return {
            "order": differences.argmin(dim=1).tolist(),
            "exact": float(differences.amin(dim=1).max()),
            "loss": found.loss.item(),
            "again": again.loss.item(),
            **model.extra_state(),
        }

    one, two = on_ranks(work, tmp_path)
    assert one["exact"] == two["exact"] == 0
    assert sorted(one["order"] + two["order"]) == list(range(16))
    for rank, answer in enumerate((one, two)):  # each rank encodes images of both
        assert {n // 8 for n in answer["order"]} == {0, 1}, rank
    assert torch.equal(one["queue"], two["queue"])
    assert one["queue_pointer"].tolist() == two["queue_pointer"].tolist() == [32]

    single = objective(batch=16).eval()
    loss = single(first, second, torch.arange(16)).loss.item()
    single(first, second, torch.arange(16))
    torch.testing.assert_close(one["queue"], single.extra_state()["queue"], atol=1e-6, rtol=1e-5)
    assert (one["loss"] + two["loss"]) / 2 == pytest.approx(loss, abs=1e-5)
    assert one["again"] != one["loss"]


# -- any backbone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_vit", "test_convnext"])
def test_any_backbone_learns(name: str) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    recipe = tiny_recipe("moco", 2, batch_size=8, queue_size=16, dim=8, bn_groups=0)
    torch.manual_seed(0)
    model = create_objective(recipe, trunk(name, **options), MEAN, STD, images=16)
    queue = model.extra_state()
    for layer in (model.encoder.head.layers[0], model.encoder.head.layers[2]):
        layer.reset_parameters()  # otherwise queries equal their keys from the start
    optimiser = torch.optim.AdamW(model.encoder.parameters(), 2e-3)
    losses = []
    for _ in range(6):
        torch.manual_seed(0)
        model.start_step(0.0)
        model.load_extra_state(queue)  # of random directions, always the same ones
        loss = model(images(8), images(8), torch.arange(8)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


# -- create_objective ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "version", "name"),
    [
        ("moco", 1, "MoCo"),
        ("moco", 2, "MoCo"),
        ("moco", 3, "MoCoV3"),
        ("simclr", 1, "SimCLR"),
        ("npid", 1, "NPID"),
    ],
)
def test_every_recipe_has_its_objective(method: str, version: int, name: str) -> None:
    recipe = tiny_recipe(method, version, queue_size=512)
    model = create_objective(recipe, trunk(), MEAN, STD, images=512)
    assert type(model).__name__ == name
    assert model.views == (1 if method == "npid" else 2)
    assert (model.momentum_encoder is not None) == (method == "moco")


def test_a_missing_lightly_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly", None)  # as Python marks what cannot be imported
    with pytest.raises(FssBenchError, match=r"pip install 'fss-bench\[pretrain\]'"):
        create_objective(tiny_recipe("moco", 2), trunk(), MEAN, STD, images=512)
