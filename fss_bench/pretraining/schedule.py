"""What happens at which step: the order of images, the learning rate. Nothing here has a state."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from fss_bench.episodes import digest_int
from fss_bench.pretraining.recipes import Recipe

Item = tuple[int, int]
"""Epoch and number of an image."""


@dataclass(frozen=True)
class Plan:
    """Which images each forward of a run takes.

    Attributes:
        images: number of images.
        batch_size: images of one forward, over all processes.
        accumulate: forwards a step.
        epochs: passes; what does not fill a step at the end of one is left out.
        seed: another seed, another order.
    """

    images: int
    batch_size: int
    accumulate: int
    epochs: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return self.images // (self.batch_size * self.accumulate)

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.epochs * self.steps_per_epoch

    def order(self, epoch: int) -> list[int]:
        """Numbers of all images in the order of an epoch: a function of seed and epoch alone."""
        generator = torch.Generator().manual_seed(number_of("order", self.seed, epoch))
        order: list[int] = torch.randperm(self.images, generator=generator).tolist()
        return order

    def forwards(self, step: int) -> list[list[int]]:
        """Images of each forward of a step, of all processes together."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._forwards(self.order(epoch), place)

    def batches(self, first_step: int, rank: int = 0, ranks: int = 1) -> Iterator[list[Item]]:
        """Items (epoch, number) of every forward from a step to the end, of one process."""
        share = self.batch_size // ranks
        epoch, place = divmod(first_step, self.steps_per_epoch)
        for e in range(epoch, self.epochs):
            order = self.order(e)
            for p in range(place if e == epoch else 0, self.steps_per_epoch):
                for forward in self._forwards(order, p):
                    yield [(e, i) for i in forward[rank * share : (rank + 1) * share]]

    def _forwards(self, order: Sequence[int], place: int) -> list[list[int]]:
        starts = range(place * self.accumulate, (place + 1) * self.accumulate)
        size = self.batch_size
        return [list(order[i * size : (i + 1) * size]) for i in starts]


def peak_rate(recipe: Recipe, batch_size: int, accumulate: int) -> float:
    """The learning rate of the recipe for this many images a step, by the linear rule."""
    return recipe.lr * batch_size * accumulate / recipe.lr_batch


def learning_rate(recipe: Recipe, peak: float, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step.

    Linear from 0 to `peak` in `warmup_epochs`; then `peak` multiplied by `decay_factor` at each
    share of `decay_at`, or by (1 + cos(pi t)) / 2 with t from 0 to 1 over the epochs that are left.
    """
    epoch = step / steps_per_epoch
    if epoch < recipe.warmup_epochs:
        return peak * epoch / recipe.warmup_epochs
    if recipe.schedule == "steps":
        done = step // steps_per_epoch
        passed = sum(done >= share * recipe.epochs - 1e-9 for share in recipe.decay_at)
        return peak * recipe.decay_factor**passed
    at = step // steps_per_epoch if recipe.schedule_by == "epoch" else epoch
    share = max(at - recipe.warmup_epochs, 0) / (recipe.epochs - recipe.warmup_epochs)
    return peak * (1 + math.cos(math.pi * share)) / 2


def number_of(*key: object) -> int:
    """A seed below 2**63 that depends on `key` alone."""
    return digest_int(*key) >> 1
