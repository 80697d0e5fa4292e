"""Many settings and methods in one go: what they share is computed once.

Settings that differ only in how answers are scored share a pass. Passes over images that reach the
methods alike share the encoded images, within the memory for them; methods on one backbone run it
once for all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from torch import nn

from fss_bench.compute import Compute
from fss_bench.evaluation import Coming, Evaluation, Progress, image_store, input_side
from fss_bench.results import ResultStore, Run
from fss_bench.scoring import segmentation_key
from fss_bench.setting import Setting

Watch = Callable[[str, Sequence[Setting]], AbstractContextManager[Progress | None]]
"""Progress of a pass of a method over these settings."""


class Modules(Protocol):
    """Where the modules of one method come from, one at a time."""

    def method_for(self, fold: int) -> nn.Module:
        """The module to evaluate on a fold."""

    def name_for(self, fold: int) -> str | None:
        """Equal for folds that share a module."""


@dataclass(frozen=True)
class Pass:
    """Settings whose episodes one method segments once for all.

    Attributes:
        settings: see `segmentation_key`.
        entrant: number of the method.
        input_key: equal for passes whose images reach the methods alike and through one backbone.
    """

    settings: Sequence[Setting]
    entrant: int
    input_key: tuple[str, ...]


def plan_passes(settings: Sequence[Setting], entrants: Sequence[Modules]) -> list[Pass]:
    """Passes by what they share of images, then by fold; equal settings are one."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        group = groups.setdefault(segmentation_key(setting), [])
        if all(setting.protocol != other.protocol for other in group):
            group.append(setting)
    passes = [
        Pass(group, number, _input_key(group[0], number, entrants))
        for number in range(len(entrants))
        for group in groups.values()
    ]
    return sorted(passes, key=lambda one: (one.input_key, one.settings[0].fold, one.entrant))


def _input_key(setting: Setting, number: int, entrants: Sequence[Modules]) -> tuple[str, ...]:
    rules, name = setting.protocol, entrants[number].name_for(setting.fold)
    if name is not None or len(entrants) == 1:  # a file holds a backbone of its own
        module = (str(number), str(name))
    else:
        method = entrants[number].method_for(setting.fold)
        backbones = [
            getattr(one.method_for(setting.fold), "backbone", one) for one in entrants[: number + 1]
        ]
        own = getattr(method, "backbone", entrants[number])
        first = next(n for n, backbone in enumerate(backbones) if backbone is own)
        module = (str(first), str(input_side(method, setting)))
    return *module, rules.image_resize, rules.image_filter


def evaluate_all(
    settings: Sequence[Setting],
    entrants: Sequence[Modules],
    compute: Compute,
    store: ResultStore,
    *,
    resume: bool = True,
    save_predictions: bool = False,
    watch: Watch,
) -> Iterator[Run]:
    """Evaluate methods on every setting and keep the runs, which are yielded as they are kept.

    Args:
        settings: over the images of one dataset.
        entrants: the modules of every method.
        compute, store, resume, save_predictions: see `evaluate`.
        watch: called once a pass, for its progress.

    Raises:
        FssBenchError: see `Evaluation`; runs finished so far are kept.
    """
    for _, group in groupby(plan_passes(settings, entrants), key=lambda one: one.input_key):
        passes = list(group)
        numbers = sorted({one.entrant for one in passes})
        fold = passes[0].settings[0].fold
        images = image_store([entrants[n].method_for(fold) for n in numbers], compute)
        coming = [Coming(one.settings[0], numbers.index(one.entrant)) for one in passes]
        for at, one in enumerate(passes):
            number = coming[at].number
            method = images.methods[number]
            with watch(getattr(method, "registered_name", ""), one.settings) as progress:
                evaluation = Evaluation(
                    method, one.settings, compute, progress, images, number, coming[at + 1 :]
                )
                yield from evaluation.run_in(store, resume, save_predictions)
        del images, method, evaluation  # before the next modules take memory
