"""Promises about what a method leaves alone, and how it is made, stored and trained."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss_bench.backbone import Backbone
from fss_bench.contract.checking import ContractError, NotApplicable
from fss_bench.contract.subject import Subject
from fss_bench.errors import FssBenchError
from fss_bench.method import splits
from fss_bench.ops import cross_entropy
from fss_bench.part_method import in_parts

PLAIN = (bool, int, float, str, tuple, list, dict, set)


def defaults(subject: Subject) -> str:
    """It is made from a backbone alone, every option by its default."""
    method = subject.make({})
    own = sum(p.numel() for p in method.parameters())
    backbone = getattr(method, "backbone", None)
    own -= sum(p.numel() for p in backbone.parameters()) if isinstance(backbone, nn.Module) else 0
    training = [name for name, module in method.named_modules() if module.training]
    if training:
        raise ContractError(
            f"{training[0] or 'it'} is in training mode after eval()",
            "let train(mode) set every part to the mode",
        )
    if subject.options:
        _ = subject.method  # a mistake in them is told here, once
    return f"{own:,} parameters beside the backbone's"


def same_start(subject: Subject) -> str:
    """Random weights are the same every time, and come from no global generator's state."""
    before = _generators()
    pair = subject.make(subject.options).state_dict(), subject.method.state_dict()
    changed = _changed(before, _generators())
    if changed:
        raise ContractError(f"making it draws from {changed}", "draw from a torch.Generator")
    different = [name for name in pair[0] if not torch.equal(pair[0][name], pair[1][name])]
    if different:
        raise ContractError(
            f"{different[0]} differs from one to the next", "draw from torch's generator or a seed"
        )
    return "two are equal"


def inputs_unchanged(subject: Subject) -> str:
    """What it is given is not written to."""
    given = subject.episodes(1, 2, 2)
    copies = [tensor.clone() for tensor in given]
    subject.answer(given)
    for name, tensor, copy in zip(given._fields, given, copies, strict=True):
        if not torch.equal(tensor, copy):
            raise ContractError(f"{name} was written to", "work on a copy")
    return "images and masks"


def no_global_randomness(subject: Subject) -> str:
    """An answer leaves the generators of torch, NumPy and Python as they are."""
    given, before = subject.episodes(1, 1, 2), _generators()
    subject.answer(given)
    changed = _changed(before, _generators())
    if changed:
        raise ContractError(
            f"the state of {changed} changes", "draw from a generator made in the call"
        )
    return "torch, NumPy, random"


def no_trace(subject: Subject) -> str:
    """An answer leaves weights, attributes, modes and torch's settings as they are."""
    before = _traces(subject.method)
    subject.answer(subject.episodes(1, 2, 2))
    after = _traces(subject.method)
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        same = (
            torch.equal(one, other)
            if isinstance(one, Tensor) and isinstance(other, Tensor)
            else type(one) is type(other) and one == other
        )
        if not same:
            raise ContractError(f"{name} changes", "keep what an episode needs in the call")
    return f"{len(before)} tensors and attributes"


def frozen_parts(subject: Subject) -> str:
    """In training mode batch norms that are frozen stay in eval mode."""
    method = subject.make(subject.options).train()
    frozen = [
        name
        for name, module in method.named_modules()
        if isinstance(module, _BatchNorm)
        and module.training
        and not any(p.requires_grad for p in module.parameters())
    ]
    if frozen:
        raise ContractError(f"{frozen[0]} is frozen and gathers statistics", "override train(mode)")
    return "none gathers statistics"


def composition(subject: Subject) -> str:
    """`forward` is `segment` of what `encode` gives, so images can be encoded once a run."""
    method: Any = subject.method
    if not splits(method):
        raise NotApplicable("it has a forward of its own: images are encoded for every episode")
    given = subject.episodes(1, 1, 2)
    with torch.no_grad():
        maps = method.encode(given.support_images.flatten(0, 2))
        maps = {k: v.reshape(*given.support_masks.shape[:3], *v.shape[1:]) for k, v in maps.items()}
        composed = method.segment(maps, given.support_masks, method.encode(given.query_images))
    if not torch.equal(composed, subject.answer(given)):
        raise ContractError("they differ", "leave forward to the base class")
    return "what is compared is kept" if in_parts(method) else "features are kept"


def state_dict(subject: Subject) -> str:
    """A state dict makes the same method of a fresh one."""
    given, twin = subject.episodes(1, 1, 2), subject.make(subject.options, start_seed=1)
    for tensor in twin.state_dict().values():
        tensor.zero_()
    twin.load_state_dict(subject.method.state_dict(), strict=True)
    with torch.no_grad():
        difference = float((twin(*given) - subject.answer(given)).abs().max())
    if difference:
        raise ContractError(
            f"its answer is {difference:.1e} off", "register all that is learnt with the module"
        )
    return f"{len(twin.state_dict())} tensors"


def gradients(subject: Subject) -> str:
    """The loss gives finite gradients to all that is trained."""
    method: Any = subject.make(subject.options)
    learnt = {name: p for name, p in method.named_parameters() if p.requires_grad}
    given = subject.episodes(1, 1, 1)
    side = given.query_images.shape[-1]
    labels = torch.randint(0, 2, (1, side, side), generator=torch.Generator().manual_seed(2))
    loss = _loss(method, (*given, labels))
    if loss.numel() != 1 or not loss.isfinite().all():
        raise ContractError(f"the loss is {loss.detach()}", "return a finite scalar")
    if not learnt:
        raise NotApplicable("there is nothing to train")
    if not loss.requires_grad:
        raise ContractError("the loss has no gradient", "compute it from what is trained")
    loss.backward()  # type: ignore[no-untyped-call]
    missed = sorted(set(learnt) - {n for n, p in learnt.items() if p.grad is not None})
    missed = [name for name in missed if not name.startswith(_backbones(method))]
    if missed:
        raise ContractError(f"{missed[0]} gets none", "use it, or requires_grad_(False)")
    wrong = [n for n, p in learnt.items() if p.grad is not None and not p.grad.isfinite().all()]
    if wrong:
        raise ContractError(f"that of {wrong[0]} is not finite", "mend the loss there")
    return f"{len(learnt)} tensors, {sum(p.numel() for p in learnt.values()):,} numbers"


def _loss(method: Any, episode: tuple[Tensor, ...]) -> Tensor:
    """What training minimises."""
    if not callable(getattr(method, "loss", None)):
        return cross_entropy(method(*episode[:3]), episode[3])
    try:
        loss: Tensor = method.loss(*episode)
    except FssBenchError as error:
        raise NotApplicable(str(error)) from error
    return loss


def _backbones(method: nn.Module) -> tuple[str, ...]:
    """Prefixes of parameters of backbones: stages after the levels in use get no gradients."""
    return tuple(f"{n}." for n, module in method.named_modules() if isinstance(module, Backbone))


def _generators() -> Mapping[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch's global generator": torch.get_rng_state().tolist(),
        "NumPy's global generator": (kind, np.asarray(keys).tolist(), rest),
        "Python's global generator": random.getstate(),
    }


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    return ", ".join(name for name in before if before[name] != after[name])


def _traces(method: nn.Module) -> Mapping[str, Any]:
    """Everything that a call could leave behind, by name."""
    attributes = {
        f"attribute {name}.{key}".replace(" .", " "): repr(value)
        for name, module in method.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, PLAIN) and not key.startswith("_")
    }
    tensors = {f"tensor {name}": tensor.clone() for name, tensor in method.state_dict().items()}
    return {**attributes, **tensors, "torch's grad mode": torch.is_grad_enabled()}
