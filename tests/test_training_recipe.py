"""Recipes, schedules, optimisers of `fss-bench train`."""

import math

import pytest
import torch
from torch import nn

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.method import methods
from fss_bench.training.optimisers import average_of, create_optimiser, set_rate
from fss_bench.training.recipe import Recipe, recipe_for, unused
from fss_bench.training.schedule import forwards, rate_factor


@pytest.mark.parametrize(
    ("method", "stage", "numbers"),
    [  # PROTOCOLS 4.1
        ("panet", "episodes", {"lr": 1e-3, "weight_decay": 5e-4, "steps": 30000}),
        ("sgone", "episodes", {"lr": 1e-5, "momentum": 0.99, "weight_decay": 5e-4}),
        ("dcama", "episodes", {"lr": 1e-3, "nesterov": True, "weight_decay": 1e-4}),
        ("hsnet", "episodes", {"lr": 1e-3, "optimiser": "adam", "batch_size": 20}),
        ("msanet", "base", {"lr": 2.5e-4, "batch_size": 12, "items": "images", "crop": 417}),
        ("msanet", "meta", {"batch_size": 8, "weight_decay": 1e-4, "schedule": "poly"}),
        ("cofcn", "episodes", {"momentum": 0.99, "train_backbone": True}),
        ("guided", "episodes", {"lr": 1e-6, "momentum": 0.99, "weight_decay": 5e-4}),
    ],
)
def test_recipes_are_the_papers(method: str, stage: str, numbers: dict[str, object]) -> None:
    found, recipe = recipe_for(methods.get(method), stage, {})
    assert found == stage
    assert {name: getattr(recipe, name) for name in numbers} == numbers


def test_panets_rate_falls_at_its_steps() -> None:
    recipe = recipe_for(methods.get("panet"), None, {})[1]
    rates = [recipe.lr * rate_factor(recipe, s) for s in (0, 9999, 10000, 19999, 20000, 29999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_schedules_follow_their_formulas() -> None:
    poly = Recipe(steps=10, schedule="poly", power=0.9)
    assert rate_factor(poly, 4) == pytest.approx(0.6**0.9)
    cosine = Recipe(steps=10, schedule="cosine", warmup=2)
    assert rate_factor(cosine, 0) == 0.5
    assert rate_factor(cosine, 1) == 1
    assert rate_factor(cosine, 4) == pytest.approx((1 + math.cos(math.pi * 2 / 8)) / 2)
    assert rate_factor(Recipe(steps=10), 9) == 1


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_a_step_has_the_same_items_however_it_is_cut(accumulate: int, ranks: int) -> None:
    recipe = Recipe(steps=4, batch_size=12, accumulate=accumulate)
    found: dict[int, set[int]] = {}
    for rank in range(ranks):
        for i, numbers in enumerate(forwards(recipe, 1, rank, ranks)):
            step = found.setdefault(1 + i // accumulate, set())
            assert step.isdisjoint(numbers)
            step.update(numbers)
    assert found == {step: set(range(12 * step, 12 * step + 12)) for step in (1, 2, 3)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps=0: it must be 1 or more"),
        ({"lr": 0.0}, "lr=0.0: it must be more than 0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"momentum": 1.0}, "less than 1"),
        ({"batch_size": 3, "accumulate": 2}, "a divisor of the batch of 3"),
        ({"warmup": 20, "steps": 20}, "less than the 20 steps"),
        ({"optimiser": "lion"}, "one of sgd, adam, adamw"),
        ({"decay_at": "0.5,2"}, "shares between 0 and 1"),
        ({"rates": "bias"}, "rates=*.bias:2"),
        ({"clip": -1.0}, "0 or more"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov"),
    ],
)
def test_numbers_that_cannot_be(options: dict[str, object], text: str) -> None:
    with pytest.raises(FssBenchError, match=text.replace("*", r"\*").replace("+", r"\+")):
        Recipe().replace_options(options, "a method")


def test_mistyped_names_are_suggested() -> None:
    with pytest.raises(UnknownNameError, match="weight_decay"):
        Recipe().replace_options({"weight_dekay": 0}, "a method")
    with pytest.raises(UnknownNameError, match="meta"):
        recipe_for(methods.get("msanet"), "mata", {})


def test_what_counts_for_nothing_is_said() -> None:
    recipe = Recipe().replace_options({"optimiser": "adam", "momentum": 0.5}, "a method")
    assert "counts only with optimiser=sgd" in str(unused(recipe, {"momentum": 0.5}))
    assert unused(recipe, {"lr": 0.1}) is None


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def test_rates_go_by_the_first_pattern() -> None:
    recipe = Recipe().replace_options({"rates": "1.bias:20,*.bias:2"}, "a method")
    net = _net()
    net[0].weight.requires_grad_(False)
    optimiser = create_optimiser(recipe, net)
    set_rate(optimiser, 0.1)
    rates = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    assert rates == {
        id(net[0].bias): pytest.approx(0.2),
        id(net[1].weight): pytest.approx(0.1),
        id(net[1].bias): pytest.approx(2.0),
    }


def test_patterns_and_parameters_must_meet() -> None:
    with pytest.raises(FssBenchError, match=r"head.* fits no parameter"):
        create_optimiser(Recipe(rates=(("head.*", 2.0),)), _net())
    with pytest.raises(FssBenchError, match="train_backbone=true"):
        create_optimiser(Recipe(), _net().requires_grad_(False))


def test_the_average_keeps_its_share() -> None:
    net = _net()
    average = average_of(net, 0.9)
    average.update_parameters(net)
    first = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.add_(1)
    average.update_parameters(net)
    wanted = 0.9 * first + 0.1 * (first + 1)
    torch.testing.assert_close(average.module[0].weight, wanted)
