import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_ranks import MEAN, STD, images, on_ranks, tiny_recipe, trunk, unit
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.moco_v3 import MoCoV3, prepare_vit
from fss_bench.pretraining.objective import Outcome, create_objective


def objective(name: str = "test_resnet", seed: int = 0, **changes: Any) -> MoCoV3:
    options = {"batch_size": 6, "dim": 16, "hidden": 32, **changes}
    sized = {"img_size": 32} if "vit" in name else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MoCoV3(tiny_recipe("moco", 3, **options), trunk(name, seed, **sized), MEAN, STD)


def nudge(model: MoCoV3, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


def step(model: MoCoV3, progress: float = 0.0, seed: int = 0) -> Outcome:
    model.start_step(progress)
    return model(images(6, seed), images(6, seed + 1000), torch.arange(6))


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> tuple[float, int]:
    """2 T times the cross entropy, pair by pair, and how many queries find their key."""
    loss, right = 0.0, 0
    for i, q in enumerate(unit(queries).double()):
        logits = [float(q @ k) / temperature for k in unit(keys).double()]
        loss += math.log(sum(map(math.exp, logits))) - logits[i]
        right += logits.index(max(logits)) == i
    return 2 * temperature * loss / len(queries), right


@pytest.mark.parametrize(("name", "temperature"), [("test_resnet", 1.0), ("test_vit", 0.2)])
def test_loss_and_accuracy_equal_the_formula(name: str, temperature: float) -> None:
    model = objective(name, temperature=temperature).eval()
    nudge(model)  # or keys could come from the query encoder
    first = images(6)
    second = 0.5 * first + 0.5 * images(6, 1)
    with torch.no_grad():
        q1, q2 = (model.predictor(model.encoder(view)) for view in (first, second))
        k1, k2 = (model.momentum_encoder(view) for view in (first, second))
    one, two = contrast(q1, k2, temperature), contrast(q2, k1, temperature)
    found = model(first, second, torch.arange(6))
    assert found.loss.item() == pytest.approx(one[0] + two[0], abs=1e-5)
    assert found.accuracy.item() == pytest.approx((one[1] + two[1]) / 12)
    swapped = model(second, first, torch.arange(6))
    assert swapped.loss.item() == pytest.approx(found.loss.item(), abs=1e-6)
    assert abs(one[0] - two[0]) > 1e-4  # so that the symmetry says something


def layers(head: Any) -> list[tuple[type, ...] | tuple[Any, ...]]:
    kinds: list[Any] = []
    for layer in head.layers:
        if isinstance(layer, nn.Linear):
            assert layer.bias is None
            kinds.append((layer.in_features, layer.out_features))
        else:
            kinds.append("relu" if isinstance(layer, nn.ReLU) else f"bn {layer.affine}")
    return kinds


def test_heads_are_those_of_the_paper() -> None:
    convolutional, vit = objective(), objective("test_vit")
    assert layers(convolutional.encoder.head) == [(96, 32), "bn True", "relu", (32, 16), "bn False"]
    assert layers(convolutional.predictor) == [(16, 32), "bn True", "relu", (32, 16)]
    assert layers(vit.encoder.head) == [
        *((64, 32), "bn True", "relu"),
        *((32, 32), "bn True", "relu"),
        *((32, 16), "bn False"),
    ]
    assert layers(vit.predictor) == [(16, 32), "bn True", "relu", (32, 16), "bn False"]


# -- momentum encoder ------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0.0, 0.4])
def test_keys_parameters_are_a_moving_average(progress: float) -> None:
    model = objective(momentum=0.9)
    nudge(model)
    before = [p.double().clone() for p in model.momentum_encoder.parameters()]
    step(model, progress)
    step_again = [p.clone() for p in model.momentum_encoder.parameters()]
    model(images(6), images(6, 1), torch.arange(6))  # a further forward of the same step
    m = 1 - 0.5 * (1 + math.cos(math.pi * progress)) * 0.1
    moved = 0.0
    for k, same, old, q in zip(
        model.momentum_encoder.parameters(),
        step_again,
        before,
        model.encoder.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(k.double(), m * old + (1 - m) * q.double(), atol=1e-6, rtol=1e-6)
        assert torch.equal(k, same)
        moved = max(moved, float((k - old).abs().max()))
    assert moved > 1e-3  # a key encoder that stands still would fail here


def test_only_encoder_and_predictor_get_gradients() -> None:
    model = objective()
    step(model).loss.backward()
    for part in (model.encoder, model.predictor):
        assert all(p.grad is not None for p in part.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.momentum_encoder.parameters())


def test_batch_norm_buffers_of_the_key_encoder_are_its_own() -> None:
    model = objective()
    nudge(model)
    step(model)
    q, k = model.encoder.trunk.bn1, model.momentum_encoder.trunk.bn1
    assert q.num_batches_tracked == k.num_batches_tracked == 2
    assert not torch.equal(q.running_mean, k.running_mean)


def test_there_is_no_queue() -> None:
    assert objective().extra_state() == {}


# -- vision transformers ---------------------------------------------------------------------------


def test_positions_are_sines_and_cosines() -> None:
    model = trunk("test_vit", img_size=64)  # 4 x 4 patches
    prepare_vit(model)
    found = model.pos_embed[0]
    assert not found[0].any()  # the class token
    quarter = 64 // 4
    for row in range(4):
        for column in range(4):
            rates = [1 / 10000 ** (i / quarter) for i in range(quarter)]
            expected = [
                f(at * r) for at in (row, column) for f in (math.sin, math.cos) for r in rates
            ]
            patch = found[1 + 4 * row + column]
            torch.testing.assert_close(patch, torch.tensor(expected), atol=1e-5, rtol=0)


def test_the_patch_projection_is_random_and_stays() -> None:
    model = objective("test_vit", momentum=0.5)
    projection = model.encoder.trunk.patch_embed.proj
    bound = math.sqrt(6 / (3 * 16 * 16 + 64))
    assert 0.99 * bound < projection.weight.abs().max() <= bound
    assert not projection.bias.any()
    before = [projection.weight.clone(), model.encoder.trunk.pos_embed.clone()]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    step(model).loss.backward()
    optimiser.step()
    model.start_step(0.0)
    for encoder in (model.encoder, model.momentum_encoder):
        frozen = [encoder.trunk.patch_embed.proj.weight, encoder.trunk.pos_embed]
        for tensor, old in zip(frozen, before, strict=True):
            torch.testing.assert_close(tensor, old, atol=1e-7, rtol=1e-6)
    assert torch.equal(projection.weight, before[0])


def test_the_class_token_is_read() -> None:
    model = objective("test_vit").eval()
    batch = images(2)
    normalised = (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    tokens = model.encoder.trunk.forward_features(normalised)
    torch.testing.assert_close(model.encoder.features(batch), tokens[:, 0])


def test_a_transformer_without_class_token_is_refused() -> None:
    with pytest.raises(FssBenchError, match="needs a vision transformer with class token"):
        objective("test_vit2")


# -- several processes -----------------------------------------------------------------------------


def test_ranks_contrast_with_the_keys_of_all(tmp_path: Path) -> None:
    first, second = images(8), images(8, 1)

    def work(rank: int) -> dict[str, float]:
        own = slice(4 * rank, 4 * rank + 4)
        model = objective(temperature=0.2).eval()
        found = model(first[own], second[own], torch.arange(8)[own])
        return {"loss": found.loss.item(), "hits": found.accuracy.item()}

    answers = on_ranks(work, tmp_path)
    model = objective(temperature=0.2).eval()
    with torch.no_grad():
        q = [model.predictor(model.encoder(view)) for view in (first, second)]
        k = [model.momentum_encoder(view) for view in (second, first)]
    for rank, answer in enumerate(answers):
        loss = right = 0.0
        for queries, keys in zip(q, k, strict=True):
            logits = (unit(queries) @ unit(keys).T).double() / 0.2
            for i in range(4 * rank, 4 * rank + 4):
                loss += 2 * 0.2 * float(logits[i].logsumexp(dim=0) - logits[i, i]) / 4
                right += int(logits[i].argmax()) == i
        assert answer["loss"] == pytest.approx(loss, abs=1e-5)
        assert answer["hits"] == pytest.approx(right / 8)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_any_backbone_learns(name: str) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    recipe = tiny_recipe("moco", 3, batch_size=8, dim=16, hidden=32, temperature=0.2)
    torch.manual_seed(0)
    model = create_objective(recipe, trunk(name, **options), MEAN, STD, images=8)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(8):
        model.start_step(0.0)
        loss = model(images(8), images(8).roll(3, -1), torch.arange(8)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
