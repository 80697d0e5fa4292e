"""Which module is evaluated on which fold: one backbone's method, or a checkpoint a fold."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fss_bench.backbone import Backbone, WeightsInfo
from fss_bench.checkpoint import (
    Checkpoint,
    UnknownLayoutError,
    check_use,
    read_checkpoint,
)
from fss_bench.checkpoint_loading import build_for, load_checkpoint
from fss_bench.errors import FssBenchError
from fss_bench.method import create_method, methods
from fss_bench.setting import Setting
from fss_bench.timm_backbone import create_backbone
from fss_bench.weight_reading import get_weight_layout

DEFAULT_BACKBONE = "resnet50"
PLACE = "{fold}"


class Backbones:
    """The backbones of one command: each is made once, and shared by its methods.

    Args:
        options: of `create_backbone`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self._made: dict[tuple[str, str], Backbone] = {}

    def get(self, name: str, weights: str) -> Backbone:
        """The backbone of a name with these weights."""
        if (name, weights) not in self._made:
            self._made[name, weights] = create_backbone(name, weights, **self.options)
        return self._made[name, weights]


class Entrants:
    """The modules of one `evaluate` command.

    Args:
        method: name of a registered method.
        backbone: its name; by default the checkpoint's, else `resnet50`.
        backbones: where it comes from.
        weights: of the backbone; with a checkpoint there is no choice.
        checkpoint: a file; `{fold}` in its name stands for the fold.
        options: of the method.

    Raises:
        FssBenchError: weights and a checkpoint.
    """

    def __init__(
        self,
        method: str,
        backbone: str | None,
        backbones: Backbones,
        weights: str | None,
        checkpoint: str | None,
        options: Mapping[str, Any],
    ) -> None:
        if checkpoint is not None and weights not in (None, "none"):
            raise FssBenchError(
                f"--weights {weights} and --checkpoint {checkpoint}: a checkpoint holds the "
                "backbone's weights too; drop --weights"
            )
        for name in ("encoder", "layout") if checkpoint is not None else ():
            if name in backbones.options:
                given = f"{name}={backbones.options[name]}"
                raise FssBenchError(
                    f"--backbone-option {given} is for --weights FILE, and --checkpoint holds the "
                    "backbone's weights: leave it out"
                )
        self._method, self._options = method, dict(options)
        self._backbone, self._backbones = backbone, backbones
        self._weights, self._pattern = weights or "imagenet", checkpoint
        self._held: tuple[str | None, nn.Module] | None = None
        self._by_order: list[str] = []
        self._shared = False  # one file for several folds

    def check(self, settings: Sequence[Setting]) -> Iterator[str]:
        """Make what the settings need, refuse what does not go together, and yield what to know.

        Raises:
            FssBenchError: see `create_method`, `load_checkpoint` and `check_use`.
        """
        folds = sorted({setting.fold for setting in settings})
        if self._pattern is not None and len(folds) > 1 and PLACE not in self._pattern:
            self._shared = True
            yield (
                f"one checkpoint for folds {', '.join(map(str, folds))}: what was trained for one "
                "fold has seen the test classes of the others; give --fold, or a name with {fold}"
            )
        for fold in folds:
            own = [setting for setting in settings if setting.fold == fold]
            method = self.method_for(fold)
            if fold == folds[0]:
                yield from self.facts(method)
            found = getattr(method, "checkpoint", None)
            if isinstance(found, Checkpoint):
                for setting in own:
                    check_use(found, setting)
                yield from self._notes(found, own[0], first=fold == folds[0])

    def facts(self, method: nn.Module) -> Iterator[str]:
        """What to know of a module whatever it is used for."""
        yield from _how_read(method)
        if not isinstance(getattr(method, "checkpoint", None), Checkpoint) and _has_head(method):
            yield (
                f"{self._method} is not trained: without --checkpoint its head is random, and so "
                "are its numbers"
            )

    def method_for(self, fold: int) -> nn.Module:
        """The module to evaluate on a fold; one at a time is kept."""
        name = self.name_for(fold)
        if self._held is None or self._held[0] != name:
            self._held = None  # before the next one takes memory
            self._held = (name, self._make(name))
        return self._held[1]

    def name_for(self, fold: int) -> str | None:
        """The checkpoint for a fold, if there is one: folds of the same share a module."""
        return self._pattern and self._pattern.replace(PLACE, str(fold))

    def _notes(self, found: Checkpoint, setting: Setting, first: bool) -> Iterator[str]:
        fold, dataset, asked = setting.fold, setting.dataset, setting.protocol.name
        if found.name in self._by_order:
            yield (
                f"the tensors of {found.name} were matched by position, since its names are not "
                "the published ones"
            )
        said = re.findall(r"(?:fold|split)[-_]?(\d+)", found.name, re.IGNORECASE)
        if said and not self._shared and str(fold) not in said:
            yield f"{found.name} says fold {said[-1]}, and is evaluated on fold {fold}"
        known = found.variant.options.get("base_classes")
        if first and known not in (None, len(dataset.base_classes(fold))):
            yield (
                f"the base learner of {found.name} knows {known} classes, {dataset.name} has "
                f"{len(dataset.base_classes(fold))} base classes: it was trained on other data, "
                "whose base classes may include the test classes"
            )
        if first and found.protocol not in (asked, "standard"):
            yield (
                f"the paper of {found.method} evaluates under protocol {found.protocol}: numbers "
                f"under {asked} do not compare with it (--protocol {found.protocol})"
            )

    def _make(self, file: str | None) -> nn.Module:
        methods.get(self._method)  # a broken plug-in is told before weights are fetched
        if file is None:
            backbone = self._backbones.get(self._backbone or DEFAULT_BACKBONE, self._weights)
            return create_method(self._method, backbone, **self._options)
        method, source = self._empty(file)
        report = load_checkpoint(method, source)
        if report.by_order:
            self._by_order.append(report.checkpoint.name)
        series = Path(str(self._pattern)).absolute().as_posix()
        if PLACE not in series and not self._shared:
            series = ""  # the file's own name may tell
        method.checkpoint = replace(report.checkpoint, series=series or None, state={})  # type: ignore[assignment]
        return method

    def _empty(self, file: str) -> tuple[nn.Module, str | Checkpoint]:
        """The method that a file is for, not loaded yet, and what to load into it.

        A file of no known layout may hold the method's own names, or go by position: the load
        tells. What it is for only the user knows then.
        """
        try:
            checkpoint = read_checkpoint(file)
        except UnknownLayoutError:
            if self._backbone is None:
                raise
            backbone = self._create_backbone(self._backbone, "none")
            return create_method(self._method, backbone, **self._options), file
        if checkpoint.method != self._method:
            raise FssBenchError(
                f"{file} is a {checkpoint.method} checkpoint, not one of {self._method}: "
                f"fss-bench evaluate {checkpoint.method} --checkpoint {file}"
            )
        variant = checkpoint.variant
        name = self._backbone or variant.backbone
        same = name == variant.backbone
        own = variant.backbone_options if same else {}
        weights = (same and variant.built_for) or "none"
        backbone = create_backbone(name, weights, **{**own, **self._backbones.options})
        return build_for(checkpoint, backbone, **self._options), checkpoint

    def _create_backbone(self, name: str, weights: str) -> Any:
        return create_backbone(name, weights, **self._backbones.options)


def _how_read(method: nn.Module) -> Iterator[str]:
    """Which layout and encoder a weights file of the backbone was read as."""
    weights = getattr(getattr(method, "backbone", None), "weights", None)
    if isinstance(weights, WeightsInfo) and weights.layout is not None:
        title = get_weight_layout(weights.layout).title
        yield f"{weights.source} was read as {title}, {weights.encoder} encoder"


def _has_head(method: nn.Module) -> bool:
    """Whether a method has parameters that are not its backbone's."""
    return any(not name.startswith("backbone.") for name, _ in method.named_parameters())
