"""What a run costs: parameters, FLOPs, time, memory, and the environment it ran in."""

import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fss_bench import __version__


def parameters_m(module: nn.Module) -> float:
    """Millions of parameters, frozen ones included."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def gflops(module: nn.Module, inputs: tuple[Any, ...]) -> float:
    """GFLOP (2 a multiply-add) of one call, by torch's own counter.

    Attention runs unfused here, because the counter does not see every fused kernel.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(*inputs)
    return float(counter.get_total_flops() / 1e9)


def peak_mb(device: torch.device) -> float:
    """Largest memory so far: of this process on a CPU, of the allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def environment() -> dict[str, str | None]:
    """Versions that a run records."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": version("timm"),
        "fss_bench": __version__,
        "git_commit": _git_commit(),
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with the number of threads used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_model()}, {torch.get_num_threads()} threads"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """Commit of the source tree that this package runs from; `-dirty` if it was changed."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
