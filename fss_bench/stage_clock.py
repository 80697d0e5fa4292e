"""Where the time of an evaluation goes: spans of its stages on one clock. No torch here."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

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
        wait: for a device that works through a queue: returns when it is done, else its work would
            be charged to the next stage.
    """

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self._wait = wait
        self.spans: list[Span] = []

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Charge what happens inside to a stage."""
        start = time.monotonic()
        yield
        if self._wait is not None:
            self._wait()
        self.spans.append(Span(stage, start, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds."""
        sums: dict[str, float] = defaultdict(float)
        for stage, start, end in self.spans:
            sums[stage] += end - start
        return dict(sums)
