"""The method that a run trains, with the weights that it starts from."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fss_bench.backbone import Backbone, backbones
from fss_bench.checkpoint import Checkpoint, check_use, read_checkpoint
from fss_bench.checkpoint_loading import load_checkpoint
from fss_bench.episodes import digest_int
from fss_bench.errors import FssBenchError
from fss_bench.method import create_method
from fss_bench.protocols import EvaluationProtocol
from fss_bench.setting import Setting
from fss_bench.timm_backbone import create_backbone
from fss_bench.training.config import TrainConfig
from fss_bench.training.recipe import Recipe


def checkpoint_name(method: type, stage: str, fold: int) -> str:
    """`fold0`, or `fold0-base` for a stage that is not the last."""
    stages = list(getattr(method, "recipes", None) or {stage: {}})
    return f"fold{fold}" if stage == stages[-1] else f"fold{fold}-{stage}"


def create_start(
    config: TrainConfig, cls: type, stage: str, recipe: Recipe, protocol: EvaluationProtocol
) -> tuple[nn.Module, Checkpoint | None]:
    """The method with its starting weights, and the checkpoint that they are from."""
    start = _start_of(config, cls, stage)
    origin = None if start is None else read_checkpoint(start)
    backbone = _backbone(config, origin, frozen=not recipe.train_backbone)
    start_seed = digest_int("start", config.seed) >> 1 if config.seed else 0
    method = create_method(
        config.method, backbone, start_seed=start_seed, **options_of(cls, config)
    )
    if origin is None:
        return method, None
    novel = config.dataset.novel_classes(config.fold)
    setting = Setting(
        config.dataset, protocol, config.fold, config.ways, config.shots, 0, [], novel
    )
    check_use(origin, setting)
    load_checkpoint(method, origin if config.start is not None else _completed(origin, method))
    method.checkpoint = None  # type: ignore[assignment]  # it is no longer that checkpoint
    return method, origin


def _completed(origin: Checkpoint, method: nn.Module) -> Checkpoint:
    """An earlier stage for a method of another number of shots: what differs starts anew.

    A stage before the last trains nothing that depends on shots. Another backbone fits nowhere, and
    is left for the loading to refuse.
    """
    own = method.state_dict()
    fits = {k: v for k, v in origin.state.items() if k in own and v.shape == own[k].shape}
    if any(name.startswith("backbone.") for name in own.keys() - fits.keys()):
        return origin
    return replace(origin, state={**own, **fits})


def _backbone(config: TrainConfig, origin: Checkpoint | None, frozen: bool) -> Backbone:
    """The backbone; what a checkpoint brings need not be read from its own weights file.

    Raises:
        FssBenchError: it is to be trained, and takes no option `frozen`.
    """
    how: dict[str, Any] = {"frozen": frozen} if _takes_frozen(config.backbone) else {}
    if origin is None:
        found = create_backbone(config.backbone, config.weights, **config.backbone_options, **how)
    else:
        same = origin.variant.backbone == config.backbone
        found = create_backbone(
            config.backbone,
            (same and origin.variant.built_for) or "none",
            **network_options(config),
            **how,
        )
    if not frozen and not how and found.frozen and any(True for _ in found.parameters()):
        raise FssBenchError(
            f"backbone {config.backbone!r} takes no option frozen, so it cannot be trained: use "
            "--recipe train_backbone=false"
        )
    found.options = dict(config.backbone_options)
    return found


def _takes_frozen(backbone: str) -> bool:
    """Whether a backbone can be told not to be frozen; a plug-in's may have nothing to train."""
    if backbone not in backbones.names():  # timm's
        return True
    taken = inspect.signature(backbones.get(backbone)).parameters.values()
    return any(p.name == "frozen" or p.kind is p.VAR_KEYWORD for p in taken)


def network_options(config: TrainConfig) -> dict[str, Any]:
    """The backbone's options but those that only say how a weights file is read."""
    reading = ("encoder", "layout")
    return {k: v for k, v in config.backbone_options.items() if k not in reading}


def options_of(method: type, config: TrainConfig) -> dict[str, Any]:
    """The method's options: the user's, and those that the data and the setting decide."""
    known = {
        "base_classes": len(config.dataset.base_classes(config.fold)),
        "shots": config.shots,
    }
    taken = inspect.signature(method).parameters
    return {**{k: v for k, v in known.items() if k in taken}, **config.options}


def _start_of(config: TrainConfig, method: type, stage: str) -> str | Path | None:
    """The checkpoint to start from; by default that of the stage before, where there is one.

    Raises:
        FssBenchError: there is a stage before, and it was not trained.
    """
    stages = list(getattr(method, "recipes", None) or {stage: {}})
    if config.start is not None or stage == stages[0]:
        own = config.output / f"{checkpoint_name(method, stage, config.fold)}.safetensors"
        if config.start is not None and Path(config.start).resolve() == own.resolve():
            raise FssBenchError(
                f"--checkpoint {config.start} is the file that this run would write: choose "
                "another --output"
            )
        return config.start
    before = stages[stages.index(stage) - 1]
    file = config.output / f"{checkpoint_name(method, before, config.fold)}.safetensors"
    if not file.is_file():
        raise FssBenchError(
            f"stage {stage} of {config.method} starts from its stage {before}, and {file} is not "
            f"there: train it first with --stage {before}, or give --checkpoint FILE"
        )
    return file
