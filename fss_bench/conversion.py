"""Writing checkpoints in our form, and saying what a file is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from fss_bench.architectures import is_network
from fss_bench.checkpoint import (
    METADATA,
    Checkpoint,
    TrainedOn,
    UnknownLayoutError,
    read_checkpoint,
)
from fss_bench.checkpoint_loading import LoadReport, build_for, load_checkpoint
from fss_bench.errors import FssBenchError, WeightsError, one_line, printable
from fss_bench.files import write_whole
from fss_bench.registry import datasets
from fss_bench.weight_conversion import save_weights, weights_lines
from fss_bench.weight_files import file_sha256, known_file, read_metadata
from fss_bench.weight_reading import AUTO, NoLayoutError, Reading, read_weights


def convert(
    source: Path,
    target: Path,
    known: TrainedOn | None = None,
    old_pickle: bool = False,
    layout: str = AUTO,
) -> list[str]:
    """Write a method's checkpoint, or weights of a backbone, in our form.

    Args:
        source: official or ours.
        target: the `.safetensors` file to write.
        known: what a method was trained on, where the file does not say.
        old_pickle: read files that hold Python objects too.
        layout: of weights; see `read_weights`.

    Returns:
        What was done, for a reader.

    Raises:
        WeightsError: neither of both; does not fit its method; or the target cannot be written.
    """
    found = read_either(source, old_pickle, layout)
    if isinstance(found, Checkpoint):
        return _shown(convert_checkpoint(source, target, known, old_pickle).lines())
    if known is not None:
        raise WeightsError(
            f"{source} holds weights of a backbone ({found.rules.title}), which belong to no fold: "
            "leave out --dataset and --fold"
        )
    _check_target(source, target)
    save_weights(source, target, found, old_pickle)
    return _shown(weights_lines(found, target))


def convert_checkpoint(
    source: Path, target: Path, known: TrainedOn | None = None, old_pickle: bool = False
) -> LoadReport:
    """Read a checkpoint, build its method, load it, and write it in our form.

    Args:
        source: official or ours.
        target: the `.safetensors` file to write.
        known: what it was trained on, where the file does not say.
        old_pickle: read a file that holds Python objects too.

    Raises:
        WeightsError: see `read_checkpoint` and `load_checkpoint`; or the target cannot be written.
    """
    _check_target(source, target)
    checkpoint = read_checkpoint(source, old_pickle)
    said = checkpoint.trained_on
    if known is not None and said is not None and known != said:
        raise WeightsError(
            f"{source} says it was trained on {said.dataset} fold {said.fold}, not on "
            f"{known.dataset} fold {known.fold}: leave out --dataset and --fold"
        )
    method = build_for(checkpoint)
    report = load_checkpoint(method, checkpoint)
    save_checkpoint(method, target, checkpoint, known)
    return report


def _check_target(source: Path, target: Path) -> None:
    if target.suffix != ".safetensors" or target.resolve() == source.resolve():
        raise WeightsError(f"{target}: write to another file, whose name ends in .safetensors")
    if not target.parent.is_dir():
        raise WeightsError(f"{target.parent}: no such folder to write into")


def save_checkpoint(
    method: nn.Module,
    path: Path,
    checkpoint: Checkpoint,
    trained_on: TrainedOn | None = None,
) -> None:
    """Write a method's weights as safetensors, with where they came from in the metadata.

    Args:
        method: loaded from `checkpoint`.
        path: the file to write; written as a whole or not at all.
        checkpoint: what the method's weights came from.
        trained_on: what is known of its training; by default what the checkpoint says.

    Raises:
        WeightsError: cannot be written.
    """
    from safetensors.torch import save

    trained = trained_on or checkpoint.trained_on
    origin = {"path": checkpoint.name, "sha256": checkpoint.sha256, "layout": checkpoint.layout}
    content = {
        "method": checkpoint.method,
        "variant": asdict(checkpoint.variant),
        "protocol": checkpoint.protocol,
        "origin": checkpoint.origin or origin,
        "trained_on": asdict(trained) if trained else None,
        "training": checkpoint.training,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}
    try:
        write_whole(path, save(tensors, {METADATA: json.dumps(content, sort_keys=True)}))
    except OSError as error:
        raise WeightsError(f"cannot write {path} ({one_line(error)})") from error


def trained_on(dataset: str, fold: int) -> TrainedOn:
    """A registered dataset's fold as what a checkpoint was trained on.

    Raises:
        FssBenchError: the dataset's classes are not known without its files, or no such fold.
    """
    cls = datasets.get(dataset)
    names, folds = getattr(cls, "class_names", None), getattr(cls, "folds", None)
    if not isinstance(names, Mapping) or not isinstance(folds, Sequence):
        raise FssBenchError(
            f"the classes of {dataset} are not known without its files: leave out --dataset and "
            "--fold"
        )
    if not 0 <= fold < len(folds):
        raise FssBenchError(f"--fold {fold}: {dataset} has folds 0 to {len(folds) - 1}")
    base = tuple(name for c, name in names.items() if c not in folds[fold])
    return TrainedOn(dataset, fold, base)


def describe(path: Path, old_pickle: bool = False, layout: str = AUTO) -> list[str]:
    """What a file is, for a reader, one line a fact.

    Args:
        path: a checkpoint of a method, or weights of a backbone.
        old_pickle: read files that hold Python objects too.
        layout: of weights; see `read_weights`.

    Raises:
        WeightsError: cannot be read, or is of no known layout.
    """
    known = known_file(path) if path.is_file() else None
    try:
        found = read_either(path, old_pickle, layout)
    except UnknownLayoutError:
        if known is None:
            raise
        return [f"{path.name}: sha256 {file_sha256(path)}", f"known as {known}"]
    head = [f"{path.name}: sha256 {file_sha256(path)}", *([f"known as {known}"] if known else [])]
    if isinstance(found, Reading):
        return [*head, *_shown(weights_lines(found, path))]
    return [*head, *_shown(_checkpoint_lines(found))]


def _shown(lines: Sequence[str]) -> list[str]:
    """Lines for a terminal: what a file says of itself may hold anything."""
    return [printable(line) for line in lines]


def read_either(path: Path, old_pickle: bool = False, layout: str = AUTO) -> Checkpoint | Reading:
    """A method's checkpoint, or weights of a backbone, whichever a file is.

    Raises:
        WeightsError: neither.
    """
    if layout != AUTO:
        return read_weights(path, layout=layout, old_pickle=old_pickle)
    try:
        return read_checkpoint(path, old_pickle)
    except WeightsError as error:
        if not path.is_file() or METADATA in read_metadata(path):
            raise
        try:
            reading = read_weights(path, old_pickle=old_pickle)
        except NoLayoutError as other:
            raise (error if isinstance(error, UnknownLayoutError) else other) from other
        if reading.rules.generic and not is_network(reading.state):
            raise
        return reading


def _checkpoint_lines(c: Checkpoint) -> list[str]:
    options = ", ".join(f"{k}={v}" for k, v in c.variant.options.items()) or "defaults"
    shots = "any" if c.variant.shots is None else "/".join(map(str, c.variant.shots))
    lines = [
        f"layout {c.layout}: method {c.method} on {c.variant.backbone}, options {options}, "
        f"shots {shots}",
        f"backbone weights: {c.variant.weights}; protocol of its paper: {c.protocol}",
        f"{len(c.state)} tensors, {sum(v.numel() for v in c.state.values()):,} numbers",
    ]
    if c.origin:
        lines.append(f"converted from {c.origin['path']} (sha256 {c.origin['sha256']})")
    if c.trained_on:
        lines.append(f"trained on {c.trained_on.dataset} fold {c.trained_on.fold}")
    return lines
