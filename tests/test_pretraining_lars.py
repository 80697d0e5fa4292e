import math

import pytest
import torch
from timm.optim.lars import Lars as TimmLars
from torch import Tensor, nn

from fss_bench.pretraining.lars import Lars

RATES = (0.5, 1.0, 0.25)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (3, 2), "kernel": (2, 1, 2, 2), "bias": (3,), "zeros": (2, 2)}
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    found["zeros"].zero_()
    return found


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    return {name: torch.randn(t.shape, generator=generator) for name, t in tensors().items()}


def by_hand(inside: bool, decay: float, trust: float, momentum: float) -> dict[str, list[float]]:
    """The published formulas, number by number."""
    values = {name: t.double().flatten().tolist() for name, t in tensors().items()}
    speeds = {name: [0.0] * len(v) for name, v in values.items()}
    for step, lr in enumerate(RATES):
        for name, gradient in gradients(step).items():
            g, p = gradient.double().flatten().tolist(), values[name]
            if name != "bias":
                g = [a + decay * b for a, b in zip(g, p, strict=True)]
                length, slope = math.hypot(*p), math.hypot(*g)
                ratio = trust * length / slope if length > 0 and slope > 0 else 1.0
                g = [ratio * a for a in g]
            speed = speeds[name] = [
                momentum * v + (lr * a if inside else a)
                for v, a in zip(speeds[name], g, strict=True)
            ]
            values[name] = [b - (v if inside else lr * v) for b, v in zip(p, speed, strict=True)]
    return values


def run(optimiser: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> None:
    for step, lr in enumerate(RATES):
        for name, gradient in gradients(step).items():
            parameters[name].grad = gradient
        optimiser.param_groups[0]["lr"] = lr
        optimiser.step()


@pytest.mark.parametrize("inside", [False, True])
def test_three_steps_equal_the_formula(inside: bool) -> None:
    parameters = {name: nn.Parameter(t) for name, t in tensors().items()}
    run(Lars(parameters.values(), 1.0, 0.9, 0.1, trust=0.02, lr_inside=inside), parameters)
    expected = by_hand(inside, 0.1, 0.02, 0.9)
    for name, parameter in parameters.items():
        found = parameter.detach().double().flatten()
        torch.testing.assert_close(found, torch.tensor(expected[name]).double(), rtol=0, atol=1e-6)


def test_the_variants_differ_where_the_rate_changes() -> None:
    one, two = (by_hand(inside, 0.1, 0.02, 0.9) for inside in (False, True))
    assert max(abs(a - b) for a, b in zip(one["bias"], two["bias"], strict=True)) > 0.1


def test_timms_lars_cannot_stand_in() -> None:
    """It has another denominator: no reason to keep ours if this fails."""
    parameters = {name: nn.Parameter(t) for name, t in tensors().items()}
    run(TimmLars(parameters.values(), 1.0, 0.9, weight_decay=0.1, trust_coeff=0.02), parameters)
    expected = torch.tensor(by_hand(False, 0.1, 0.02, 0.9)["matrix"])
    assert (parameters["matrix"].detach().flatten() - expected).abs().max() > 1e-4


def test_parameters_without_gradient_stay() -> None:
    frozen = nn.Parameter(torch.ones(2, 2))
    optimiser = Lars([frozen], 1.0, weight_decay=0.1)
    optimiser.step()
    assert torch.equal(frozen, torch.ones(2, 2))
    assert not optimiser.state


def test_a_restored_optimiser_goes_on_exactly() -> None:
    def after(steps: list[int], saved: dict[str, object] | None, start: Tensor) -> tuple:
        parameter = nn.Parameter(start.clone())
        optimiser = Lars([parameter], 0.5, weight_decay=0.1)
        if saved:
            optimiser.load_state_dict(saved)
        for step in steps:
            parameter.grad = gradients(step)["matrix"]
            optimiser.step()
        return parameter.detach(), optimiser.state_dict()

    whole, _ = after([0, 1, 2], None, tensors()["matrix"])
    half, saved = after([0, 1], None, tensors()["matrix"])
    assert torch.equal(after([2], saved, half)[0], whole)
