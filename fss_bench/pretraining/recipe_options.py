"""Which numbers of a recipe may be changed, and to what. No torch here."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fss_bench.errors import FssBenchError

if TYPE_CHECKING:
    from fss_bench.pretraining.recipes import Recipe

USED_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "sgd_momentum": ("optimiser", ("sgd", "lars")),
    "lars_trust": ("optimiser", ("lars",)),
    "lars_lr": ("optimiser", ("lars",)),
    "schedule_by": ("schedule", ("cosine",)),
    "decay_at": ("schedule", ("steps",)),
    "decay_factor": ("schedule", ("steps",)),
    "queue_size": ("label", ("moco-v1", "moco-v2")),
    "bn_groups": ("label", ("moco-v1", "moco-v2")),
    "momentum": ("label", ("moco-v1", "moco-v2", "moco-v3")),
    "momentum_schedule": ("label", ("moco-v1", "moco-v2", "moco-v3")),
    "negatives": ("label", ("npid-v1",)),
    "memory_momentum": ("label", ("npid-v1",)),
    "hidden": ("label", ("moco-v2", "moco-v3", "simclr-v1")),
}
"""Numbers that not every run uses -> what decides it, and its values with which they are used."""

LEAST = {
    "epochs": 1,
    "batch_size": 2,  # one image is no contrast, and batch norm needs two
    "image_size": 8,
    "lr_batch": 1,
    "dim": 1,
    "queue_size": 1,
    "bn_groups": 0,
    "negatives": 1,
}
OPEN_SHARES = ("momentum", "memory_momentum", "sgd_momentum")
POSITIVE = ("lr", "temperature", "decay_factor", "lars_trust", "crop_min")


def check_used(recipe: "Recipe", given: Iterable[str]) -> None:
    """Refuse numbers that a run would ignore.

    Args:
        recipe: as it was changed.
        given: names of the numbers that were changed.

    Raises:
        FssBenchError: names what would use it.
    """
    for name in given:
        decides, values = USED_WITH.get(name, ("label", (recipe.label,)))
        own = getattr(recipe, decides)
        if own not in values:
            by_label = decides == "label"
            who = recipe.label if by_label else f"{recipe.label} with {decides}={own}"
            users = ", ".join(values if by_label else (f"{decides}={value}" for value in values))
            raise FssBenchError(f"{who} has no {name}: only {users} has it; leave it out")


def read_shares(value: Any) -> tuple[float, ...]:
    """`0.6,0.8` or `0.6-0.8` as numbers.

    Raises:
        FssBenchError: it is none.
    """
    parts = value.replace("-", ",").split(",") if isinstance(value, str) else value
    try:
        return tuple(float(p) for p in (parts if isinstance(parts, list | tuple) else [parts]))
    except (TypeError, ValueError):
        raise FssBenchError(
            f"option decay_at={value!r}: write shares of the epochs, as in decay_at=0.6,0.8"
        ) from None


def complaint(recipe: "Recipe", name: str, value: Any) -> str | None:
    """What a changed number must be, where it is not; NaN is nothing that it must be."""
    if name in LEAST and not value >= LEAST[name]:
        return f"{LEAST[name]} or more"
    if name in POSITIVE and not 0 < value < float("inf"):
        return "more than 0"
    if name == "crop_min" and value > 1:
        return "at most 1"
    if name in OPEN_SHARES and not 0 <= value < 1:
        return "at least 0 and less than 1"
    if name in ("weight_decay", "hidden") and not 0 <= value < float("inf"):
        return "0 or more"
    if name == "warmup_epochs" and not 0 <= value < recipe.epochs:
        return (
            f"0 or more and less than the {recipe.epochs} epochs: give --option warmup_epochs too"
        )
    if name == "decay_at" and not all(0 < share < 1 for share in value):
        return "shares between 0 and 1"
    return None
