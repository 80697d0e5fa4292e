"""Many settings in one go: what they share is computed once.

Settings that differ only in how answers are scored share a pass. Passes over images that reach the
method alike share the encoded images, within the memory for them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from torch import nn

from fss_bench.compute import Compute
from fss_bench.encoding import ImageStore
from fss_bench.evaluation import Evaluation, Progress
from fss_bench.results import ResultStore, Run
from fss_bench.scoring import segmentation_key
from fss_bench.setting import Setting

Watch = Callable[[Sequence[Setting]], AbstractContextManager[Progress | None]]
"""Progress of a pass over these settings."""
InputKey = tuple[str | None, str, str]


class Modules(Protocol):
    """Where the modules come from, one at a time."""

    def method_for(self, fold: int) -> nn.Module:
        """The module to evaluate on a fold."""

    def name_for(self, fold: int) -> str | None:
        """Equal for folds that share a module."""


@dataclass(frozen=True)
class Pass:
    """Settings whose episodes are segmented once for all.

    Attributes:
        settings: see `segmentation_key`.
        input_key: equal for passes whose images one module is given alike.
    """

    settings: Sequence[Setting]
    input_key: InputKey


def plan_passes(settings: Sequence[Setting], modules: Modules) -> list[Pass]:
    """Passes by module, then by how images are resized, then by fold; equal settings are one."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        group = groups.setdefault(segmentation_key(setting), [])
        if all(setting.protocol != other.protocol for other in group):
            group.append(setting)
    passes = []
    for group in groups.values():
        rules = group[0].protocol
        name = modules.name_for(group[0].fold)
        passes.append(Pass(group, (name, rules.image_resize, rules.image_filter)))
    return sorted(passes, key=lambda one: (*map(str, one.input_key), one.settings[0].fold))


def evaluate_all(
    settings: Sequence[Setting],
    modules: Modules,
    compute: Compute,
    store: ResultStore,
    *,
    resume: bool = True,
    save_predictions: bool = False,
    watch: Watch,
) -> Iterator[Run]:
    """Evaluate every setting and keep its run; runs are yielded as soon as they are kept.

    Args:
        settings: over the images of one dataset.
        modules: the module for each fold.
        compute, store, resume, save_predictions: see `evaluate`.
        watch: called once a pass, for its progress.

    Raises:
        FssBenchError: see `Evaluation`; runs finished so far are kept.
    """
    for _, group in groupby(plan_passes(settings, modules), key=lambda one: one.input_key):
        passes = list(group)
        module = modules.method_for(passes[0].settings[0].fold)
        images: ImageStore | None = None
        for number, one in enumerate(passes):
            with watch(one.settings) as progress:
                evaluation = Evaluation(
                    module,
                    one.settings,
                    compute,
                    progress,
                    images,
                    [coming.settings[0] for coming in passes[number + 1 :]],
                )
                images = evaluation.images
                yield from evaluation.run_in(store, resume, save_predictions)
        del module, images, evaluation  # before the next module takes memory
