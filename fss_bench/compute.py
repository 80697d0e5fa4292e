"""How to run an evaluation: device, precision, batch size, workers, memory."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fss_bench.errors import FssBenchError, UnknownNameError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16", "fp16")
FAILED = ("stop", "count")


@dataclass(frozen=True)
class Compute:
    """How to run.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`. Device type and precision are part of a run's identity;
            the rest changes no number.
        batch_size: episodes that go through the method together.
        workers: processes that load images.
        cache_gb: memory for what is kept of images between episodes; by default a quarter of
            what is free.
        disk_gb: place on the disk for what memory has no room for; by default a quarter of what is
            free where indexes are cached.
        cache_dtype: `fp32`, or `fp16` or `bf16`: what is kept of images is rounded to it, in half
            the memory. It is part of a run's identity too.
        encode_batch: images that are encoded together; by default 1 on a CPU, where more is no
            faster, and 8 on a GPU.
        failed_episodes: what NaN or infinite logits do: `stop` the run, or `count` as an answer
            that is wrong at every pixel, which is part of a run's identity too.
    """

    device: str = "auto"
    precision: str = "fp32"
    batch_size: int = 1
    workers: int = 0
    cache_gb: float | None = None
    disk_gb: float | None = None
    cache_dtype: str = "fp32"
    encode_batch: int | None = None
    failed_episodes: str = "stop"

    def __post_init__(self) -> None:
        """Raise FssBenchError for a value that does not exist."""
        if self.device not in DEVICES:
            raise UnknownNameError("device", self.device, DEVICES)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.cache_dtype not in PRECISIONS:
            raise UnknownNameError("cache dtype", self.cache_dtype, PRECISIONS)
        if self.failed_episodes not in FAILED:
            raise UnknownNameError("--failed-episodes", self.failed_episodes, FAILED)
        least = {"batch_size": 1, "workers": 0, "cache_gb": 0, "disk_gb": 0, "encode_batch": 1}
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and not value >= limit:
                flag = f"--{name.replace('_', '-')}"
                raise FssBenchError(f"{flag} {value}: it must be {limit} or more")

    def torch_device(self) -> "torch.device":
        """The device; `auto` is a GPU where there is one."""
        import torch

        found = torch.cuda.is_available()
        if self.device == "cuda" and not found:
            raise FssBenchError("--device cuda: torch sees no GPU here: use --device cpu")
        return torch.device("cuda" if found and self.device != "cpu" else "cpu")

    def dtype(self) -> "torch.dtype | None":
        """What autocast computes in; None for full precision."""
        import torch

        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def group(self, device: "torch.device") -> int:
        """Images that are encoded together."""
        return self.encode_batch or (8 if device.type == "cuda" else 1)

    def cache_bytes(self, device: "torch.device") -> int:
        """Memory for what is kept of images, on the device where it is kept."""
        import torch

        if self.cache_gb is not None:
            return int(self.cache_gb * 2**30)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_bytes()
        return int(free) // 4

    def disk_bytes(self, folder: Path) -> int:
        """Place for what memory has no room for, in a folder that need not be there yet."""
        if self.disk_gb is not None:
            return int(self.disk_gb * 2**30)
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return shutil.disk_usage(there).free // 4 if os.access(there, os.W_OK) else 0


def _free_bytes() -> int:
    """Memory that is free here, within a container's limit; 4 GiB where the system does not say."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4 * 2**30
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return free
