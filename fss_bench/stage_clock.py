"""Where the time of an evaluation goes: spans of its stages on one clock."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

STAGES = ("wait", "encode", "segment", "score")
"""Of the process that segments: it waits for images and masks, encodes images, segments episodes,
resizes and counts."""


class Span(NamedTuple):
    """Work from one time to another, seconds of a clock that processes share."""

    stage: str
    start: float
    end: float


class StageClock:
    """Measures stages; every measurement is kept.

    Args:
        device: that computes; its queued work is waited for, or it would be charged to the next
            stage.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spans: list[Span] = []

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Charge what happens inside to a stage."""
        start = time.monotonic()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.spans.append(Span(stage, start, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds."""
        sums: dict[str, float] = defaultdict(float)
        for stage, start, end in self.spans:
            sums[stage] += end - start
        return dict(sums)
