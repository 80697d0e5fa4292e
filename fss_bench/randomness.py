"""Torch's generators: seeded for a purpose, and left to the caller as they were."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

from fss_bench.episodes import digest_int


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """Restores torch's generators of the CPU and of one device at the end."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def seed_generators(device: torch.device, *key: object) -> None:
    """Seed torch's generators of the CPU and of one device by `key`; other GPUs keep theirs.

    `torch.manual_seed` would seed those of every GPU that is visible.
    """
    number = digest_int(*key) >> 1
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the generators of torch (CPU), Python and NumPy by `key`, and restore them after."""
    number = digest_int("view", *key) >> 1
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            random.seed(number)
            np.random.seed(number % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
