"""Reading a weights file: its layout, the encoder that is wanted, and every tensor's place."""

import json
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fss_bench import weight_layouts
from fss_bench.backbone import BuiltFor
from fss_bench.errors import UnknownNameError, WeightsError, one_line, printable, shorten
from fss_bench.weight_files import METADATA, plain_state, read_content, read_metadata
from fss_bench.weight_layout import ROLES, Encoder, WeightLayout, why

AUTO = "auto"
OURS = "fss_bench"


class NoLayoutError(WeightsError):
    """A file's names are of no layout."""


@dataclass(frozen=True)
class Reading:
    """One encoder of a weights file, as its layout says.

    Attributes:
        layout: its layout's name.
        rules: its layout.
        role: `query` or `momentum`.
        roles: the encoders that the file has, the default first.
        state: the encoder's tensors, without heads, under names that timm's own converter takes.
        left: why -> number of tensors of the file that are not in `state` for it.
        mean, std: see `WeightLayout`.
        network: the layout that the network came from: `layout`, or what a file of ours says.
        needed: of what was asked for, `encoder` and `layout`, what changed the reading: the rest is
            what the file would have been read as anyway.
    """

    layout: str
    rules: WeightLayout = field(repr=False)
    role: str
    roles: tuple[str, ...]
    state: Mapping[str, Tensor] = field(repr=False)
    left: Mapping[str, int]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    needed: Mapping[str, str] = field(default_factory=dict)
    network: str = ""

    @property
    def built_for(self) -> BuiltFor:
        """What the file asks of a network."""
        mean = None if self.mean is None else tuple(self.mean)
        std = None if self.std is None else tuple(self.std)
        return BuiltFor(self.network or self.layout, dict(self.options), mean, std)

    @property
    def options(self) -> Mapping[str, Any]:
        """What timm must build the model with."""
        return self.rules.options(self.state)


@cache
def weight_layout_names() -> tuple[str, ...]:
    """Names of the published layouts."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(weight_layouts.__path__)))


def get_weight_layout(name: str) -> WeightLayout:
    """The layout of a name.

    Raises:
        UnknownNameError: there is none; the nearest is suggested.
    """
    if name not in weight_layout_names():
        raise UnknownNameError("layout of weights", name, weight_layout_names())
    layout: WeightLayout = import_module(f"{weight_layouts.__name__}.{name}").LAYOUT
    return layout


def read_weights(
    path: Path, encoder: str = AUTO, layout: str = AUTO, old_pickle: bool = False
) -> Reading:
    """Read one encoder of a weights file.

    Args:
        path: a torch or safetensors file.
        encoder: `query`, `momentum` or another word for them, or `auto`: what its paper evaluates.
        layout: a layout's name, or `auto`: recognised by the names of the tensors.
        old_pickle: see `read_content`.

    Raises:
        WeightsError: cannot be read, is of no known layout or of several, has no such encoder, or
            holds tensors that the layout does not know.
        UnknownNameError: no such encoder's or layout's name.
    """
    if encoder != AUTO and encoder not in ROLES:
        raise UnknownNameError("encoder", encoder, [AUTO, *ROLES])
    ours = _metadata(path)
    names = dict(_names(read_content(path, old_pickle), "", str(path)))
    usual = _usual_layouts(ours, names)
    name = _the_only(usual, names, path) if layout == AUTO else layout
    rules = _of_ours(ours, path) if ours and [name] == usual else get_weight_layout(name)
    if name == OURS and not ours:
        raise WeightsError(
            f"{path} has the names of {rules.title} and not its metadata, which say how to read "
            "it: take the file as it was written"
        )
    if not rules.fits(names):
        raise WeightsError(f"{path} does not look like {rules.title}: leave out layout={name}")
    found = _choose(rules, names, encoder, path)
    state, left = _take(rules, found, names, path)
    if refused := rules.refuses(state):
        raise WeightsError(f"{path} ({rules.title}): {refused}")
    roles = tuple(dict.fromkeys(e.role for e in rules.in_file(names)))
    needed = {"encoder": found.role} if found.role != roles[0] else {}
    return Reading(
        name,
        rules,
        found.role,
        roles,
        rules.trunk(state),
        left,
        ours.get("mean", rules.mean),
        ours.get("std", rules.std),
        {**needed, **({"layout": name} if [name] != usual else {})},
        network=str(ours.get("layout", name)) if ours and [name] == usual else name,
    )


def _usual_layouts(ours: Mapping[str, Any], names: Mapping[str, Tensor | None]) -> list[str]:
    """The layouts that a file may be of when nothing is said: the user must choose of several."""
    if ours:
        return [OURS if "method" in ours else str(ours.get("layout", OURS))]
    known = {name: get_weight_layout(name) for name in weight_layout_names()}
    fitting = [name for name, rules in known.items() if rules.recognises(names)]
    found = [name for name in fitting if not known[name].generic] or fitting
    tensors = {name: value for name, value in names.items() if value is not None}
    rivals = [rival for name in found for rival in known[name].rivals(tensors)]
    return sorted({*found, *rivals})


def _of_ours(about: Mapping[str, Any], path: Path) -> WeightLayout:
    """The rules of a file of ours.

    `convert` and `pretrain` keep the name of the published layout that the network came from: what
    it needs beside names, such as padding and heads, stays.

    Args:
        about: what the file says of itself.
        path: of the file.

    Raises:
        WeightsError: it says a layout that is not known.
    """
    ours, said = get_weight_layout(OURS), str(about.get("layout", OURS))
    if said not in weight_layout_names():
        raise WeightsError(
            f"{path} says that it was made from layout {said!r}, which is none of ours: update "
            "fss-bench, or make it again"
        )
    rules = get_weight_layout(said)
    default = about.get("encoder")
    title = rules.title
    if "method" in about:
        title = printable(f"{about['method']} v{about.get('version')} of {ours.title}")
    return replace(
        ours,
        title=title,
        encoders=tuple(sorted(ours.encoders, key=lambda e: e.role != default)),
        marks=(r"/(query|momentum)\..*",),
        options=rules.options,
        refuses=rules.refuses,
        adapt=rules.adapt,
        fit=rules.fit,
        mean=rules.mean,
        std=rules.std,
        positions=rules.positions,
    )


def _metadata(path: Path) -> Mapping[str, Any]:
    """What one of our files says of itself; empty for others."""
    try:
        found = json.loads(read_metadata(path).get(METADATA, "{}"))
        for key in ("mean", "std"):
            _check_statistics(key, found.get(key))
    except Exception as error:
        if path.is_file() and not isinstance(error, WeightsError):
            raise WeightsError(
                f"{path} has metadata that cannot be read ({one_line(error)}): make it again"
            ) from error
        return {}  # reading the content says what is wrong with the file
    return dict(found)


def _check_statistics(key: str, values: Any) -> None:
    """Raise ValueError unless values are None or three numbers that images can be scaled by."""
    if values is None:
        return
    plain = isinstance(values, list) and [type(x) in (int, float) for x in values] == [True] * 3
    if not plain or not all(-10 < x < 10 for x in values) or (key == "std" and min(values) <= 0):
        raise ValueError(f"{key} must be three numbers of images in [0, 1]")


def _names(content: Any, place: str, file: str) -> Iterator[tuple[str, Tensor | None]]:
    """`place/name` -> tensor for all state dicts in a file, and its own keys."""
    if not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    for name, value in plain_state(tensors, file).items():
        yield f"{place}/{name}", value
    for key, value in content.items():
        shown = printable(str(key))
        if isinstance(key, str) and isinstance(value, Mapping):
            yield from _names(value, f"{place}/{shown}" if place else shown, file)
        if not place and key not in tensors:
            yield shown, None


def _the_only(layouts: Sequence[str], names: Mapping[str, Any], path: Path) -> str:
    """The layout that a file is of."""
    if not layouts:
        shown = [name for name, value in names.items() if value is not None]
        raise NoLayoutError(
            f"{path} is of no known layout (its tensors begin {shorten(shown[:3]) or 'nowhere'}): "
            "save the backbone's state dict alone, under timm's names"
        )
    if len(layouts) > 1:
        readings = [f"layout={name} for {get_weight_layout(name).title}" for name in layouts]
        raise WeightsError(
            f"{path} can be read in {len(layouts)} ways, with other numbers: say which with "
            f"--backbone-option {'; '.join(readings)} (to inspect and convert it: --layout NAME)"
        )
    return layouts[0]


def _choose(rules: WeightLayout, names: Mapping[str, Any], wanted: str, path: Path) -> Encoder:
    there = rules.in_file(names)
    if not there:
        raise WeightsError(f"{path} ({rules.title}) holds no encoder: fetch it again")
    for encoder in there:
        if wanted == AUTO or encoder.role == ROLES[wanted]:
            return encoder
    raise WeightsError(
        f"{path} ({rules.title}) has no {wanted} encoder: it has {shorten([e.role for e in there])}"
    )


def _take(
    rules: WeightLayout, chosen: Encoder, names: Mapping[str, Tensor | None], path: Path
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors of an encoder's backbone, and how many others there are for which reason."""
    state = _backbone(rules, chosen, names)
    copies = _copies(rules, chosen, names, path)
    left: Counter[str] = Counter()
    unknown = []
    for name, value in names.items():
        own = name.removeprefix(chosen.prefix) if name.startswith(chosen.prefix) else None
        if value is None or own in state:
            continue
        reason = own and why(rules.heads, own)
        reason = reason or _of_another(rules, chosen, copies, name) or why(rules.others, name)
        place = name.rpartition("/")[0]
        if reason:
            left[reason] += 1
        elif name.startswith(chosen.place):
            unknown.append(name.removeprefix("/"))
        else:
            left["in another part of the file" + (f", {place!r}" if place else "")] += 1
    if unknown:
        raise WeightsError(
            f"{path} ({rules.title}) holds {len(unknown)} tensors that its layout does not know "
            f"({shorten(unknown)}): the file is of a changed method; save its backbone alone"
        )
    return state, dict(left)


def _backbone(
    rules: WeightLayout, encoder: Encoder, names: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """An encoder's tensors under its own names, without heads."""
    found = {}
    for name, value in names.items():
        own = name.removeprefix(encoder.prefix)
        if value is None or not name.startswith(encoder.prefix) or not own:
            continue
        reason = why(rules.heads, own) or why(rules.others, name)
        if not reason and not _of_another(rules, encoder, (), name):
            found[own] = value
    return found


def _copies(
    rules: WeightLayout, chosen: Encoder, names: Mapping[str, Tensor | None], path: Path
) -> list[Encoder]:
    """The same encoder under other names, which must hold the same."""
    wanted = _backbone(rules, chosen, names)
    copies = []
    for other in rules.in_file(names):
        if other == chosen or other.role != chosen.role:
            continue
        found = _backbone(rules, other, names)
        if not wanted.keys() & found.keys():  # such as a score beside the state dict
            continue
        if wanted.keys() != found.keys() or not all(_equal(wanted[k], found[k]) for k in wanted):
            raise WeightsError(
                f"{path} ({rules.title}) holds two {chosen.role} encoders, {chosen.prefix!r} and "
                f"{other.prefix!r}, which differ: save the one that is meant alone"
            )
        copies.append(other)
    return copies


def _equal(one: Tensor, other: Tensor) -> bool:
    same = (one.dtype, one.shape) == (other.dtype, other.shape)
    return same and torch.equal(one, other)


def _of_another(
    rules: WeightLayout, chosen: Encoder, copies: Sequence[Encoder], name: str
) -> str | None:
    """The reason to leave out a tensor of an encoder that was not chosen."""
    for other in rules.encoders:
        longer = len(other.prefix) > len(chosen.prefix) or not name.startswith(chosen.prefix)
        if other == chosen or not name.startswith(other.prefix) or not longer:
            continue
        if other in copies:
            return f"the {other.role} encoder's second name"
        if other.role != chosen.role:
            return f"the {other.role} encoder"
    return None
