"""The processes of a run: one, or those that torchrun started."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fss_bench.errors import FssBenchError, one_line
from fss_bench.telling import ToldElsewhereError

T = TypeVar("T")


VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each of its processes."""
BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
"""What torch calls the sending of queue and statistics before each forward; newer ones rename it.

Queues are equal anyway, and statistics of batch norm play no part in training.
"""
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
            count = torch.cuda.device_count()
            text = (
                f"process {self.local_rank} of this machine has no GPU, there are {count}: start "
                f"torchrun with --nproc-per-node {count}"
            )
            raise FssBenchError(text) if self.local_rank == count else ToldElsewhereError(text)
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
            Exception: in the first process, what the call raises.
            ToldElsewhereError: in the others then.
        """
        if self.size == 1:
            return call()
        result, failure = None, None
        if self.is_first:
            try:
                result = call()
            except Exception as error:  # of any kind: the others must not wait in vain
                failure = error
        problem = self.share(None if failure is None else one_line(failure))
        if failure is not None:
            raise failure
        if problem is not None:
            raise ToldElsewhereError(problem)
        return result

    def together(self, call: Callable[[], T]) -> T:
        """What a call gives in this process, once it succeeded in all.

        Raises:
            Exception: in the first process where the call failed, what it raised.
            ToldElsewhereError: in all others then.
        """
        if self.size == 1:
            return call()
        result, failure = None, None
        try:
            result = call()
        except Exception as error:  # of any kind: the others must not wait in vain
            failure = error
        problems: list[str | None] = [None] * self.size
        dist.all_gather_object(problems, None if failure is None else one_line(failure))
        failed = [rank for rank, text in enumerate(problems) if text is not None]
        if failed:
            if failure is not None and failed[0] == self.rank:
                raise failure
            raise ToldElsewhereError(str(problems[failed[0]]))
        return cast(T, result)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in every process."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return cast(list[T], found)

    def mistake(self, text: str) -> FssBenchError:
        """What to raise for a mistake that every process finds: the first one says it."""
        return FssBenchError(text) if self.is_first else ToldElsewhereError(text)

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
    """Connect the processes of a run: nccl between GPUs, gloo between CPUs.

    Raises:
        ToldElsewhereError: another process went away, which says why.
    """
    if world.size == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise ToldElsewhereError(one_line(error)) from error
    finally:
        dist.destroy_process_group()


def distribute(
    module: nn.Module, world: World, device: torch.device, find_unused: bool = False
) -> nn.Module:
    """A module whose gradients are means over the processes.

    Args:
        module: its forward is called in training.
        world: the processes.
        device: of this process.
        find_unused: whether some of its parameters may get no gradient.
    """
    if world.size == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    options: dict[str, Any] = {BUFFERS: False, "find_unused_parameters": find_unused}
    return DistributedDataParallel(module, device_ids=devices, **options)


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether a process that others talked to went away; gloo's errors have no type."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)
