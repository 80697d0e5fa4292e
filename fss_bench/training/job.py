"""A training run made ready: method, recipe, items, validation; all mistakes show here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from torch import nn

from fss_bench import cost
from fss_bench.base_episodes import train_sampler
from fss_bench.checkpoint import METADATA, Checkpoint, TrainedOn
from fss_bench.episodes import EpisodeSampler, digest_int, episodes_sha256
from fss_bench.errors import FssBenchError
from fss_bench.geometry import square_side
from fss_bench.images import IGNORE
from fss_bench.layout import Variant
from fss_bench.method import Method, input_size_of, methods
from fss_bench.protocols import EvaluationProtocol
from fss_bench.setting import Setting, resolve_protocol
from fss_bench.training.augmentation import Augmentation
from fss_bench.training.config import TrainConfig
from fss_bench.training.items import BaseImages, EpisodeItems
from fss_bench.training.recipe import Recipe, recipe_for, unused
from fss_bench.training.start import (
    checkpoint_name,
    create_start,
    network_options,
    options_of,
)
from fss_bench.training.validation import validation_setting
from fss_bench.weight_files import state_sha256


@dataclass(frozen=True)
class Job:
    """What a run does.

    Attributes:
        config: what was asked for.
        protocol: resolved.
        recipe, stage: of the method, with the user's changes.
        name: of the chosen checkpoint, without its ending, and of the run's folder.
        method: with its starting weights.
        origin: the checkpoint it started from.
        items: training items by number.
        side: of the input squares, px.
        validation: what the checkpoint is chosen on.
        start_sha256: of the starting weights.
    """

    config: TrainConfig
    protocol: EvaluationProtocol
    recipe: Recipe
    stage: str
    name: str
    method: nn.Module
    origin: Checkpoint | None
    items: EpisodeItems | BaseImages
    side: int
    validation: Setting | None
    start_sha256: str

    @property
    def base_classes(self) -> tuple[int, ...]:
        """Class ids that are learnt."""
        return self.config.dataset.base_classes(self.config.fold)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the trained weights; a resumed run must have the same."""
        config = self.config
        return {
            "method": config.method,
            "stage": self.stage,
            "options": options_of(type(self.method), config),
            "backbone": config.backbone,
            "backbone_options": dict(config.backbone_options),
            "weights": config.weights if self.origin is None else None,
            "start": None if self.origin is None else self.origin.name,
            "start_sha256": self.start_sha256,
            "dataset": config.dataset.identity,
            "fingerprint": config.dataset.index.fingerprint,
            "protocol": self.protocol.record,
            "fold": config.fold,
            "ways": config.ways,
            "shots": config.shots,
            "seed": config.seed,
            "input_size": self.side,
            "precision": config.compute.precision,
            "recipe": self.recipe.record,
            "validation": self.validated(),
            "validate_every": self.validate_every,
        }

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.config.validate_every or max(1, self.recipe.steps // 10)

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        return self.config.save_every or self.validate_every

    @property
    def title(self) -> str:
        """What a plot is called."""
        config = self.config
        stage = f" ({self.stage})" if self.name.endswith(self.stage) else ""
        return (
            f"{config.method}{stage}, {config.backbone}, {config.dataset.identity} fold "
            f"{config.fold}, {config.ways}-way {config.shots}-shot, seed {config.seed}"
        )

    def validated(self) -> dict[str, Any] | None:
        """Which episodes the checkpoint is chosen on."""
        if self.validation is None:
            return None
        return {
            "kind": self.config.validation,
            "episodes": len(self.validation.specs),
            "sha256": episodes_sha256(self.validation.specs),
        }

    def record(self, started: datetime) -> dict[str, Any]:
        """The content of train.json, as far as it is known at the start."""
        return {
            "name": self.name,
            **self.identity(),
            "environment": cost.environment(),
            "started": started.isoformat(timespec="seconds"),
            "finished": None,
        }

    def finished(self, started: datetime, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The content of train.json at the end."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {**self.record(started), "finished": now, "figures": dict(figures)}

    def metadata(self, step: int, miou: float | None) -> dict[str, str]:
        """What a file of trained weights says of itself.

        Args:
            step: steps taken.
            miou: of its validation, in [0, 1], where there was one.
        """
        config = self.config
        names = tuple(config.dataset.class_names[c] for c in self.base_classes)
        variant = Variant(
            config.backbone,
            options_of(type(self.method), config),
            weights="trained",
            shots=None,
            backbone_options=network_options(config),
            built_for=getattr(getattr(self.method, "backbone", None), "built_for", None),
        )
        rule = "the last step"
        if self.validation is not None:
            rule = f"highest mIoU on {len(self.validation.specs)} episodes, {config.validation}"
        content = {
            "method": config.method,
            "variant": asdict(variant),
            "protocol": self.protocol.name,
            "origin": None
            if self.origin is None
            else {"path": self.origin.name, "sha256": self.origin.sha256},
            "trained_on": asdict(TrainedOn(config.dataset.identity, config.fold, names)),
            "training": {
                "stage": self.stage,
                "seed": config.seed,
                "step": step,
                "steps": self.recipe.steps,
                "chosen_by": rule,
                "validation": self.validated(),
                "validation_miou": miou,
            },
        }
        return {METADATA: json.dumps(content, sort_keys=True)}


def prepare(config: TrainConfig, processes: int) -> Job:
    """Make everything a run needs.

    Raises:
        FssBenchError: a mistake the user can mend.
    """
    cls = methods.get(config.method)
    stage, recipe = recipe_for(cls, config.stage, config.recipe)
    _check_recipe(config, recipe, processes)
    protocol = resolve_protocol(config.dataset, config.protocol, config.rules)
    dataset, fold = config.dataset, config.fold
    dataset.novel_classes(fold)  # a wrong fold shows before a network is built
    method, origin = create_start(config, cls, stage, recipe, protocol)
    if isinstance(method, Method):
        method.start_stage(stage)
    side = _training_side(config, recipe) or square_side(protocol, dataset, input_size_of(method))
    items = _items(config, recipe, protocol, side, method)
    validation = None
    if recipe.items == "images" and config.validation == "novel":
        raise FssBenchError(
            f"--validation novel: stage {stage} of {config.method} segments no episodes yet, its "
            "last step is taken: leave it out"
        )
    if config.validation != "none" and recipe.items == "episodes":
        validation = validation_setting(
            dataset,
            protocol,
            fold=fold,
            ways=config.ways,
            shots=config.shots,
            kind=config.validation,
            episodes=config.validation_episodes,
        )
    return Job(
        config=config,
        protocol=protocol,
        recipe=recipe,
        stage=stage,
        name=checkpoint_name(cls, stage, fold),
        method=method,
        origin=origin,
        items=items,
        side=side,
        validation=validation,
        start_sha256=state_sha256(method),
    )


def _items(
    config: TrainConfig,
    recipe: Recipe,
    protocol: EvaluationProtocol,
    side: int,
    method: nn.Module,
) -> EpisodeItems | BaseImages:
    augmentation = Augmentation(recipe.place, recipe.scale, recipe.rotate, recipe.blur, recipe.flip)
    shared: dict[str, Any] = {
        "fold": config.fold,
        "side": side,
        "augmentation": augmentation,
        "seed": config.seed,
    }
    if recipe.items == "images":
        return BaseImages(config.dataset, protocol, **shared)
    return EpisodeItems(
        config.dataset,
        protocol,
        sampler_of(config, protocol),
        **shared,
        base_labels=getattr(method, "needs_base_masks", False),
        void=getattr(method, "void", IGNORE),
    )


def sampler_of(config: TrainConfig, protocol: EvaluationProtocol) -> EpisodeSampler:
    """The endless training episodes of a run."""
    return train_sampler(
        config.dataset,
        protocol,
        fold=config.fold,
        ways=config.ways,
        shots=config.shots,
        seed=digest_int("train", config.seed),
    )


def _training_side(config: TrainConfig, recipe: Recipe) -> int:
    """Side that the recipe or the user's `--recipe crop` asks for; an input size comes before."""
    given = "crop" in config.recipe or "input_size" not in config.options
    return recipe.crop if given else 0


def _check_recipe(config: TrainConfig, recipe: Recipe, processes: int) -> None:
    text = unused(recipe, config.recipe)
    if text is not None:
        raise FssBenchError(text)
    if recipe.batch_size % (recipe.accumulate * processes):
        raise FssBenchError(
            f"--batch-size {recipe.batch_size}: it must be a multiple of the {processes} "
            f"processes times accumulate={recipe.accumulate}"
        )
