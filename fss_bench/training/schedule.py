"""The learning rate of a step, and the numbers of the items it takes. Nothing here has a state."""

import math
from collections.abc import Iterator

from fss_bench.training.recipe import Recipe


def rate_factor(recipe: Recipe, step: int) -> float:
    """What the recipe's learning rate is multiplied by at a step, counted from 0.

    Linear from 1 / `warmup` to 1 in the first `warmup` steps; then, with t from 0 to 1 over the
    steps left: 1, `decay_factor` for each share of `decay_at` passed, (1 - t)^`power`, or
    (1 + cos(pi t)) / 2.
    """
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    if recipe.schedule == "steps":
        passed = sum(step >= at * recipe.steps - 1e-9 for at in recipe.decay_at)
        return float(recipe.decay_factor**passed)
    if recipe.schedule == "poly":
        return float((1 - share) ** recipe.power)
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    return 1.0


def forwards(recipe: Recipe, first_step: int, rank: int = 0, ranks: int = 1) -> Iterator[list[int]]:
    """Numbers of the items of every forward of one process, from a step to the end.

    The batch of a step is the same numbers whatever the number of forwards and processes.
    """
    size = recipe.batch_size // (recipe.accumulate * ranks)
    for step in range(first_step, recipe.steps):
        for part in range(recipe.accumulate):
            start = step * recipe.batch_size + (part * ranks + rank) * size
            yield list(range(start, start + size))
