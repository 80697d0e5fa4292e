"""What a published checkpoint looks like, and how its names become ours."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fss_bench.backbone import BuiltFor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Variant:
    """What a checkpoint was made for.

    Attributes:
        backbone: our name of its backbone.
        options: the method's options that it needs, beside defaults.
        weights: what its backbone's weights are called in a table.
        shots: the numbers of shots it can be used with; None for any.
        backbone_options: the backbone's options that it needs, beside defaults.
        built_for: what the weights file that it began with asked of the backbone.
    """

    backbone: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "checkpoint"
    shots: tuple[int, ...] | None = None
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    built_for: BuiltFor | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Variant":
        """From what JSON keeps of it."""
        shots, built_for = record["shots"], record.get("built_for")
        return cls(
            **{
                **record,
                "shots": None if shots is None else tuple(shots),
                "built_for": None if built_for is None else BuiltFor.from_record(built_for),
            }
        )


@dataclass(frozen=True)
class Layout:
    """One published layout.

    Attributes:
        method: our name of the method.
        source: where the published code is.
        protocol: the protocol of its paper.
        detect: what a state dict was made for, from its names and shapes; None if it is not of this
            layout.
        renames: published prefix -> ours; the longest that fits is applied, a name without one is
            kept.
        drops: pattern of published names that are not needed -> why.
        fixed: published name -> the constant that it must be where present; not loaded.
        ordered: whether legacy files with other names may be matched by position.
    """

    method: str
    source: str
    protocol: str
    detect: Callable[[State], Variant | None]
    renames: Mapping[str, str]
    drops: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Callable[[Sequence[int]], Tensor]] = field(default_factory=dict)
    ordered: bool = False

    def rename(self, name: str) -> str:
        """Our name of a published one."""
        return _replace_prefix(name, self.renames)

    def published(self, name: str) -> str:
        """The published name of one of ours."""
        return _replace_prefix(name, {ours: theirs for theirs, ours in self.renames.items()})

    def why_dropped(self, name: str) -> str | None:
        """Why a published tensor is not needed; None if it is."""
        return next((why for p, why in self.drops.items() if re.fullmatch(p, name)), None)


def _replace_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not fitting:
        return name
    longest = max(fitting, key=len)
    return prefixes[longest] + name.removeprefix(longest)
