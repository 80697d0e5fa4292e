"""Loading a checkpoint into a method: every tensor accounted for, or the keys are named."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench.backbone import Backbone, WeightsInfo
from fss_bench.checkpoint import (
    OURS,
    Checkpoint,
    Given,
    UnknownLayoutError,
    layouts,
    read_given,
    recognise,
)
from fss_bench.errors import WeightsError, shorten
from fss_bench.layout import Layout, Variant
from fss_bench.method import create_method
from fss_bench.timm_backbone import create_backbone
from fss_bench.weight_files import state_sha256


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
    variant = checkpoint.variant
    return create_method(
        checkpoint.method,
        backbone
        or create_backbone(
            variant.backbone, variant.built_for or "none", **variant.backbone_options
        ),
        **{**variant.options, **options},
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
        given = read_given(source)
        try:
            source = _own_state(method, given) or recognise(given)
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
    try:
        _check_fit(method, source, layout, fitted)
    except WeightsError as error:
        if not layout.ordered:
            raise
        given = Given(source.name, source.sha256, source.state, place=source.place)
        return _load_by_order(method, given, error)
    _check_finite(source.name, {layout.published(k): v for k, v in fitted.items()})
    method.load_state_dict(fitted, strict=False)
    _mark(method, source)
    return LoadReport(source, len(fitted), dropped)


def _own_state(method: nn.Module, given: Given) -> Checkpoint | None:
    """A state dict with the method's own names, if it is one."""
    if given.ours is not None or set(given.state) != set(method.state_dict()):
        return None
    backbone = getattr(method, "backbone", None)
    variant = Variant(getattr(backbone, "name", "own"), getattr(method, "options", {}))
    name = getattr(method, "registered_name", type(method).__name__)
    return Checkpoint(
        given.name,
        given.sha256,
        OURS,
        name,
        variant,
        "standard",
        state=given.state,
        place=given.place,
    )


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
    typed = [
        f"{layout.published(k)} {str(v.dtype).removeprefix('torch.')}"
        for k, v in fitted.items()
        if k in own and own[k].is_floating_point() and not v.is_floating_point()
    ]
    parts = (
        ("missing", [layout.published(k) for k in missing]),
        ("left over", left),
        ("of another shape", wrong),
        ("of another type", typed),
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


def _load_by_order(method: nn.Module, given: Given, unknown: WeightsError) -> LoadReport:
    """Match a legacy file with strange names by position, where counts and all shapes agree.

    Raises:
        WeightsError: `unknown`, where they do not, or where the names are a bare backbone's.
    """
    name = getattr(method, "registered_name", None)
    found = next((n for n, la in layouts().items() if la.method == name and la.ordered), None)
    own = {k: v for k, v in method.state_dict().items() if not k.endswith("num_batches_tracked")}
    kept = {k: v for k, v in given.state.items() if not _is_head_or_constant(v)}
    trunk = {k.removeprefix("backbone.model.") for k in own}
    fits = [v.shape for v in own.values()] == [v.shape for v in kept.values()]
    if found is None or not fits or trunk.issuperset(kept):
        raise unknown
    _check_finite(given.name, kept)
    backbone = getattr(getattr(method, "backbone", None), "name", "own")
    checkpoint = Checkpoint(
        given.name,
        given.sha256,
        found,
        str(name),
        Variant(backbone),
        layouts()[found].protocol,
        place=given.place,
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
