"""What a run counts while it goes: mean losses, the best validation, time."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fss_bench.training.watching import Tick


class Tally:
    """Counts of a run, kept over its interruptions.

    Args:
        steps: of the whole run.
        batch_size: episodes of a step.
    """

    def __init__(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size = steps, batch_size
        self.best: tuple[int, float] | None = None
        self.started = datetime.now(UTC)
        self._sums: dict[str, float] = {}
        self._count = 0
        self._loss = 0.0
        self._spent = 0.0
        self._begun: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        """Of training so far, validation and earlier processes included."""
        here = 0.0 if self._begun is None else time.monotonic() - self._begun[0]
        return round(self._spent + here, 3)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "sums": self._sums,
            "count": self._count,
            "best": self.best,
            "seconds": self.seconds,
            "started": self.started.isoformat(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self._sums, self._count = dict(state["sums"]), state["count"]
        self.best = None if state["best"] is None else tuple(state["best"])
        self._spent, self.started = state["seconds"], datetime.fromisoformat(state["started"])

    def begin(self, step: int) -> None:
        """Time runs from here, where so many steps are done."""
        self._begun = time.monotonic(), step

    def add(self, terms: Mapping[str, float]) -> None:
        """Count a step."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._loss = sum(self._sums.values()) / self._count

    def means(self) -> dict[str, float]:
        """Mean terms since the last call, and their sum, `loss`."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return {"loss": sum(means.values()), **means}

    def is_best(self, step: int, miou: float) -> bool:
        """Count a validation; whether it is the best so far, the earliest of equal ones."""
        if self.best is not None and miou <= self.best[1]:
            return False
        self.best = step, miou
        return True

    def tick(self, step: int) -> Tick:
        """Where the run is after a step; time must have begun."""
        assert self._begun is not None
        begun, first = self._begun
        pace = (time.monotonic() - begun) / (step - first)
        return Tick(
            step=step,
            steps=self.steps,
            loss=self._loss,
            best=None if self.best is None else self.best[1],
            episodes_per_s=self.batch_size / max(pace, 1e-9),
            seconds_left=pace * (self.steps - step),
        )
