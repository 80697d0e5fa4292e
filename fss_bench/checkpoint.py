"""Checkpoints of whole methods: official files and ours, recognised by their keys."""

import json
import pkgutil
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench import checkpoints
from fss_bench.backbone import Backbone, WeightsInfo
from fss_bench.errors import FssBenchError, WeightsError, one_line, shorten
from fss_bench.layout import Layout, Variant
from fss_bench.method import create_method
from fss_bench.registry import datasets
from fss_bench.results import write_whole
from fss_bench.setting import Setting
from fss_bench.timm_backbone import create_backbone
from fss_bench.weights import (
    file_sha256,
    known_file,
    read_metadata,
    read_state_dict,
    state_sha256,
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
        series: one name for the files of several folds, where it was given.
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
    series: str | None = None

    def record(self, fold: int) -> dict[str, Any]:
        """What a run of a fold says of it."""
        named = re.compile(rf"(fold|split)([-_]?){fold}(?!\d)", re.IGNORECASE)
        return {
            "path": self.name,
            "sha256": self.sha256,
            "layout": self.layout,
            "series": self.series or named.sub(r"\1\2{fold}", self.name),
            "origin": self.origin,
            "trained_on": asdict(self.trained_on) if self.trained_on else None,
        }


@dataclass(frozen=True)
class LoadReport:
    """What loading did.

    Attributes:
        checkpoint: what was recognised.
        loaded: tensors loaded.
        dropped: why -> tensors left out for it.
        by_order: whether they were matched by position, since names were strange.
    """

    checkpoint: Checkpoint
    loaded: int
    dropped: Mapping[str, int]
    by_order: bool = False

    def lines(self) -> list[str]:
        """The report for a reader."""
        c = self.checkpoint
        how = " by position, since its names are not the published ones" if self.by_order else ""
        lines = [
            f"{c.name}: {c.method} on {c.variant.backbone}, layout {c.layout}, "
            f"protocol {c.protocol}",
            f"loaded {self.loaded} tensors{how}",
        ]
        return lines + [f"left out {n}: {why}" for why, n in self.dropped.items()]


@dataclass(frozen=True)
class _Given:
    """What was read, not recognised yet; `ours` is our metadata, if there is any."""

    name: str
    sha256: str
    state: Mapping[str, Tensor]
    ours: str | None = None


def layouts() -> dict[str, Layout]:
    """The published layouts by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(checkpoints.__path__))
    return {name: import_module(f"{checkpoints.__name__}.{name}").LAYOUT for name in names}


def read_checkpoint(source: str | Path | Mapping[str, Tensor]) -> Checkpoint:
    """Read a checkpoint and recognise what it is for.

    Args:
        source: a file (published or ours), or a state dict under published names.

    Raises:
        WeightsError: missing, unreadable, or of no known layout (`UnknownLayoutError`).
    """
    return _recognise(_read(source))


def short_name(path: str | Path) -> str:
    """The last three parts of a path."""
    return "/".join(Path(path).absolute().parts[1:][-3:])


def create_from_checkpoint(
    checkpoint: Checkpoint, backbone: Backbone | None = None, **options: Any
) -> nn.Module:
    """The method that a checkpoint is for, with its weights.

    Args:
        checkpoint: see `read_checkpoint`.
        backbone: by default the checkpoint's own.
        **options: the method's keyword arguments, before the checkpoint's.
    """
    method = build_for(checkpoint, backbone, **options)
    load_checkpoint(method, checkpoint)
    return method


def build_for(
    checkpoint: Checkpoint, backbone: Backbone | None = None, **options: Any
) -> nn.Module:
    """The method that a checkpoint is for, not loaded; see `create_from_checkpoint`."""
    return create_method(
        checkpoint.method,
        backbone or create_backbone(checkpoint.variant.backbone, weights="none"),
        **{**checkpoint.variant.options, **options},
    )


def load_checkpoint(
    method: nn.Module, source: str | Path | Mapping[str, Tensor] | Checkpoint
) -> LoadReport:
    """Load a checkpoint into a method, in place.

    Every tensor of the method is set, and every tensor of the file is loaded or left out for a
    stated reason.

    Args:
        method: made by `create_method` with the backbone and options that the checkpoint is for.
        source: a file or a state dict, under published names or the method's own, or a checkpoint
            that was read.

    Raises:
        WeightsError: cannot be read, is of no known layout or of another method, or does not fit;
            with the keys.
    """
    if not isinstance(source, Checkpoint):
        given = _read(source)
        try:
            source = _own_state(method, given) or _recognise(given)
        except UnknownLayoutError as unknown:
            return _load_by_order(method, given, unknown)
    name = getattr(method, "registered_name", type(method).__name__)
    if source.method != name:
        raise WeightsError(
            f"{source.name} is a {source.method} checkpoint, not one of {name}: evaluate "
            f"{source.method} with it"
        )
    layout = _layout_of(source)
    fitted, dropped = _rename(source, layout)
    _check_fit(method, source, layout, fitted)
    _check_finite(source.name, {layout.published(k): v for k, v in fitted.items()})
    method.load_state_dict(fitted, strict=False)
    _mark(method, source)
    return LoadReport(source, len(fitted), dropped)


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


def check_use(checkpoint: Checkpoint, setting: Setting) -> None:
    """Refuse a setting that a checkpoint must not be evaluated on.

    Raises:
        FssBenchError: it saw the test classes in training, or is for another number of shots.
    """
    shots, trained = checkpoint.variant.shots, checkpoint.trained_on
    if shots is not None and setting.shots not in shots:
        raise FssBenchError(
            f"{checkpoint.name} is a {'/'.join(map(str, shots))}-shot {checkpoint.method} "
            f"checkpoint: it cannot be evaluated with --shots {setting.shots}; use the file for "
            "that number of shots"
        )
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


def _class_key(name: str) -> str:
    """One spelling for a class whose name datasets spell in several ways."""
    plain = re.sub(r"[\s_-]", "", name).lower()
    return SYNONYMS.get(plain, plain)


def convert_checkpoint(source: Path, target: Path, known: TrainedOn | None = None) -> LoadReport:
    """Read a checkpoint, build its method, load it, and write it in our form.

    Args:
        source: official or ours.
        target: the `.safetensors` file to write.
        known: what it was trained on, where the file does not say.

    Raises:
        WeightsError: see `read_checkpoint` and `load_checkpoint`; or the target cannot be written.
    """
    if target.suffix != ".safetensors" or target.resolve() == source.resolve():
        raise WeightsError(f"{target}: write to another file, whose name ends in .safetensors")
    if not target.parent.is_dir():
        raise WeightsError(f"{target.parent}: no such folder to write into")
    checkpoint = read_checkpoint(source)
    method = build_for(checkpoint)
    report = load_checkpoint(method, checkpoint)
    save_checkpoint(method, target, checkpoint, known)
    return report


class UnknownLayoutError(WeightsError):
    """No layout knows the names."""

    def __init__(self, name: str, state: Mapping[str, Tensor]) -> None:
        known = sorted({layout.method for layout in layouts().values()})
        super().__init__(
            f"{name} is of no known layout (its names begin {shorten(list(state)[:3])}): a "
            f"checkpoint of {', '.join(known)} is wanted; weights of a backbone go to --weights"
        )


def _read(source: str | Path | Mapping[str, Tensor]) -> _Given:
    if isinstance(source, Mapping):
        state = unwrap_state(source, "the state dict")
        return _Given("state dict", tensors_sha256(state), state)
    path = Path(source)
    if path.is_dir():
        raise WeightsError(f"checkpoint {path}: is a folder, give a file in it")
    if not path.is_file():
        raise WeightsError(f"checkpoint {path}: no such file")
    state = read_state_dict(path)
    ours = read_metadata(path).get(METADATA)
    return _Given(short_name(path), file_sha256(path), state, ours)


def _recognise(given: _Given) -> Checkpoint:
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
            )
    raise UnknownLayoutError(given.name, given.state)


def _of_ours(given: _Given, content: Mapping[str, Any]) -> Checkpoint:
    variant, trained = content["variant"], content["trained_on"]
    shots = variant["shots"]
    return Checkpoint(
        given.name,
        given.sha256,
        OURS,
        content["method"],
        Variant(**{**variant, "shots": None if shots is None else tuple(shots)}),
        content["protocol"],
        content["origin"],
        TrainedOn(**{**trained, "base_classes": tuple(trained["base_classes"])})
        if trained
        else None,
        given.state,
    )


def _own_state(method: nn.Module, given: _Given) -> Checkpoint | None:
    """A state dict with the method's own names, if it is one."""
    if given.ours is not None or set(given.state) != set(method.state_dict()):
        return None
    backbone = getattr(method, "backbone", None)
    variant = Variant(getattr(backbone, "name", "own"), getattr(method, "options", {}))
    name = getattr(method, "registered_name", type(method).__name__)
    return Checkpoint(given.name, given.sha256, OURS, name, variant, "standard", state=given.state)


def _layout_of(checkpoint: Checkpoint) -> Layout:
    if checkpoint.layout != OURS:
        return layouts()[checkpoint.layout]
    return Layout(checkpoint.method, "", checkpoint.protocol, lambda _: None, renames={})


def _rename(checkpoint: Checkpoint, layout: Layout) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors under our names, and how many were left out for which reason."""
    fitted: dict[str, Tensor] = {}
    dropped: Counter[str] = Counter()
    for name, value in checkpoint.state.items():
        if name in layout.fixed:
            _check_fixed(checkpoint.name, name, value, layout)
            dropped["a constant of the method, equal to ours"] += 1
        elif why := layout.why_dropped(name):
            dropped[why] += 1
        elif (ours := layout.rename(name)) in fitted:
            raise WeightsError(
                f"{checkpoint.name} holds {layout.published(ours)} twice, once as {name}: the file "
                "is damaged or of a changed method"
            )
        else:
            fitted[ours] = value
    return fitted, dict(dropped)


def _check_fixed(file: str, name: str, value: Tensor, layout: Layout) -> None:
    wanted = layout.fixed[name](value.shape)
    rtol = max(1e-5, torch.finfo(value.dtype).eps) if value.is_floating_point() else 0.0
    same = value.shape == wanted.shape and torch.allclose(value.float(), wanted, rtol, atol=1e-6)
    if not same:
        raise WeightsError(
            f"{file}: {name} is a constant of {layout.method} and has other values: the file is "
            "damaged or of a changed method"
        )


def _check_fit(
    method: nn.Module, checkpoint: Checkpoint, layout: Layout, fitted: Mapping[str, Tensor]
) -> None:
    own = method.state_dict()
    missing = [k for k in own if k not in fitted and not k.endswith("num_batches_tracked")]
    left = [layout.published(k) for k in fitted if k not in own]
    wrong = [
        f"{layout.published(k)} {tuple(v.shape)} instead of {tuple(own[k].shape)}"
        for k, v in fitted.items()
        if k in own and v.shape != own[k].shape
    ]
    parts = (
        ("missing", [layout.published(k) for k in missing]),
        ("left over", left),
        ("of another shape", wrong),
    )
    complaints = [f"{len(keys)} {what} ({shorten(keys)})" for what, keys in parts if keys]
    if complaints:
        variant = checkpoint.variant
        options = "".join(f" --option {k}={v}" for k, v in variant.options.items())
        raise WeightsError(
            f"{checkpoint.name} does not fit {checkpoint.method} on "
            f"{getattr(getattr(method, 'backbone', None), 'name', 'its backbone')}: tensors "
            f"{', '.join(complaints)}: it is for --backbone {variant.backbone}{options}"
        )


def _check_finite(file: str, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"{file}: tensor {name} holds NaN or infinite values: the file is damaged, fetch "
                "it again"
            )


def _load_by_order(method: nn.Module, given: _Given, unknown: UnknownLayoutError) -> LoadReport:
    """Match a legacy file with strange names by position, where counts and all shapes agree."""
    name = getattr(method, "registered_name", None)
    found = next((n for n, la in layouts().items() if la.method == name and la.ordered), None)
    own = {k: v for k, v in method.state_dict().items() if not k.endswith("num_batches_tracked")}
    kept = {k: v for k, v in given.state.items() if not _is_head_or_constant(v)}
    if found is None or [v.shape for v in own.values()] != [v.shape for v in kept.values()]:
        raise unknown
    _check_finite(given.name, kept)
    backbone = getattr(getattr(method, "backbone", None), "name", "own")
    checkpoint = Checkpoint(
        given.name, given.sha256, found, str(name), Variant(backbone), layouts()[found].protocol
    )
    method.load_state_dict(dict(zip(own, kept.values(), strict=True)), strict=False)
    _mark(method, checkpoint)
    skipped = len(given.state) - len(kept)
    why = {"a head, constant or counter, by its shape": skipped} if skipped else {}
    return LoadReport(checkpoint, len(kept), why, by_order=True)


def _is_head_or_constant(value: Tensor) -> bool:
    """ImageNet's classifier, position encodings and integers: in legacy files, in no method."""
    return (
        not value.is_floating_point() or value.shape[:1] == (1000,) or value.shape[:2] == (1, 10000)
    )


def _mark(method: Any, checkpoint: Checkpoint) -> None:
    """Let a method say which checkpoint it holds, and its backbone where its weights are from."""
    method.checkpoint = replace(checkpoint, state={})
    backbone = getattr(method, "backbone", None)
    if isinstance(backbone, Backbone):
        backbone.weights = WeightsInfo(checkpoint.variant.weights, state_sha256(backbone))


def describe(path: Path) -> list[str]:
    """What a file is, for a reader, one line a fact.

    Raises:
        WeightsError: cannot be read, or is of no known layout.
    """
    if not path.is_file():
        read_checkpoint(path)  # says what is there instead
    known = known_file(path)
    head = [f"{path.name}: sha256 {file_sha256(path)}", *([f"known as {known}"] if known else [])]
    try:
        c = read_checkpoint(path)
    except UnknownLayoutError:
        if known:
            return head
        raise
    options = ", ".join(f"{k}={v}" for k, v in c.variant.options.items()) or "defaults"
    shots = "any" if c.variant.shots is None else "/".join(map(str, c.variant.shots))
    lines = [
        *head,
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
