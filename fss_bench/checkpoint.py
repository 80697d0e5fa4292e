"""Checkpoints of whole methods: official files and ours, read and recognised by their keys."""

import json
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from fss_bench import checkpoints
from fss_bench.errors import FssBenchError, WeightsError, one_line, shorten
from fss_bench.layout import Layout, Variant
from fss_bench.setting import Setting
from fss_bench.weight_files import (
    file_sha256,
    read_metadata,
    read_state_dict,
    tensors_sha256,
    unwrap_state,
)

METADATA = "fss_bench"
OURS = "fss_bench"
SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""PASCAL's names of classes -> COCO's, where more than spaces differ."""


@dataclass(frozen=True)
class TrainedOn:
    """What a checkpoint was trained on: a dataset's fold, and the names of its base classes."""

    dataset: str
    fold: int
    base_classes: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was recognised.

    Attributes:
        name: the end of the file's path, or `state dict`.
        sha256: of the file, or of the tensors.
        layout: name of its layout: a published method's, or `fss_bench` for ours.
        method: the method it is for.
        variant: the backbone and options it is for.
        protocol: the protocol of the paper that it belongs to.
        origin: of one of ours that was converted: name and sha256 of what it was made from.
        trained_on: where the file says it.
        state: its tensors under published names.
        place: where the file is, absolute; empty for a state dict.
        series: one name for the files of several folds, where it was given.
        training: of one that was trained here: stage, seed, steps, and how it was chosen.
    """

    name: str
    sha256: str
    layout: str
    method: str
    variant: Variant
    protocol: str
    origin: Mapping[str, Any] | None = None
    trained_on: TrainedOn | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    place: str = ""
    series: str | None = None
    training: Mapping[str, Any] | None = None

    def record(self, fold: int) -> dict[str, Any]:
        """What a run of a fold says of it."""
        own = re.compile(rf"(fold|split)([-_]?){fold}(?!\d)", re.IGNORECASE)
        return {
            "path": self.name,
            "sha256": self.sha256,
            "layout": self.layout,
            "series": self.series or own.sub(r"\1\2{fold}", self.place or self.name),
            "origin": self.origin,
            "trained_on": asdict(self.trained_on) if self.trained_on else None,
            "training": self.training,
        }


@dataclass(frozen=True)
class Given:
    """What was read, not recognised yet.

    Attributes:
        name, sha256, state, place: see `Checkpoint`.
        ours: our metadata, if there is any.
    """

    name: str
    sha256: str
    state: Mapping[str, Tensor]
    ours: str | None = None
    place: str = ""


def layouts() -> dict[str, Layout]:
    """The published layouts by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(checkpoints.__path__))
    return {name: import_module(f"{checkpoints.__name__}.{name}").LAYOUT for name in names}


def read_checkpoint(
    source: str | Path | Mapping[str, Tensor], old_pickle: bool = False
) -> Checkpoint:
    """Read a checkpoint and recognise what it is for.

    Args:
        source: a file (published or ours), or a state dict under published names.
        old_pickle: read files that hold Python objects too; see `weight_files.read_content`.

    Raises:
        WeightsError: missing, unreadable, or of no known layout (`UnknownLayoutError`).
    """
    return recognise(read_given(source, old_pickle))


def short_name(path: str | Path) -> str:
    """The last three parts of a path."""
    return "/".join(Path(path).absolute().parts[1:][-3:])


def check_use(checkpoint: Checkpoint, setting: Setting) -> None:
    """Refuse a setting that a checkpoint must not be evaluated on.

    Raises:
        FssBenchError: it saw the test classes in training, or is for another number of shots.
    """
    check_shots(checkpoint, setting.shots, f"--shots {setting.shots}")
    trained = checkpoint.trained_on
    if trained is None:
        return
    base = {_class_key(name) for name in trained.base_classes}
    names = [setting.dataset.class_names[c] for c in setting.classes]
    seen = [name for name in names if _class_key(name) in base]
    if seen:
        raise FssBenchError(
            f"{checkpoint.name} was trained on {trained.dataset} fold {trained.fold}, whose base "
            f"classes include {shorten(seen)} of test fold {setting.fold}: evaluate it on fold "
            f"{trained.fold}"
        )


def check_shots(checkpoint: Checkpoint, shots: int, asked: str) -> None:
    """Refuse a number of shots that a checkpoint is not for.

    Args:
        checkpoint: what is used.
        shots: supports a way.
        asked: how the user put it.

    Raises:
        FssBenchError: it is for another number.
    """
    known = checkpoint.variant.shots
    if known is not None and shots not in known:
        raise FssBenchError(
            f"{checkpoint.name} is a {'/'.join(map(str, known))}-shot {checkpoint.method} "
            f"checkpoint: it cannot be evaluated with {asked}; use the file for that number of "
            "shots"
        )


def _class_key(name: str) -> str:
    """One spelling for a class whose name datasets spell in several ways."""
    plain = re.sub(r"[\s_-]", "", name).lower()
    return SYNONYMS.get(plain, plain)


class UnknownLayoutError(WeightsError):
    """No layout knows the names."""

    def __init__(self, name: str, state: Mapping[str, Tensor]) -> None:
        known = sorted({layout.method for layout in layouts().values()})
        super().__init__(
            f"{name} is of no known layout (its names begin {shorten(list(state)[:3])}): a "
            f"checkpoint of {', '.join(known)} is wanted; weights of a backbone go to --weights"
        )


def read_given(source: str | Path | Mapping[str, Tensor], old_pickle: bool = False) -> Given:
    """Read a file, or take a state dict, without asking what it is for."""
    if isinstance(source, Mapping):
        state = unwrap_state(source, "the state dict")
        return Given("state dict", tensors_sha256(state), state)
    path = Path(source)
    if path.is_dir():
        raise WeightsError(f"checkpoint {path}: is a folder, give a file in it")
    if not path.is_file():
        raise WeightsError(f"checkpoint {path}: no such file")
    state = read_state_dict(path, old_pickle)
    ours = read_metadata(path).get(METADATA)
    return Given(short_name(path), file_sha256(path), state, ours, path.absolute().as_posix())


def recognise(given: Given) -> Checkpoint:
    """What was read, with what it is for.

    Raises:
        WeightsError: our metadata cannot be read, or no layout knows the names.
    """
    if given.ours is not None:
        try:
            return _of_ours(given, json.loads(given.ours))
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{given.name} has metadata that cannot be read ({one_line(error)}): convert it "
                "again"
            ) from error
    for name, layout in layouts().items():
        try:
            variant = layout.detect(given.state)
        except (IndexError, TypeError):  # a tensor of its names with fewer dimensions
            continue
        if variant is not None:
            return Checkpoint(
                given.name,
                given.sha256,
                name,
                layout.method,
                variant,
                layout.protocol,
                state=given.state,
                place=given.place,
            )
    raise UnknownLayoutError(given.name, given.state)


def _of_ours(given: Given, content: Mapping[str, Any]) -> Checkpoint:
    variant, trained = content["variant"], content["trained_on"]
    origin = content["origin"]
    lacks = origin is not None and not {"path", "sha256"} <= set(origin)
    if lacks or not isinstance(variant["options"], Mapping):
        raise ValueError("options or origin of another form")
    return Checkpoint(
        given.name,
        given.sha256,
        OURS,
        content["method"],
        Variant.from_record(variant),
        content["protocol"],
        origin,
        TrainedOn(**{**trained, "base_classes": tuple(trained["base_classes"])})
        if trained
        else None,
        given.state,
        given.place,
        training=content.get("training"),
    )
