"""All promises, in the order in which they are checked."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from fss_bench.contract.answers import (
    answers_repeat,
    batch_of_episodes,
    forward_arguments,
    ignored_pixels,
    image_sides,
    logits_shape,
    one_sided_masks,
    reduced_precision,
    shot_order,
    supports_matter,
    way_order,
)
from fss_bench.contract.checking import Check, Result
from fss_bench.contract.conduct import (
    composition,
    defaults,
    frozen_parts,
    gradients,
    inputs_unchanged,
    no_global_randomness,
    no_trace,
    same_start,
    state_dict,
)
from fss_bench.contract.evaluating import evaluation
from fss_bench.contract.subject import TINY, Subject

PROMISES: tuple[Callable[[Subject], str], ...] = (
    defaults,
    same_start,
    forward_arguments,
    logits_shape,
    image_sides,
    batch_of_episodes,
    answers_repeat,
    supports_matter,
    way_order,
    shot_order,
    ignored_pixels,
    one_sided_masks,
    reduced_precision,
    inputs_unchanged,
    no_global_randomness,
    no_trace,
    composition,
    state_dict,
    frozen_parts,
    gradients,
    evaluation,
)


def checks(method: str, backbone: str = TINY, **options: Any) -> list[Check]:
    """The checks of a registered method; it is imported and made when the first is called.

    Args:
        method: its name.
        backbone: a registered one, or any timm model; it gets random weights.
        **options: the method's keyword arguments.
    """
    subject = Subject(method, backbone, options)
    return [Check(promise, subject) for promise in PROMISES]


def results(found: Iterable[Check]) -> Iterator[Result]:
    """What comes of checks, one by one; a method that cannot be made ends them.

    Meanwhile torch has one thread: for tensors this small more of them take ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for check in found:
            result = check.result()
            yield result
            if check.function is defaults and result.outcome == "failed":
                return
    finally:
        torch.set_num_threads(threads)
