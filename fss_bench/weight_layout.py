"""What a published weights file looks like, and how its tensors become those of a timm model."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]

QUERY, MOMENTUM = "query", "momentum"
ROLES = {
    QUERY: QUERY,
    "online": QUERY,
    "student": QUERY,
    MOMENTUM: MOMENTUM,
    "key": MOMENTUM,
    "target": MOMENTUM,
    "teacher": MOMENTUM,
}
"""What papers call an encoder -> trained by gradient (query), or its moving average (momentum)."""
HEAD = "projection or prediction head, classifier"
MASK = "the token of masked patches, used in training alone"
MEMORY = "statistics, losses and memories of training"


@dataclass(frozen=True)
class Encoder:
    """Where one encoder of a file is.

    Attributes:
        role: `query` or `momentum`.
        prefix: the state dict's place in the file, a slash, and what goes before the backbone's own
            names: `state_dict/encoder_q.`; `/` alone for a bare state dict. `module.` of
            DistributedDataParallel is gone before.
    """

    role: str
    prefix: str

    @property
    def place(self) -> str:
        """The state dict's place in the file, slash included."""
        return self.prefix[: self.prefix.rindex("/") + 1]


def _as_they_are(state: State) -> State:
    return state


def _none(_: State) -> Mapping[str, Any]:
    return {}


def _takes_all(_: State) -> None:
    return None


def _left_alone(_: Any) -> None:
    return None


def _has_none(_: State) -> tuple[str, ...]:
    return ()


def _fits_all(state: State, _: Any) -> State:
    return state


@dataclass(frozen=True)
class WeightLayout:
    """One published layout.

    Attributes:
        title: what is published in it.
        source: where.
        encoders: the first that a file has is the one its paper evaluates. Several of one role are
            names for the same tensors: a file where they differ is refused.
        marks: patterns of names, each of which must be in the file: `place/name`, or a key of the
            file itself.
        lacks: patterns of names that must not be in it.
        where: what else must hold of a file with these marks: a function of `place/name` -> tensor.
        told: whether such a file is taken for this layout without being asked to: what may as well
            be another's is read so by its name alone. The same function's form.
        heads: pattern of a name after an encoder's prefix -> why it is left out.
        others: pattern of another name beside the encoders -> why it is left out.
        trunk: an encoder's tensors under their published names -> under names that timm's own
            converter of files takes.
        options: what timm must build the model with.
        refuses: why timm has no twin of this network; None if it has.
        adapt: changes a timm model that was built for the file, where its padding differs.
        fit: the trunk's tensors for a timm model that was built; a WeightsError says why they are
            not for it, where shapes do not tell.
        mean, std: RGB statistics of images in [0, 1] that the weights want; None for the model's.
        positions: how position embeddings are resampled for another image size: see `positions`.
        rivals: of a file of this layout: layouts with the same names and other numbers, of which
            only the user knows which one it has.
        generic: whether it is taken only where no other layout fits.
    """

    title: str
    source: str
    encoders: tuple[Encoder, ...]
    marks: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    where: Callable[[State], bool] = bool
    told: Callable[[State], bool] = bool
    heads: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    trunk: Callable[[State], State] = _as_they_are
    options: Callable[[State], Mapping[str, Any]] = _none
    refuses: Callable[[State], str | None] = _takes_all
    adapt: Callable[[Any], None] = _left_alone
    fit: Callable[[State, Any], State] = _fits_all
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    positions: str = "timm"
    rivals: Callable[[State], tuple[str, ...]] = _has_none
    generic: bool = False

    def fits(self, names: Mapping[str, Any]) -> bool:
        """Whether a file with these names can be of this layout."""
        return (
            all(_any(mark, names) for mark in self.marks)
            and not any(_any(mark, names) for mark in self.lacks)
            and _holds(self.where, names)
        )

    def recognises(self, names: Mapping[str, Any]) -> bool:
        """Whether a file with these names is taken for this layout unasked."""
        return self.fits(names) and _holds(self.told, names)

    def in_file(self, names: Mapping[str, Any]) -> list[Encoder]:
        """The encoders that a file has."""
        return [e for e in self.encoders if any(n.startswith(e.prefix) for n in names)]


def why(patterns: Mapping[str, str], name: str) -> str | None:
    """The reason that stands with the first pattern that fits a whole name."""
    return next((text for p, text in patterns.items() if re.fullmatch(p, name)), None)


def renamed(state: State, patterns: Mapping[str, str]) -> dict[str, Tensor]:
    """A state dict with the first pattern that fits each name's beginning replaced."""
    found = {}
    for name, value in state.items():
        for pattern, new in patterns.items():
            changed, count = re.subn(f"^{pattern}", new, name)
            if count:
                name = changed
                break
        found[name] = value
    return found


def at_places(role: str, places: Iterable[str], prefix: str = "") -> tuple[Encoder, ...]:
    """One encoder wherever a file may have it.

    Args:
        role: `query` or `momentum`.
        places: of state dicts in the file; empty for the file itself.
        prefix: what goes before the backbone's own names.
    """
    return tuple(Encoder(role, f"{place}/{prefix}") for place in places)


def _holds(condition: Callable[[State], bool], names: Mapping[str, Any]) -> bool:
    try:
        return condition({n: v for n, v in names.items() if isinstance(v, Tensor)})
    except (KeyError, IndexError, StopIteration):  # marked names are no tensors, or lack sides
        return False


def _any(pattern: str, names: Mapping[str, Any]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)
