"""The output folder of a pretraining run: checkpoint, log, weights, configuration."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from fss_bench.errors import FssBenchError, ResultsError, one_line
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
class Folder:
    """The files of a run.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def weights(self) -> Path:
        """Trained trunks, `query.` and `momentum.`; written at the end."""
        return self.root / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Everything to go on from."""
        return self.root / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.root / "log.jsonl"

    @property
    def curves(self) -> Path:
        """The plot; written at the end."""
        return self.root / "curves.png"

    @property
    def record(self) -> Path:
        """The resolved configuration and the final figures."""
        return self.root / "pretrain.json"

    @property
    def known(self) -> Path:
        """What the check of the images found, so that a resumed run does not repeat it."""
        return self.root / ".images.json"

    def prepare(self, resume: bool) -> FileLock:
        """Make the folder, lock it, and without `resume` remove what an earlier run left.

        Raises:
            ResultsError: it cannot be written, or another process is at work in it.
        """
        lock = FileLock(self.root / ".lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            if not resume:
                for file in (self.checkpoint, self.weights, self.log, self.curves, self.record):
                    file.unlink(missing_ok=True)
        except Timeout:
            raise ResultsError(
                f"another process is pretraining in {self.root}: wait for it to end, or choose "
                "another --output"
            ) from None
        except OSError as error:
            raise self._cannot_write(error) from error
        return lock

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint whole, or leave the one before as it is.

        Raises:
            ResultsError: it cannot be written.
        """
        self._write(self.checkpoint, lambda stream: torch.save({"format": FORMAT, **state}, stream))

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

    def append(self, *entries: Mapping[str, Any]) -> int:
        """Add lines to the log; returns its length in bytes.

        Raises:
            ResultsError: it cannot be written.
        """
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        try:
            with self.log.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())  # a checkpoint counts on what was logged before it
                return file.tell()
        except OSError as error:
            raise self._cannot_write(error) from error

    def cut_log(self, length: int) -> None:
        """Drop what was logged after the checkpoint.

        Raises:
            ResultsError: lines from before it are missing.
        """
        try:
            with self.log.open("r+b" if length else "ab") as file:
                there = file.seek(0, os.SEEK_END)
                if there < length:
                    raise OSError("it is shorter than the checkpoint says")
                if there > length:
                    file.truncate(length)
        except OSError as error:
            raise ResultsError(
                f"{self.log} cannot be taken up ({one_line(error)}): put it back, or start over "
                "with --no-resume"
            ) from error

    def entries(self) -> list[dict[str, Any]]:
        """The log, without lines that cannot be read."""
        found, text = [], ""
        with suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [entry for entry in found if isinstance(entry, dict)]

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write pretrain.json.

        Raises:
            ResultsError: it cannot be written.
        """
        text = json.dumps(record, indent=2) + "\n"
        self._write(self.record, lambda stream: stream.write(text.encode()))

    def write_curves(self, png: bytes) -> None:
        """Write curves.png.

        Raises:
            ResultsError: it cannot be written.
        """
        self._write(self.curves, lambda stream: stream.write(png))

    def write_weights(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write weights.safetensors with what is known about them in its metadata.

        Raises:
            ResultsError: it cannot be written.
        """
        from safetensors.torch import save

        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, {METADATA: json.dumps(about)})
        self._write(self.weights, lambda stream: stream.write(content))

    def finished(self) -> dict[str, Any] | None:
        """The content of pretrain.json, which is written last, of a finished run; None before."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            whole = record["finished"] is not None and record["figures"].keys() >= FIGURES
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return record if whole and self.weights.is_file() and self.curves.is_file() else None

    def _write(self, file: Path, write: Callable[[BinaryIO], object]) -> None:
        """Write a file whole and onto the disk, or leave the one before as it is."""
        fresh = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            with fresh.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(file)
            self._sync_names()
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
            raise self._cannot_write(error) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _sync_names(self) -> None:
        """Have new names of files on the disk, in their order, where the system can do that."""
        with suppress(OSError):
            folder = os.open(self.root, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _cannot_write(self, error: Exception) -> ResultsError:
        return ResultsError(
            f"cannot write to {self.root} ({one_line(error)[:160]}): free space or mend its "
            "permissions, then run the same command again, which goes on from the last checkpoint"
        )


def check_same(there: Mapping[str, Any], here: Mapping[str, Any], folder: Folder) -> None:
    """Refuse to go on from a checkpoint of another configuration.

    Raises:
        FssBenchError: names the fields that differ.
    """
    old, new = _flat(there), _flat(here)
    changed = [
        f"{key} {old.get(key)} there and {new.get(key)} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise FssBenchError(
            f"{folder.root} holds a run of another configuration ({'; '.join(changed)}): choose "
            "another --output, give the options it was started with, or start over with "
            "--no-resume"
        )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON has it, its recipe among the rest."""
    plain = json.loads(json.dumps(config))
    return {**{k: v for k, v in plain.items() if k != "recipe"}, **plain.get("recipe", {})}
