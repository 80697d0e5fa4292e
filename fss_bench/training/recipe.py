"""What a paper fixes about training: a recipe a method and stage. No torch here.

A method's own numbers stand in its file (`Method.recipes`); everything else is the default here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.options import construct

EPISODES = "episodes"
"""The stage of methods that have one."""


@dataclass(frozen=True)
class Recipe:
    """Every number of a training run. Frozen; `replace_options` makes variants."""

    items: Literal["episodes", "images"] = "episodes"
    """What is learnt from: `episodes`, or `images` with the labels of all base classes."""

    steps: int = 10000
    """Optimiser steps."""

    batch_size: int = 1
    """Episodes (or images) of a step, over all processes and forwards."""

    accumulate: int = 1
    """Forwards that share the batch of a step."""

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    """What takes the steps."""

    lr: float = 1e-3
    """Learning rate at its highest."""

    momentum: float = 0.9
    """Of sgd."""

    nesterov: bool = False
    """Of sgd."""

    weight_decay: float = 5e-4
    """Of all parameters; decoupled with adamw."""

    rates: tuple[tuple[str, float], ...] = ()
    """Pattern of parameter names, as `*.bias`, and the factor on their learning rate; the first
    that fits counts."""

    schedule: Literal["constant", "steps", "poly", "cosine"] = "constant"
    """How the learning rate falls: not; at `decay_at`; as (1 - t)^`power`; along half a cosine."""

    power: float = 0.9
    """Of `poly`."""

    decay_at: tuple[float, ...] = ()
    """Shares of the steps at which `steps` multiplies the rate by `decay_factor`."""

    decay_factor: float = 0.1
    """See `decay_at`."""

    warmup: int = 0
    """Steps of linear growth from 0, before the schedule."""

    clip: float = 0.0
    """Largest norm of all gradients together; 0 clips nothing."""

    ema: float = 0.0
    """Share that an average of the weights keeps in a step; what is validated and written is then
    the average. 0 averages nothing."""

    train_backbone: bool = False
    """Whether the backbone learns."""

    frozen_bn: bool = True
    """Whether batch norms of a backbone that learns keep their statistics."""

    foreground_weight: float = 1.0
    """What a pixel of a query's classes counts for in its loss, where background counts 1."""

    crop: int = 0
    """Side of the training square, px; 0 is the method's input size."""

    place: Literal["warp", "crop"] = "warp"
    """How an image comes into the square; see `Augmentation`."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the random scale before a crop."""

    rotate: float = 0.0
    """Degrees of random rotation, to both sides."""

    blur: float = 0.0
    """Probability of a blur."""

    flip: float = 0.5
    """Probability of a horizontal flip."""

    @property
    def record(self) -> dict[str, Any]:
        """Every field, as JSON has them."""
        return {k: _plain(v) for k, v in asdict(self).items()}

    def replace_options(self, options: Mapping[str, Any], of: str) -> "Recipe":
        """A copy with some numbers changed.

        Args:
            options: field -> value; lists may be text, as `0.6,0.8` or `*.bias:2`.
            of: whose recipe it is, for messages.

        Raises:
            UnknownNameError: a field that recipes do not have; the nearest is suggested.
            FssBenchError: a value of another type, or one that cannot be.
        """
        given = {name: _parsed(name, value) for name, value in options.items()}
        changed = construct(Recipe, f"the recipe of {of}", {}, {**vars(self), **given})
        _check(changed)
        return changed


def recipe_for(method: type, stage: str | None, options: Mapping[str, Any]) -> tuple[str, Recipe]:
    """The stage that is meant, and its recipe with a user's changes.

    Args:
        method: a method's class; `recipes` maps its stages, in order, to what they change of the
            default recipe. Without it there is one stage and the default; an empty one says that
            there is nothing to train.
        stage: by default the last.
        options: a user's changes.

    Raises:
        UnknownNameError: no such stage, or see `Recipe.replace_options`.
        FssBenchError: a recipe that cannot be.
    """
    recipes: Mapping[str, Mapping[str, Any]] | None = getattr(method, "recipes", None)
    if recipes is None:
        recipes = {EPISODES: {}}
    if not recipes:
        raise FssBenchError(
            f"{method.__name__} learns nothing from training episodes: run fss-bench evaluate "
            "without training it"
        )
    if "items" in options:
        raise FssBenchError(f"recipe items={options['items']}: the method decides it: leave it out")
    name = list(recipes)[-1] if stage is None else stage
    if name not in recipes:
        raise UnknownNameError(f"stage of {method.__name__}", name, recipes)
    what = method.__name__ if len(recipes) == 1 else f"{method.__name__}, stage {name}"
    return name, Recipe().replace_options(recipes[name], what).replace_options(options, what)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _parsed(name: str, value: Any) -> Any:
    """A list as the field wants it."""
    if name == "rates":
        return _rates(value)
    if name not in ("decay_at", "scale"):
        return value
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(float(p) for p in (parts if isinstance(parts, list | tuple) else [parts]))
    except (TypeError, ValueError):
        raise FssBenchError(
            f"recipe {name}={value!r}: write numbers with commas, as in {name}=0.6,0.9"
        ) from None


def _rates(value: Any) -> tuple[tuple[str, float], ...]:
    parts = [tuple(p.rsplit(":", 1)) for p in value.split(",")] if isinstance(value, str) else value
    try:
        return tuple((str(pattern), float(factor)) for pattern, factor in parts)
    except (TypeError, ValueError):
        raise FssBenchError(
            f"recipe rates={value!r}: write patterns with factors, as in rates=*.bias:2,head.*:10"
        ) from None


_LEAST = {"steps": 1, "batch_size": 1, "accumulate": 1, "warmup": 0, "crop": 0}
_OPEN_SHARES = ("momentum", "ema")
_POSITIVE = ("lr", "power", "decay_factor", "foreground_weight")
_NOT_NEGATIVE = ("weight_decay", "clip")
_ONLY_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "momentum": ("optimiser", ("sgd",)),
    "nesterov": ("optimiser", ("sgd",)),
    "power": ("schedule", ("poly",)),
    "decay_at": ("schedule", ("steps",)),
    "decay_factor": ("schedule", ("steps",)),
    "frozen_bn": ("train_backbone", (True,)),
    "scale": ("place", ("crop",)),
    "foreground_weight": ("items", ("episodes",)),
}
"""Field -> what makes it count for something."""


def unused(recipe: Recipe, options: Mapping[str, Any]) -> str | None:
    """What a user changed that counts for nothing, as one line."""
    for name in options:
        other, values = _ONLY_WITH.get(name, ("", ()))
        if other and getattr(recipe, other) not in values:
            wanted = " or ".join(str(v).lower() for v in values)
            return (
                f"recipe {name} counts only with {other}={wanted}, which is "
                f"{str(getattr(recipe, other)).lower()} here: leave it out"
            )
    return None


def _check(recipe: Recipe) -> None:
    """Raise FssBenchError for a number that cannot be."""
    hints = get_type_hints(Recipe)
    for name in (f.name for f in fields(Recipe)):
        value, kind = getattr(recipe, name), hints[name]
        if get_origin(kind) is Literal and value not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise FssBenchError(f"recipe {name}={value!r}: it must be one of {known}")
        text = _complaint(recipe, name, value)
        if text is not None:
            raise FssBenchError(f"recipe {name}={_shown(value)}: it must be {text}")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _complaint(recipe: Recipe, name: str, value: Any) -> str | None:
    """What a number must be, where it is not; NaN is nothing that it must be."""
    if name in _LEAST and not value >= _LEAST[name]:
        return f"{_LEAST[name]} or more"
    if name == "warmup" and value >= recipe.steps:
        return f"less than the {recipe.steps} steps"
    if name == "accumulate" and recipe.batch_size % value:
        return f"a divisor of the batch of {recipe.batch_size}"
    if name in _POSITIVE and not 0 < value < float("inf"):
        return "more than 0"
    if name in _NOT_NEGATIVE and not 0 <= value < float("inf"):
        return "0 or more"
    if name in _OPEN_SHARES and not 0 <= value < 1:
        return "at least 0 and less than 1"
    if name == "nesterov" and value and recipe.optimiser == "sgd" and recipe.momentum == 0:
        return "false without momentum"
    if name == "decay_at" and recipe.schedule == "steps" and not value:
        return "shares of the steps, as in 0.6,0.9, with schedule=steps"
    if name == "decay_at" and not all(0 < share < 1 for share in value):
        return "shares between 0 and 1"
    if name == "rates" and not all(0 <= factor < float("inf") for _, factor in value):
        return "factors of 0 or more"
    return None
