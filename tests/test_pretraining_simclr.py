import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_ranks import images, on_ranks, tiny_recipe, trunk, unit
from torch import Tensor, nn

from fss_bench.pretraining.objective import create_objective
from fss_bench.pretraining.simclr import SimCLR


def objective(name: str = "test_resnet", seed: int = 0, **changes: Any) -> SimCLR:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recipe = tiny_recipe("simclr", 1, **{"batch_size": 6, "dim": 16, **changes})
        return SimCLR(recipe, trunk(name, seed), (0.0,) * 3, (1.0,) * 3)


def nt_xent(one: Tensor, two: Tensor, temperature: float) -> tuple[float, float]:
    """Algorithm 1 of the paper, pair by pair: the loss, and the share of positives that win."""
    z = [v for pair in zip(unit(one).double(), unit(two).double(), strict=True) for v in pair]
    losses, right = [], 0
    for i in range(len(z)):
        positive = i + 1 if i % 2 == 0 else i - 1
        terms = {k: float(z[i] @ z[k]) / temperature for k in range(len(z)) if k != i}
        losses.append(-math.log(math.exp(terms[positive]) / sum(map(math.exp, terms.values()))))
        right += max(terms, key=terms.get) == positive
    return sum(losses) / len(z), right / len(z)


def test_loss_and_accuracy_equal_the_formula() -> None:
    model = objective().eval()
    first = images(6)
    second = 0.7 * first + 0.3 * images(6, 1)
    with torch.no_grad():
        one, two = model.encoder(first), model.encoder(second)
    loss, accuracy = nt_xent(one, two, 0.1)
    found = model(first, second, torch.arange(6))
    assert found.loss.item() == pytest.approx(loss, abs=1e-5)
    assert found.accuracy.item() == pytest.approx(accuracy)
    assert 0 < accuracy < 1


def test_the_published_loss_is_twice_as_large() -> None:
    """Cross entropies of both views are added there, with -1e9 for a view with itself."""
    model = objective().eval()
    first, second = images(6), images(6, 1)
    with torch.no_grad():
        a, b = unit(model.encoder(first)).double(), unit(model.encoder(second)).double()
    published = 0.0
    for x, y in ((a, b), (b, a)):
        logits = torch.cat([x @ y.T / 0.1, x @ x.T / 0.1 - 1e9 * torch.eye(6)], dim=1)
        published += nn.functional.cross_entropy(logits, torch.arange(6)).item()
    loss = model(first, second, torch.arange(6)).loss.item()
    assert published == pytest.approx(2 * loss, abs=1e-5)


def test_the_head_is_that_of_the_published_code() -> None:
    head = objective().encoder.head
    assert [type(layer) for layer in head.layers] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
        nn.BatchNorm1d,
    ]
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if p.requires_grad}
    assert shapes == {
        "layers.0.weight": (96, 96),
        "layers.1.weight": (96,),
        "layers.1.bias": (96,),
        "layers.3.weight": (16, 96),
        "layers.4.weight": (16,),  # a scale and no shift
    }
    assert not head.layers[4].bias.any()


def test_batch_norm_sees_both_views_at_once() -> None:
    model = objective()
    dark, bright = images(6) * 0.2, 0.8 + images(6, 1) * 0.2
    with torch.no_grad():
        together = model.encoder(torch.cat([dark, bright]))
        apart = torch.cat([model.encoder(dark), model.encoder(bright)])
    found = model(dark, bright, torch.arange(6)).loss.item()
    assert found == pytest.approx(nt_xent(*together.chunk(2), 0.1)[0], abs=1e-5)
    assert abs(found - nt_xent(*apart.chunk(2), 0.1)[0]) > 1e-2
    assert model.encoder.trunk.bn1.num_batches_tracked == 4


def test_there_is_no_state_beside_the_weights() -> None:
    model = objective()
    assert model.momentum_encoder is None
    assert model.extra_state() == {}
    model.load_extra_state({})


def test_ranks_contrast_with_each_other_and_share_gradients(tmp_path: Path) -> None:
    first, second = images(8), images(8, 1)

    def work(rank: int) -> dict[str, Any]:
        own = slice(4 * rank, 4 * rank + 4)
        model = objective().eval()
        found = model(first[own], second[own], torch.arange(8)[own])
        found.loss.backward()
        gradient = model.encoder.head.layers[3].weight.grad
        return {"loss": found.loss.item(), "hits": found.accuracy.item(), "gradient": gradient}

    answers = on_ranks(work, tmp_path)
    single = objective().eval()
    expected = single(first, second, torch.arange(8))
    expected.loss.backward()

    def mean(key: str) -> Any:
        return sum(answer[key] for answer in answers) / 2

    assert mean("loss") == pytest.approx(expected.loss.item(), abs=1e-5)
    assert mean("hits") == pytest.approx(expected.accuracy.item())
    torch.testing.assert_close(
        mean("gradient"), single.encoder.head.layers[3].weight.grad, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_any_backbone_learns(name: str) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    torch.manual_seed(0)
    recipe = tiny_recipe("simclr", 1, batch_size=8, dim=16)
    model = create_objective(recipe, trunk(name, **options), (0.0,) * 3, (1.0,) * 3, images=8)
    optimiser = torch.optim.AdamW(model.encoder.parameters(), 2e-3)
    losses = []
    for _ in range(6):
        loss = model(images(8), images(8).roll(3, -1), torch.arange(8)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
