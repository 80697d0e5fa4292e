"""What a run counts while it goes: means of the epoch, the latest kNN accuracy, time."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fss_bench.pretraining.schedule import Plan
from fss_bench.pretraining.watching import Tick


class Tally:
    """Counts of a run, kept over its interruptions.

    Args:
        plan: its steps.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loss, self.accuracy = 0.0, 0.0
        self.knn: float | None = None
        self.started = datetime.now(UTC)
        self._spent = 0.0
        self._begun: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        """Of training so far, earlier processes included."""
        here = 0.0 if self._begun is None else time.monotonic() - self._begun[0]
        return round(self._spent + here, 3)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "sums": [self.loss, self.accuracy],
            "knn": self.knn,
            "seconds": self.seconds,
            "started": self.started.isoformat(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        self.loss, self.accuracy = state["sums"]
        self.knn, self._spent = state["knn"], state["seconds"]
        self.started = datetime.fromisoformat(state["started"])

    def begin(self, step: int) -> None:
        """Time runs from here, where so many steps are done."""
        self._begun = time.monotonic(), step

    def add(self, loss: float, accuracy: float) -> None:
        """Count a step."""
        self.loss, self.accuracy = self.loss + loss, self.accuracy + accuracy

    def end_epoch(self) -> dict[str, float]:
        """Means of an epoch, which ends."""
        steps = self.plan.steps_per_epoch
        means = {"loss": self.loss / steps, "accuracy": self.accuracy / steps}
        self.loss, self.accuracy = 0.0, 0.0
        return means

    def tick(self, step: int) -> Tick:
        """Where the run is after a step; time must have begun."""
        assert self._begun is not None
        plan = self.plan
        done = (step - 1) % plan.steps_per_epoch + 1
        begun, first = self._begun
        pace = (time.monotonic() - begun) / (step - first)
        return Tick(
            step=step,
            steps=plan.steps,
            epoch=(step - 1) // plan.steps_per_epoch + 1,
            epochs=plan.epochs,
            loss=self.loss / done,
            accuracy=self.accuracy / done,
            knn=self.knn,
            images_per_s=plan.batch_size * plan.accumulate / max(pace, 1e-9),
            seconds_left=pace * (plan.steps - step),
        )
