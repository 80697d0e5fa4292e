"""What a run tells while it goes, and what it gives at the end. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tick:
    """Where a run is, after a step.

    Attributes:
        step, steps: done, and in all.
        loss: mean since the last line of the log.
        best: validation mIoU in [0, 1]; None before the first.
        episodes_per_s: since this process started to train.
        seconds_left: at this pace.
    """

    step: int
    steps: int
    loss: float
    best: float | None
    episodes_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Watch:
    """Who is told what; by default nobody.

    Attributes:
        step: after every step.
        note: one line at a time.
    """

    step: Callable[[Tick], None] | None = None
    note: Callable[[str], None] | None = None

    def say(self, text: str) -> None:
        """Pass on a line."""
        if self.note is not None:
            self.note(text)


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        checkpoint: the chosen one, for `evaluate --checkpoint`.
        folder: of the log, the curves, the record and the newest checkpoints.
        record: the content of train.json.
        trained: False where it was finished before.
    """

    checkpoint: Path
    folder: Path
    record: dict[str, Any]
    trained: bool
