"""Which module is evaluated on which fold: one backbone's method, or a checkpoint a fold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fss_bench.checkpoint import (
    Checkpoint,
    UnknownLayoutError,
    check_use,
    read_checkpoint,
    short_name,
)
from fss_bench.checkpoint_loading import build_for, load_checkpoint
from fss_bench.errors import FssBenchError
from fss_bench.method import create_method
from fss_bench.protocols import PROTOCOLS
from fss_bench.setting import Setting
from fss_bench.timm_backbone import create_backbone

DEFAULT_BACKBONE = "resnet50"
PLACE = "{fold}"


class Entrants:
    """The modules of one `evaluate` command.

    Args:
        method: name of a registered method.
        backbone: its name; by default the checkpoint's, else `resnet50`.
        backbone_options: of `create_backbone`.
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
        backbone_options: Mapping[str, Any],
        weights: str | None,
        checkpoint: str | None,
        options: Mapping[str, Any],
    ) -> None:
        if checkpoint is not None and weights not in (None, "none"):
            raise FssBenchError(
                f"--weights {weights} and --checkpoint {checkpoint}: a checkpoint holds the "
                "backbone's weights too; drop --weights"
            )
        self._method, self._options = method, dict(options)
        self._backbone, self._backbone_options = backbone, dict(backbone_options)
        self._weights, self._pattern = weights or "imagenet", checkpoint
        self._made: dict[str | None, nn.Module] = {}
        self._by_order: list[str] = []

    def check(self, settings: Sequence[Setting]) -> Iterator[str]:
        """Make what the settings need, refuse what does not go together, and yield what to know.

        Raises:
            FssBenchError: see `create_method`, `load_checkpoint` and `check_use`.
        """
        for setting in settings:
            found = getattr(self.method_for(setting.fold), "checkpoint", None)
            if found is not None:
                check_use(found, setting)
        folds = sorted({setting.fold for setting in settings})
        if self._pattern is None or not settings:
            return
        found = self.method_for(folds[0]).checkpoint
        assert isinstance(found, Checkpoint)
        for file in self._by_order:
            yield (
                f"the tensors of {file} were matched by position, since its names are not the "
                "published ones"
            )
        if len(folds) > 1 and PLACE not in self._pattern:
            yield (
                f"one checkpoint for folds {', '.join(map(str, folds))}: what was trained for one "
                "fold has seen the test classes of the others; give --fold, or a name with {fold}"
            )
        asked = settings[0].protocol.name
        if found.protocol not in (asked, "standard"):
            known = "" if found.protocol in PROTOCOLS else " (not replayed here yet)"
            yield (
                f"the paper of {found.method} evaluates under protocol {found.protocol}{known}: "
                f"numbers under {asked} do not compare with it"
            )

    def method_for(self, fold: int) -> nn.Module:
        """The module to evaluate on a fold."""
        name = self._pattern and self._pattern.replace(PLACE, str(fold))
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, file: str | None) -> nn.Module:
        if file is None:
            backbone = self._create_backbone(self._backbone or DEFAULT_BACKBONE, self._weights)
            return create_method(self._method, backbone, **self._options)
        method, source = self._empty(file)
        report = load_checkpoint(method, source)
        if report.by_order:
            self._by_order.append(file)
        series = short_name(str(self._pattern)) if PLACE in str(self._pattern) else None
        method.checkpoint = replace(report.checkpoint, series=series, state={})  # type: ignore[assignment]
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
        name = self._backbone or checkpoint.variant.backbone
        backbone = self._create_backbone(name, "none")
        return build_for(checkpoint, backbone, **self._options), checkpoint

    def _create_backbone(self, name: str, weights: str) -> Any:
        return create_backbone(name, weights, **self._backbone_options)
