"""The processes of a run: one, or those that torchrun started."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from fss_bench.errors import FssBenchError

T = TypeVar("T")


class ToldElsewhereError(FssBenchError):
    """A mistake that another process of the run says, so that it is said once."""


VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each of its processes."""
PATIENCE = timedelta(hours=6)
"""That the others wait while the first process checks images or measures kNN."""


@dataclass(frozen=True)
class World:
    """Where this process stands among those of its run.

    Attributes:
        rank: its number.
        size: how many there are.
        local_rank: its number on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: on a machine with GPUs one each."""
        if device.type != "cuda" or self.size == 1:
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise FssBenchError(
                f"process {self.local_rank} of this machine has no GPU, there are "
                f"{torch.cuda.device_count()}: start torchrun with --nproc-per-node "
                f"{torch.cuda.device_count()}"
            )
        return torch.device("cuda", self.local_rank)

    def share(self, value: T) -> T:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def once(self, call: Callable[[], T]) -> T | None:
        """What a call gives in the first process; None in the others, which wait for it.

        Raises:
            FssBenchError: in every process, where the call raises it.
        """
        if self.size == 1:
            return call()
        result, problem = None, None
        if self.is_first:
            try:
                result = call()
            except FssBenchError as error:
                problem = str(error)
        problem = self.share(problem)
        if problem is not None:
            raise FssBenchError(problem) if self.is_first else ToldElsewhereError(problem)
        return result

    def together(self, call: Callable[[], T]) -> T:
        """What a call gives in this process, once it succeeded in all.

        Raises:
            FssBenchError: in every process, where the call raises it in any; the first that failed
                says why.
        """
        if self.size == 1:
            return call()
        result, problem = None, None
        try:
            result = call()
        except FssBenchError as error:
            problem = str(error)
        problems: list[str | None] = [None] * self.size
        dist.all_gather_object(problems, problem)
        failed = [rank for rank, text in enumerate(problems) if text is not None]
        if failed:
            text = str(problems[failed[0]])
            raise FssBenchError(text) if failed[0] == self.rank else ToldElsewhereError(text)
        return cast(T, result)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def find_world() -> World:
    """The processes that are connected, or what torchrun's variables say, or a single one.

    Raises:
        FssBenchError: some of them are missing, or are no numbers.
    """
    if dist.is_initialized():
        rank = dist.get_rank()
        return World(rank, dist.get_world_size(), int(os.environ.get("LOCAL_RANK", rank)))
    given = [name for name in VARIABLES[:3] if os.environ.get(name)]
    if not given:
        return World()
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise FssBenchError(
            f"{', '.join(given)} are set and {', '.join(missing)} not: start several processes "
            "with torchrun, which sets all, or unset them"
        )
    try:
        rank, size, local = (int(os.environ[name]) for name in VARIABLES[:3])
    except ValueError:
        rank, size, local = 0, 0, 0
    if not 0 <= rank < size:
        shown = ", ".join(f"{name}={os.environ[name]!r}" for name in VARIABLES[:3])
        raise FssBenchError(f"{shown}: start several processes with torchrun, which sets them")
    return World(rank, size, local)


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Connect the processes of a run: nccl between GPUs, gloo between CPUs."""
    if world.size == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()
