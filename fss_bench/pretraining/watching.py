"""What a run tells while it goes, and what it gives at the end. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fss_bench.pretraining.state import Folder


@dataclass(frozen=True)
class Tick:
    """Where a run is, after a step.

    Attributes:
        step, steps: done, and in all.
        epoch, epochs: the running one from 1, and in all.
        loss, accuracy: means of the epoch so far; accuracy in [0, 1].
        knn: the latest measurement, in [0, 1]; None before the first.
        images_per_s: since this process started to train.
        seconds_left: at this pace.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    knn: float | None
    images_per_s: float
    seconds_left: float


@dataclass(frozen=True)
class Watch:
    """Who is told what; by default nobody.

    Attributes:
        checking: files checked and files in all, while images are checked.
        step: after every step.
        note: one line at a time.
    """

    checking: Callable[[int, int], None] | None = None
    step: Callable[[Tick], None] | None = None
    note: Callable[[str], None] | None = None

    def say(self, text: str | None) -> None:
        """Pass on a line, if there is one."""
        if text is not None and self.note is not None:
            self.note(text)


@dataclass(frozen=True)
class Pretrained:
    """A finished run.

    Attributes:
        folder: its files.
        figures: losses, accuracies, kNN and time of it.
        record: the content of pretrain.json.
        trained: False where it was finished before.
    """

    folder: "Folder"
    figures: dict[str, Any]
    record: dict[str, Any]
    trained: bool
