"""Weights of backbones as safetensors that say what they are, and what a file is in words."""

import json
from collections.abc import Sequence
from pathlib import Path

from fss_bench.architectures import architecture_of
from fss_bench.errors import WeightsError, one_line
from fss_bench.files import write_whole
from fss_bench.weight_files import METADATA, file_sha256, read_metadata
from fss_bench.weight_reading import Reading, read_weights


def save_weights(source: Path, target: Path, reading: Reading, old_pickle: bool = False) -> None:
    """Write the encoders of a weights file, without heads and queues, with their layout's name.

    Args:
        source: the file.
        target: the `.safetensors` file to write; written as a whole or not at all.
        reading: of the source.
        old_pickle: how it was read.

    Raises:
        WeightsError: cannot be written.
    """
    from safetensors.torch import save

    tensors = {}
    for role in dict.fromkeys(reading.roles):
        one = reading
        if role != reading.role:
            one = read_weights(source, role, reading.layout, old_pickle)
        for name, value in one.state.items():
            tensors[f"{role}.{name}"] = value.detach().contiguous().clone()
    said = json.loads(read_metadata(source).get(METADATA, "{}"))
    content = {
        "layout": reading.layout,
        "encoder": reading.roles[0],
        "origin": {"path": source.name, "sha256": file_sha256(source)},
        "mean": reading.mean,
        "std": reading.std,
        **said,  # of a file of ours, where it came from first
    }
    try:
        write_whole(target, save(tensors, {METADATA: json.dumps(content, sort_keys=True)}))
    except OSError as error:
        raise WeightsError(f"cannot write {target} ({one_line(error)})") from error


def weights_lines(reading: Reading, path: Path) -> list[str]:
    """What a weights file is, for a reader, one line a fact."""
    roles = list(dict.fromkeys(reading.roles))
    others = "".join(f", or {role} by --backbone-option encoder={role}" for role in roles[1:])
    name = architecture_of(reading.state, reading.layout)
    size = sum(value.numel() for value in reading.state.values())
    lines = [
        f"layout {reading.layout}: {reading.rules.title}, {reading.role} encoder{others}",
        f"{len(reading.state)} tensors, {size:,} numbers; {_network(reading, name)}",
        *(f"left out {count}: {why}" for why, count in reading.left.items()),
    ]
    if reading.mean and reading.std:
        lines.append(
            f"images: mean {_numbers(reading.mean)}, deviation {_numbers(reading.std)} of [0, 1]"
        )
    lines += [f"built with {key}={value}" for key, value in reading.options.items()]
    return [*lines, f"use: --backbone {name or 'NAME'} --weights {path}"]


def _network(reading: Reading, name: str | None) -> str:
    """The network's name, or what can be said without it."""
    if name is not None:
        return f"network {name}"
    ends = list(reading.state)[:1] + list(reading.state)[1:][-1:]
    shapes = (f"{key} {list(reading.state[key].shape)}" for key in ends)
    return f"from {' to '.join(shapes)}; architecture not told apart: give --backbone NAME"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
