"""A pretraining run before its first step: backbone, images, plan, and what identifies it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from fss_bench import cost
from fss_bench.distributed import World
from fss_bench.pretraining.batches import check_batch, check_fit
from fss_bench.pretraining.encoder import has_batch_norm
from fss_bench.pretraining.knn import Labelled, find_labelled
from fss_bench.pretraining.pictures import Pictures, note_skipped, take_pictures
from fss_bench.pretraining.recipes import Recipe
from fss_bench.pretraining.schedule import Plan
from fss_bench.pretraining.setup import PretrainConfig, Start, build_start
from fss_bench.pretraining.state import Folder
from fss_bench.pretraining.watching import Watch

NAMED = 10
"""Skipped images whose names are kept."""


@dataclass(frozen=True)
class Job:
    """All that a run needs beside its folder.

    Attributes:
        config: what was asked.
        world: the processes.
        device: of this process.
        start: backbone, recipe and normalisation.
        pictures: the images.
        labelled: those of the kNN monitor, in the first process alone.
        plan: which images each step takes.
    """

    config: PretrainConfig
    world: World
    device: torch.device
    start: Start
    pictures: Pictures
    labelled: Labelled | None
    knn_sha256: str | None
    plan: Plan

    @property
    def recipe(self) -> Recipe:
        """The numbers of the run."""
        return self.start.recipe

    @property
    def title(self) -> str:
        """Method, backbone and number of images."""
        return f"{self.recipe.label}, {self.config.backbone}, {len(self.pictures.usable)} images"

    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be gone on from."""
        config = self.config
        return {
            "backbone": config.backbone,
            "weights": config.weights,
            "weights_sha256": self.start.weights_sha256,
            "images": len(self.pictures.usable),
            "images_sha256": self.pictures.sha256,
            "accumulate": config.accumulate,
            "precision": config.compute.precision,
            "device": self.device.type,
            "processes": self.world.size,
            "seed": config.seed,
            "knn_sha256": self.knn_sha256,
            "recipe": self.recipe.record,
        }

    def first_line(self) -> dict[str, Any]:
        """The first line of the log."""
        skipped = self.pictures.skipped
        return {
            "kind": "start",
            "images": len(self.pictures.usable),
            "skipped": len(skipped),
            "first_skipped": [name for name, _ in skipped[:NAMED]],
        }

    def record(self, started: datetime) -> dict[str, Any]:
        """The content of pretrain.json before the end."""
        return {
            **self.identity(),
            "folders": [str(folder) for folder in self.config.images],
            "skipped": len(self.pictures.skipped),
            "first_skipped": [list(pair) for pair in self.pictures.skipped[:NAMED]],
            "knn": None if self.config.knn is None else str(self.config.knn),
            "steps": self.plan.steps,
            "layout": self.start.layout,
            "mean": list(self.start.mean),
            "std": list(self.start.std),
            "device_name": cost.device_name(self.device),
            "environment": cost.environment(),
            "started": started.isoformat(timespec="seconds"),
            "finished": None,
        }

    def about_weights(self) -> dict[str, Any]:
        """What weights.safetensors says of itself."""
        recipe = self.recipe
        return {
            "method": recipe.method,
            "version": recipe.version,
            "backbone": self.config.backbone,
            "layout": self.start.layout,
            "mean": list(self.start.mean),
            "std": list(self.start.std),
            "epochs": recipe.epochs,
            "steps": self.plan.steps,
            "images": len(self.pictures.usable),
            "recipe": recipe.record,
            "seed": self.config.seed,
            "images_sha256": self.pictures.sha256,
        }


def prepare(
    config: PretrainConfig,
    world: World,
    device: torch.device,
    folder: Folder,
    watch: Watch,
    before: Mapping[str, Any] | None = None,
) -> Job:
    """Build the backbone, find and check the images, and see that they suffice.

    Args:
        config: what is asked.
        world: the processes; the first one checks the images for all.
        device: of this process.
        folder: where the check of the images is kept.
        watch: who is told of it.
        before: identity of the run that is gone on with; None at the start.

    Raises:
        FssBenchError: a mistake the user can mend.
    """
    start = world.together(lambda: build_start(config, before))
    recipe, batch_norm = start.recipe, has_batch_norm(start.trunk)
    world.together(lambda: check_batch(recipe, world.size, batch_norm))
    pictures = _find_pictures(config, world, folder, watch)
    count = len(pictures.usable)
    world.together(lambda: check_fit(recipe, count, config.accumulate, world.size))
    labelled = _find_labelled(config, world, watch)
    plan = Plan(count, recipe.batch_size, config.accumulate, recipe.epochs, config.seed)
    knn = world.share(labelled.checked.sha256 if labelled else None)
    return Job(config, world, device, start, pictures, labelled, knn, plan)


def _find_pictures(config: PretrainConfig, world: World, folder: Folder, watch: Watch) -> Pictures:
    def take() -> Pictures:
        return take_pictures(config.images, folder.known, config.compute.workers, watch.checking)

    pictures = world.share(world.once(take))
    assert pictures is not None
    watch.say(note_skipped(pictures))
    return pictures


def _find_labelled(config: PretrainConfig, world: World, watch: Watch) -> Labelled | None:
    place, workers = config.knn, config.compute.workers
    if place is None:
        return None
    labelled = world.once(lambda: find_labelled(place, workers, watch.checking))
    if labelled is not None:
        watch.say(note_skipped(labelled.checked))
    return labelled
