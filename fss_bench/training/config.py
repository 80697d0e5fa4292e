"""What a training run is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fss_bench.compute import Compute
from fss_bench.dataset import SegDataset
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.protocols import EvaluationProtocol

VALIDATIONS = ("base", "novel", "none")


@dataclass(frozen=True)
class TrainConfig:
    """One fold's training run.

    Attributes:
        method: name of a registered method.
        dataset: the data.
        protocol: name, or a protocol of your own; its rules for base classes and masks apply.
        fold, ways, shots, seed: see the glossary in docs/architecture.md; another seed, other
            episodes, augmentation and starting weights.
        rules: changed protocol rules.
        stage: of a method with several; by default the last.
        backbone, weights, backbone_options: see `create_backbone`.
        start: checkpoint of the method to start from, official or ours.
        options: of the method.
        recipe: changed numbers of its recipe.
        output: folder of the trained checkpoints, of all folds.
        compute: device, precision and workers.
        validation: what the checkpoint is chosen on: `base` classes in test images without novel
            ones; `novel` classes, in other episodes than the test's; or `none`: the last is taken.
        validation_episodes: how many.
        validate_every: steps between validations; by default a tenth of all.
        save_every: steps between checkpoints; by default as `validate_every`.
        keep: how many of the newest checkpoints are kept, beside the chosen one.
        tensorboard: whether the log is written for TensorBoard too.
        compile: whether the losses are compiled by torch.
        resume: go on from what is there, or start over.
    """

    method: str
    dataset: SegDataset
    protocol: str | EvaluationProtocol = "standard"
    fold: int = 0
    ways: int = 1
    shots: int = 1
    seed: int = 0
    rules: Mapping[str, Any] = field(default_factory=dict)
    stage: str | None = None
    backbone: str = "resnet50"
    weights: str = "imagenet"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    start: str | Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    output: Path = Path("trained")
    compute: Compute = field(default_factory=Compute)
    validation: str = "base"
    validation_episodes: int = 100
    validate_every: int | None = None
    save_every: int | None = None
    keep: int = 2
    tensorboard: bool = False
    compile: bool = False
    resume: bool = True

    def __post_init__(self) -> None:
        """Raise FssBenchError for a number that cannot be."""
        if self.validation not in VALIDATIONS:
            raise UnknownNameError("validation", self.validation, VALIDATIONS)
        counts = ("validation_episodes", "validate_every", "save_every", "keep")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise FssBenchError(f"--{name.replace('_', '-')} {value}: it must be 1 or more")
        if "frozen" in self.backbone_options:
            raise FssBenchError(
                "backbone option frozen: in training it is --recipe train_backbone=true or false"
            )
