"""Batches for the loop, read one step ahead."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from fss_bench.distributed import World
from fss_bench.errors import FssBenchError
from fss_bench.pretraining.pictures import Picture
from fss_bench.pretraining.recipes import Recipe
from fss_bench.pretraining.schedule import Item, Plan
from fss_bench.workers import quiet_worker

if TYPE_CHECKING:
    from fss_bench.pretraining.views import Batch


class Feed:
    """The batches of the steps that are left, of one process.

    Those of the next step are read before the processes add up their losses, so that an image that
    is gone is agreed on in the same sum: no process starts a step that another cannot take.

    Args:
        pictures: the images.
        recipe: says which views.
        plan: says which images, when; its seed is that of the views.
        step: that is taken next.
        world: the processes.
        workers: processes that load images.
        pin: whether batches go to a GPU.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        recipe: Recipe,
        plan: Plan,
        step: int,
        world: World,
        workers: int,
        pin: bool,
    ) -> None:
        from fss_bench.pretraining.views import Views, collate

        loader: DataLoader[Any] = DataLoader(
            Views(pictures, recipe, plan.seed),
            batch_sampler=_Rest(plan, step, world),
            num_workers=workers,
            collate_fn=collate,
            prefetch_factor=4 if workers else None,
            worker_init_fn=quiet_worker,
            pin_memory=pin,
        )
        self._parts = plan.accumulate
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
            FssBenchError: an image of it is gone.
        """
        if self.problem is not None:
            raise FssBenchError(self.problem)

    def take(self) -> "list[Batch]":
        """The batches of the next step, a forward each."""
        taken, self._ahead = self._ahead, []
        return taken

    def fetch(self) -> None:
        """Read those of the step after it; none after the last."""
        self._ahead = list(islice(self._batches, self._parts))


class _Rest:
    """The items of every forward that is left, as a DataLoader takes them."""

    def __init__(self, plan: Plan, step: int, world: World) -> None:
        self.plan, self.step, self.world = plan, step, world

    def __iter__(self) -> Iterator[list[Item]]:
        return self.plan.batches(self.step, self.world.rank, self.world.size)
