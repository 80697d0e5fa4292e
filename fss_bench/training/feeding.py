"""Batches for the loop, read one step ahead."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from fss_bench.distributed import World
from fss_bench.errors import FssBenchError
from fss_bench.training.items import BaseImages, Batch, EpisodeItems, collate, worker_init
from fss_bench.training.recipe import Recipe
from fss_bench.training.schedule import forwards


class TrainingFeed:
    """The batches of the steps that are left, of one process.

    Those of the next step are read before the processes add up their losses, so that an item that
    cannot be had is agreed on in the same sum: no process starts a step that another cannot take.

    Args:
        items: by number.
        recipe: says which numbers.
        step: that is taken next.
        world: the processes.
        workers: processes that load items.
        pin: whether batches go to a GPU.
    """

    def __init__(
        self,
        items: EpisodeItems | BaseImages,
        recipe: Recipe,
        step: int,
        world: World,
        workers: int,
        pin: bool,
    ) -> None:
        loader: DataLoader[Any] = DataLoader(
            items,
            batch_sampler=_Rest(recipe, step, world),
            num_workers=workers,
            collate_fn=collate,
            prefetch_factor=2 if workers else None,
            worker_init_fn=worker_init,
            pin_memory=pin,
        )
        self._parts = recipe.accumulate
        self._batches: Iterator[Batch] = iter(loader)
        self._ahead: list[Batch] = []
        self.fetch()

    @property
    def problem(self) -> str | None:
        """Why the next step cannot be taken here, as one line; None where it can."""
        return next((batch.problem for batch in self._ahead if batch.problem), None)

    def check(self) -> None:
        """See that the next step can be taken here.

        Raises:
            FssBenchError: an image of it cannot be used.
        """
        if self.problem is not None:
            raise FssBenchError(self.problem)

    def take(self) -> list[Batch]:
        """The batches of the next step, a forward each."""
        taken, self._ahead = self._ahead, []
        return taken

    def fetch(self) -> None:
        """Read those of the step after it; none after the last."""
        self._ahead = list(islice(self._batches, self._parts))


class _Rest:
    """The item numbers of every forward that is left, as a DataLoader takes them."""

    def __init__(self, recipe: Recipe, step: int, world: World) -> None:
        self.recipe, self.step, self.world = recipe, step, world

    def __iter__(self) -> Iterator[list[int]]:
        return forwards(self.recipe, self.step, self.world.rank, self.world.size)
