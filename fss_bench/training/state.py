"""The files of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from torch import Tensor

from fss_bench.errors import ResultsError
from fss_bench.run_folder import RunFolder
from fss_bench.training.checkpoints import Checkpoints, weights_bytes
from fss_bench.training.curves import curves_png, figures_of
from fss_bench.training.job import Job
from fss_bench.training.tally import Tally


@dataclass(frozen=True)
class Folder(RunFolder):
    """A run's folder, and the chosen checkpoint beside it.

    Attributes:
        chosen: the checkpoint for `evaluate --checkpoint`.
    """

    chosen: Path

    @classmethod
    def of(cls, output: Path, name: str) -> "Folder":
        """The files of a run under an output folder."""
        return cls(output / name, "training", "train.json", output / f"{name}.safetensors")

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard's files are."""
        return self.root / "tensorboard"

    def checkpoints(self, keep: int) -> Checkpoints:
        """The checkpoints to go on from."""
        return Checkpoints(self, keep)

    def clear(self) -> None:
        """Remove what an earlier run left.

        Raises:
            ResultsError: it cannot be removed.
        """
        try:
            self.checkpoints(1).clear()
        except OSError as error:
            raise self.cannot_write(error) from error
        events = sorted(self.tensorboard.glob("events.*")) if self.tensorboard.is_dir() else []
        self.remove([self.chosen, self.log, self.curves, self.record, *events])
        self.remove(self.root.glob("stopped-*.jsonl"))

    def finished(self) -> dict[str, Any] | None:
        """The record of a run that is finished and has all its files, else None."""
        try:
            record = loads(self.record.read_text(encoding="utf-8"))
        except (OSError, JSONDecodeError, UnicodeDecodeError):
            return None
        whole = isinstance(record, dict) and record.get("finished") and self.chosen.is_file()
        return record if whole and self.curves.is_file() else None

    def need_chosen(self) -> None:
        """Raise ResultsError if the chosen checkpoint of a run that is finished is gone."""
        if not self.chosen.is_file():
            raise ResultsError(
                f"{self.root} is finished, and {self.chosen} is gone: put it back, take one of "
                f"{self.root / 'checkpoints'}, or start over with --no-resume"
            )

    def need_no_chosen(self) -> None:
        """Raise ResultsError if a checkpoint is there without its run: it is not ours to remove."""
        if self.chosen.is_file():
            raise ResultsError(
                f"{self.chosen} is there, and its run {self.root} is not: choose another --output, "
                "or start over with --no-resume, which removes it"
            )

    def write_chosen(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write the chosen checkpoint, whole.

        Raises:
            ResultsError: it cannot be written; one that was there stays.
        """
        self.write(self.chosen, weights_bytes(tensors, metadata))

    def write_results(self, job: Job, tally: Tally) -> dict[str, Any]:
        """Write the plot, then the record that says the run is finished; returns the record.

        Raises:
            ResultsError: they cannot be written.
        """
        entries = self.entries()
        figures = figures_of(entries, tally)
        self.write(self.curves, curves_png(entries, job.title))
        record = job.finished(tally.started, figures)
        self.write_record(record)
        return record
