"""What a pretraining run is asked to do, checked before the first step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError, UnknownNameError, one_line
from fss_bench.pretraining.recipes import DEFAULT_VERSIONS, Recipe, recipe_for


@dataclass(frozen=True)
class PretrainConfig:
    """What to pretrain, on what, and how.

    Attributes:
        method: `moco`, `simclr` or `npid`.
        images: folders of images.
        version: of the method; by default MoCo's is 2.
        backbone: a timm name.
        weights: what the backbone starts from: `none`, `imagenet`, `packaged` or a file.
        output: the folder to write; by default `pretrained/<method>-v<version>-<backbone>`.
        options: changed numbers of the recipe.
        accumulate: forwards a step.
        compute: device, precision and workers; its batch size is the recipe's.
        seed: another seed, other weights, order and views.
        knn: folder with one subfolder a class, for the monitor.
        knn_every: epochs between its measurements.
        save_every: steps between checkpoints; by default an epoch's.
        resume: go on from the folder's checkpoint, or start over.
    """

    method: str
    images: tuple[Path, ...]
    version: int | None = None
    backbone: str = "resnet50"
    weights: str = "none"
    output: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    accumulate: int = 1
    compute: Compute = field(default_factory=Compute)
    seed: int = 0
    knn: Path | None = None
    knn_every: int = 10
    save_every: int | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        """Raise FssBenchError for a number that cannot be."""
        if not self.images:
            raise FssBenchError("--images: give the folder of images to pretrain on")
        for flag, folder in (*(("--images", f) for f in self.images), ("--knn", self.knn)):
            if folder is not None and not folder.is_dir():
                what = "is a file, give a folder" if folder.exists() else "no such folder"
                raise FssBenchError(f"{flag} {folder}: {what}")
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            raise FssBenchError(f"--output {self.output}: is a file, give a folder")
        for flag, value in (
            ("--accumulate", self.accumulate),
            ("--knn-every", self.knn_every),
            ("--save-every", self.save_every),
        ):
            if value is not None and value < 1:
                raise FssBenchError(f"{flag} {value}: it must be 1 or more")
        if not 0 <= self.seed < 2**63:
            raise FssBenchError(f"--seed {self.seed}: it must be 0 or more and below 2**63")
        self.recipe(vit=False)

    @property
    def folder(self) -> Path:
        """The output folder."""
        version = DEFAULT_VERSIONS[self.method] if self.version is None else self.version
        name = f"{self.method}-v{version}-{self.backbone}".replace("/", "_")
        return self.output or Path("pretrained") / name

    def recipe(self, vit: bool) -> Recipe:
        """The recipe with its changes."""
        return recipe_for(self.method, self.version, vit).replace_options(self.options)


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        trunk: a timm model without classifier.
        recipe: that the method takes with it.
        mean, std: per channel of [0, 1], as the weights want images; SimCLR takes them as they are.
        layout: whose rules the network was built by: that of the weights it starts from.
        weights_sha256: of the file it starts from, or of downloaded tensors; None for `none`.
    """

    trunk: Any
    recipe: Recipe
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str
    weights_sha256: str | None


def build_start(config: PretrainConfig, before: Mapping[str, Any] | None = None) -> Start:
    """Build the backbone and load its starting weights.

    Args:
        config: what is asked.
        before: identity of the run that is gone on with. Where it started from the same weights,
            they are not loaded again, as its checkpoint holds what became of them; a file is
            opened all the same, to see that it is the same one.

    Raises:
        UnknownNameError: timm has no such model.
        FssBenchError: it has no feature maps, or its weights do not fit.
    """
    from functools import partial

    from fss_bench.timm_backbone import build_model, timm_model, timm_names
    from fss_bench.weights import load_weights, open_weights

    name = config.backbone
    if name.partition(".")[0] not in timm_names():
        raise UnknownNameError("backbone", name, timm_names())
    source = open_weights(config.weights)
    build = partial(timm_model, name, **source.options)
    trunk = build_model(build, name, config.seed)
    recipe = config.recipe(vit=_is_vit(trunk))
    known = trunk.pretrained_cfg
    if known.get("fixed_input_size") and recipe.image_size != known["input_size"][-1]:
        trunk = build_model(partial(build, img_size=recipe.image_size), name, config.seed)
    if config.weights != "none" and recipe.label == "moco-v3" and _is_vit(trunk):
        raise FssBenchError(
            f"--weights {config.weights}: MoCo v3 starts a transformer with random patches and "
            "fixed positions of its own: drop --weights, or take --version 2"
        )
    digest = source.sha256
    if before is not None and _started_from(before, config, digest):
        digest = before["weights_sha256"]
        if source.reading is not None:
            source.reading.rules.adapt(trunk)
    elif config.weights == "none":
        load_weights(trunk, name, source)
    else:
        digest = load_weights(trunk, name, source).sha256
    _check_size(trunk, name, recipe.image_size)
    mean, std = source.statistics(known)
    if recipe.method == "simclr":
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Start(trunk, recipe, tuple(mean), tuple(std), _layout_of(source), digest)


def _layout_of(source: Any) -> str:
    """The published layout that a network came from: a file of ours says what it came from."""
    from fss_bench.weight_files import METADATA, read_metadata

    if source.reading is None:
        return "timm"
    about = json.loads(read_metadata(Path(source.name)).get(METADATA, "{}"))
    return str(about.get("layout", source.reading.layout))


def _started_from(before: Mapping[str, Any], config: PretrainConfig, sha256: str | None) -> bool:
    """Whether an earlier run started from these very weights; `sha256` is known of files alone."""
    same = before["backbone"] == config.backbone and before["weights"] == config.weights
    there = before.get("weights_sha256")
    return bool(same and (sha256 is None or sha256 == there))


def _check_size(trunk: Any, name: str, size: int) -> None:
    """Refuse views that a network cannot take, before images are read."""
    import torch

    was_training = trunk.training
    trunk.eval()
    try:
        with torch.no_grad():
            trunk(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise FssBenchError(
            f"{name} does not take views of {size} px ({one_line(error)[:100]}): choose another "
            "--image-size"
        ) from error
    finally:
        trunk.train(was_training)


def _is_vit(trunk: Any) -> bool:
    from timm.models.vision_transformer import VisionTransformer

    return isinstance(trunk, VisionTransformer)
