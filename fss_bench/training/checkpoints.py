"""Checkpoints of a training run: weights that `evaluate` takes, and all else to go on from.

One is three files: `step-….safetensors` (the method as it is evaluated), `step-….state`
(safetensors too: optimiser, and what differs from the first file) and `step-….json` (numbers, and
the sha256 of both). The last is written last: a checkpoint without it is not there.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from fss_bench.errors import ResultsError, one_line
from fss_bench.run_folder import RunFolder

FORMAT = 1
"""Of the JSON file."""
STEP = "step"
"""A tensor of every state file: safetensors reads none without tensors."""
PARTS = (".safetensors", ".state", ".json")


@dataclass(frozen=True)
class Saved:
    """What is needed to go on.

    Attributes:
        step: steps done.
        weights: tensors of the method as it is evaluated.
        state: further tensors.
        numbers: all else, as JSON has it.
    """

    step: int
    weights: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run.

    Attributes:
        folder: the run's; they are below it.
        keep: how many of the newest are kept.
    """

    folder: RunFolder
    keep: int

    @property
    def root(self) -> Path:
        """Where they are."""
        return self.folder.root / "checkpoints"

    def file(self, step: int, part: str = ".safetensors") -> Path:
        """One of the files of a step."""
        return self.root / f"step-{step:08d}{part}"

    def save(self, saved: Saved, metadata: Mapping[str, str]) -> None:
        """Write a checkpoint, then forget the oldest; on failure those before stay.

        Args:
            saved: what to keep.
            metadata: of the weights file.

        Raises:
            ResultsError: it cannot be written.
        """
        weights, state = (
            weights_bytes(saved.weights, metadata),
            weights_bytes({**saved.state, STEP: torch.tensor(saved.step)}, {}),
        )
        numbers = {
            "format": FORMAT,
            "step": saved.step,
            "sha256": {".safetensors": _sha256(weights), ".state": _sha256(state)},
            **saved.numbers,
        }
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.file(saved.step, ".json").unlink(missing_ok=True)
            self.folder.write(self.file(saved.step), weights)
            self.folder.write(self.file(saved.step, ".state"), state)
            self.folder.write(self.file(saved.step, ".json"), (json.dumps(numbers) + "\n").encode())
            self._forget()
        except OSError as error:
            raise self.folder.cannot_write(error) from error

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole; None if there is none.

        Raises:
            ResultsError: there are some, and none can be read.
        """
        steps, problem = self.steps(), ""
        for step in reversed(steps):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                problem = problem or one_line(error)[:120]
        if not steps:
            return None
        raise ResultsError(
            f"no checkpoint in {self.root} can be read ({problem}): start over with --no-resume, "
            "or choose another --output"
        )

    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending."""
        found = []
        if self.root.is_dir():
            for file in self.root.iterdir():
                if matched := re.fullmatch(r"step-(\d+)\.json", file.name):
                    found.append(int(matched[1]))
        return sorted(found)

    def clear(self) -> None:
        """Remove all."""
        if self.root.is_dir():
            for file in sorted(self.root.iterdir(), key=lambda f: f.suffix != ".json"):
                file.unlink()

    def _read(self, step: int) -> Saved:
        numbers = json.loads(self.file(step, ".json").read_text(encoding="utf-8"))
        if numbers["format"] != FORMAT or numbers["step"] != step:
            raise ValueError(f"step-{step:08d}.json is of another format")
        tensors = []
        for part in (".safetensors", ".state"):
            content = self.file(step, part).read_bytes()
            if _sha256(content) != numbers["sha256"][part]:
                raise ValueError(f"{self.file(step, part).name} is damaged")
            tensors.append(load(content))
        return Saved(step, tensors[0], tensors[1], numbers)

    def _forget(self) -> None:
        for step in self.steps()[: -self.keep]:
            self.file(step, ".json").unlink(missing_ok=True)
        kept = {f"step-{step:08d}" for step in self.steps()}
        for file in self.root.iterdir():
            if file.suffix in PARTS and file.stem not in kept:
                with suppress(OSError):  # it is in nobody's way
                    file.unlink()


def flat_optimiser(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimiser as tensors, and as what JSON has."""
    tensors, numbers = {}, {}
    for number, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{key}"] = value
            elif value is not None:
                numbers[f"{number}.{key}"] = value
    return tensors, {"values": numbers, "groups": state["param_groups"]}


def full_optimiser(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat_optimiser`; momentum that never was is None."""
    named: dict[str, Any] = {
        name.removeprefix("optimiser."): value
        for name, value in tensors.items()
        if name.startswith("optimiser.")
    }
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**named, **numbers["values"]}.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    groups: Sequence[Mapping[str, Any]] = numbers["groups"]
    return {"state": state, "param_groups": [dict(group) for group in groups]}


def weights_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors as a safetensors file."""
    return save(_plain(tensors), dict(metadata))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, each with memory of its own."""
    whole = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        whole[name] = copy.clone() if copy.data_ptr() == tensor.data_ptr() else copy
    return whole


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
