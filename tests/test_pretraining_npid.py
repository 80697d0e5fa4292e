import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining_ranks import MEAN, STD, images, on_ranks, tiny_recipe, trunk, unit
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.npid import NPID
from fss_bench.pretraining.objective import Outcome, create_objective

COUNT = 20


def objective(seed: int = 0, **changes: Any) -> NPID:
    options = {"batch_size": 4, "dim": 16, "negatives": 7, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NPID(tiny_recipe("npid", 1, **options), trunk(seed=seed), MEAN, STD, COUNT)


def forward(model: NPID, batch: Tensor, numbers: list[int], seed: int = 0) -> Outcome:
    torch.manual_seed(seed)
    return model(batch, None, torch.tensor(numbers))


def noise(seed: int, batch: int = 4, negatives: int = 7) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(COUNT, (batch, negatives), generator=generator).tolist()


def nce(v: Tensor, memory: Tensor, drawn: list[list[int]], z: float | None) -> tuple[float, float]:
    """Loss and Z of embeddings, term by term; `drawn` has the image itself first."""
    weights = [
        [math.exp(float(v[i] @ memory[j]) / 0.07) for j in row] for i, row in enumerate(drawn)
    ]
    flat = [w for row in weights for w in row]
    z = sum(flat) / len(flat) * COUNT if z is None else z
    uniform = (len(drawn[0]) - 1) / COUNT
    loss = 0.0
    for row in weights:
        probabilities = [w / z for w in row]
        loss -= math.log(probabilities[0] / (probabilities[0] + uniform + 1e-7))
        loss -= sum(math.log(uniform / (p + uniform + 1e-7)) for p in probabilities[1:])
    return loss / len(drawn), z


def drawn_rows(numbers: list[int], seed: int) -> list[list[int]]:
    return [[i, *row] for i, row in zip(numbers, noise(seed, len(numbers)), strict=True)]


def test_loss_equals_the_formula_and_z_is_set_once() -> None:
    model = objective().eval()
    z = None
    for seed, numbers in enumerate([[3, 11, 0, 19], [7, 2, 3, 5], [3, 1, 4, 9]]):
        batch = images(4, seed)
        before = model.extra_state()["memory"].double()
        v = unit(model.encoder(batch).detach()).double()
        expected, z = nce(v, before, drawn_rows(numbers, seed), z)
        found = forward(model, batch, numbers, seed)
        assert found.loss.item() == pytest.approx(expected, rel=1e-5)
        assert model.extra_state()["normaliser"].item() == pytest.approx(z, rel=1e-5)


def test_accuracy_is_the_share_above_all_negatives() -> None:
    model = objective()
    numbers = [3, 11, 0, 19]
    model.encoder.forward = lambda batch: torch.eye(4, 16)
    model.memory[:] = 0
    model.memory[numbers] = 0.5 * torch.eye(4, 16)
    rows = drawn_rows(numbers, 5)
    nearer = next(j for j in rows[2][1:] if j not in numbers)
    model.memory[nearer] = 0.9 * torch.eye(4, 16)[2]  # to the third image than its own row
    assert forward(model, images(4), numbers, 5).accuracy.item() == pytest.approx(3 / 4)


def test_an_image_drawn_as_its_own_noise_is_no_mistake() -> None:
    model = objective(negatives=200).eval()
    batch, numbers = images(4), [3, 11, 0, 19]
    assert all(i in row for i, row in zip(numbers, noise(0, 4, 200), strict=True))
    model.memory[:] = 0
    model.memory[numbers] = torch.eye(4, 16)  # each orthogonal to the others
    model.encoder.forward = lambda batch: torch.eye(4, 16)
    assert forward(model, batch, numbers).accuracy.item() == 1


def test_gradients_are_those_of_the_memory_before_the_batch() -> None:
    model = objective()
    batch, numbers = images(4), [3, 11, 0, 19]
    memory = model.extra_state()["memory"]
    forward(model, batch, numbers).loss.backward()
    z = model.extra_state()["normaliser"]
    found = model.encoder.head.weight.grad.clone()

    model.zero_grad()
    rows = memory[torch.tensor(drawn_rows(numbers, 0))]
    v = nn.functional.normalize(model.encoder(batch), dim=1)
    p = ((v[:, None] * rows).sum(dim=2) / 0.07).exp() / z
    uniform = 7 / COUNT
    terms = torch.cat([p[:, :1] / (p[:, :1] + uniform), uniform / (p[:, 1:] + uniform)], dim=1)
    (-terms.log().sum() / 4).backward()
    torch.testing.assert_close(found, model.encoder.head.weight.grad, atol=1e-4, rtol=1e-3)


def test_memory_moves_at_the_images_of_the_batch_alone() -> None:
    model = objective().eval()
    batch, numbers = images(4), [3, 11, 0, 19]
    before = model.extra_state()["memory"]
    v = unit(model.encoder(batch).detach())
    forward(model, batch, numbers)
    after = model.extra_state()["memory"]
    for row, number in zip(v, numbers, strict=True):
        mixed = 0.5 * before[number] + 0.5 * row
        torch.testing.assert_close(after[number], mixed / mixed.norm(), atol=1e-6, rtol=1e-5)
    rest = [n for n in range(COUNT) if n not in numbers]
    assert torch.equal(after[rest], before[rest])
    assert (after[numbers] - before[numbers]).abs().min(dim=1).values.max() > 1e-3


def test_every_forward_of_a_step_is_remembered() -> None:
    model = objective()
    before = model.extra_state()["memory"]
    loss = (
        forward(model, images(4), [0, 1, 2, 3]).loss
        + forward(model, images(4, 1), [4, 5, 6, 7]).loss
    )
    loss.backward()  # the memory has moved twice since
    changed = (model.extra_state()["memory"] != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == list(range(8))


def test_the_memory_stands_still_without_gradients() -> None:
    model = objective()
    before = model.extra_state()["memory"]
    with torch.no_grad():
        forward(model, images(4), [0, 1, 2, 3])
    assert torch.equal(model.extra_state()["memory"], before)


def test_the_memory_starts_uniform() -> None:
    memory = NPID(tiny_recipe("npid", dim=128), trunk(), MEAN, STD, 500).extra_state()["memory"]
    bound = 1 / math.sqrt(128 / 3)
    assert memory.abs().max() <= bound
    quartiles = torch.quantile(memory, torch.tensor([0.25, 0.5, 0.75])) / bound
    torch.testing.assert_close(quartiles, torch.tensor([-0.5, 0.0, 0.5]), atol=0.02, rtol=0)


def test_extra_state_restores_memory_and_z() -> None:
    model, other = objective(), objective(seed=1)
    assert model.extra_state()["normaliser"].item() == 0  # saved before the first step too
    forward(model, images(4), [0, 1, 2, 3])
    other.load_state_dict(model.state_dict())
    other.load_extra_state(model.extra_state())
    found = [forward(m, images(4, 1), [4, 5, 6, 7]).loss for m in (model, other)]
    assert torch.equal(*found)
    for name, tensor in model.extra_state().items():
        assert torch.equal(other.extra_state()[name], tensor)
    assert not any("memory" in name for name in model.state_dict())


def test_the_memory_of_other_images_is_refused() -> None:
    recipe = tiny_recipe("npid", batch_size=4, dim=16, negatives=7)
    other = NPID(recipe, trunk(), MEAN, STD, COUNT + 1)
    with pytest.raises(FssBenchError, match=r"'memory': \[21, 16\].*instead of.*\[20, 16\]"):
        objective().load_extra_state(other.extra_state())


def test_ranks_keep_one_memory(tmp_path: Path) -> None:
    batch, numbers = images(8), [3, 11, 0, 19, 6, 8, 10, 1]

    def work(rank: int) -> dict[str, Any]:
        own = slice(4 * rank, 4 * rank + 4)
        model = objective().eval()
        for seed in (0, 2):
            forward(model, batch[own], numbers[own], seed + rank)
        return model.extra_state()

    one, two = on_ranks(work, tmp_path)
    single = objective().eval()
    for _ in range(2):
        forward(single, batch, numbers)
    torch.testing.assert_close(one["memory"], single.extra_state()["memory"], atol=1e-6, rtol=1e-5)
    assert torch.equal(one["memory"], two["memory"])
    assert torch.equal(one["normaliser"], two["normaliser"])

    start = objective().eval()
    v = unit(start.encoder(batch).detach()).double()
    memory = start.extra_state()["memory"].double()
    each = [
        nce(v[part], memory, drawn_rows(numbers[part], rank), None)[1]
        for rank, part in enumerate((slice(0, 4), slice(4, 8)))
    ]
    assert one["normaliser"].item() == pytest.approx(sum(each) / 2, rel=1e-5)
    assert abs(each[0] - each[1]) > 1e-3 * each[0]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_any_backbone_learns(name: str) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    recipe = tiny_recipe("npid", batch_size=8, dim=16, negatives=32)
    torch.manual_seed(0)
    model = create_objective(recipe, trunk(name, **options), MEAN, STD, images=64)
    assert (model.views, model.momentum_encoder) == (1, None)
    memory = model.extra_state()["memory"]
    optimiser = torch.optim.AdamW(model.encoder.parameters(), 2e-3)
    outcomes = []
    for _ in range(10):
        torch.manual_seed(0)
        outcomes.append(model(images(8), None, torch.arange(8)))
        optimiser.zero_grad()
        outcomes[-1].loss.backward()
        optimiser.step()
        # with the same targets all along
        model.load_extra_state({**model.extra_state(), "memory": memory})
    assert outcomes[-1].loss.item() < outcomes[0].loss.item() - 1
    assert outcomes[-1].accuracy > outcomes[0].accuracy
