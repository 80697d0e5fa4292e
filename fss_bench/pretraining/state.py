"""The output folder of a pretraining run: checkpoint, log, weights, configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from fss_bench.errors import ResultsError, one_line
from fss_bench.run_folder import RunFolder
from fss_bench.weight_files import METADATA

FORMAT = 1
"""Of checkpoint.pt."""
PARTS = set(
    "config step sums knn objective extra optimiser scaler log_bytes seconds started".split()
)
"""What a checkpoint holds."""
FIGURES = set("loss_first loss_highest loss_last accuracy_first accuracy_last seconds".split())
"""What the record of every finished run holds."""


@dataclass(frozen=True)
class Folder(RunFolder):
    """The files of a run."""

    doing: str = "pretraining"
    record_name: str = "pretrain.json"

    @property
    def weights(self) -> Path:
        """Trained trunks, `query.` and `momentum.`; written at the end."""
        return self.root / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Everything to go on from."""
        return self.root / "checkpoint.pt"

    @property
    def known(self) -> Path:
        """What the check of the images found, so that a resumed run does not repeat it."""
        return self.root / ".images.json"

    def prepare(self, resume: bool) -> FileLock:
        """Make the folder, lock it, and without `resume` remove what an earlier run left.

        Raises:
            ResultsError: it cannot be written, or another process is at work in it.
        """
        lock = self.lock()
        if not resume:
            self.remove((self.checkpoint, self.weights, self.log, self.curves, self.record))
        return lock

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint whole, or leave the one before as it is.

        Raises:
            ResultsError: it cannot be written.
        """
        self.write(self.checkpoint, lambda stream: torch.save({"format": FORMAT, **state}, stream))

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, on the CPU; None if there is none.

        Raises:
            ResultsError: it cannot be read.
        """
        if not self.checkpoint.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(
                self.checkpoint, map_location="cpu", weights_only=True
            )
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']} is not {FORMAT}")
            if lacking := PARTS - state.keys():
                raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        except Exception as error:  # of many kinds, for a damaged file
            raise ResultsError(
                f"{self.checkpoint} cannot be read ({one_line(error)[:120]}): start over with "
                "--no-resume, or choose another --output"
            ) from error
        return state

    def write_curves(self, png: bytes) -> None:
        """Write curves.png.

        Raises:
            ResultsError: it cannot be written.
        """
        self.write(self.curves, png)

    def write_weights(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write weights.safetensors with what is known about them in its metadata.

        Raises:
            ResultsError: it cannot be written.
        """
        from safetensors.torch import save

        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, {METADATA: json.dumps(about)})
        self.write(self.weights, content)

    def finished(self) -> dict[str, Any] | None:
        """The content of pretrain.json, which is written last, of a finished run; None before."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            whole = record["finished"] is not None and record["figures"].keys() >= FIGURES
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return record if whole and self.weights.is_file() and self.curves.is_file() else None
