"""All that `data fetch` can fetch."""

from collections.abc import Iterable

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.source import Source
from fss_bench.sources.data import DATASETS
from fss_bench.sources.weights import WEIGHTS

__all__ = ["DATASETS", "WEIGHTS", "find_sources"]

WORD = "weights"
"""What may stand before names of weights, and alone for all of them."""


def find_sources(names: Iterable[str], listing: bool = False) -> list[Source]:
    """What the names mean, each once.

    Args:
        names: of datasets and of weights, which `weights` may stand before.
        listing: `weights` alone means all of them; otherwise it is refused.

    Raises:
        UnknownNameError: a name that is in no table; the nearest is suggested.
        FssBenchError: no name, or none of weights.
    """
    asked, known = list(names), {**DATASETS, **WEIGHTS}
    wanted = [name for name in asked if name != WORD]
    if WORD in asked and not any(name in WEIGHTS for name in wanted):
        if not listing:
            raise FssBenchError(
                f"weights needs names, such as {next(iter(WEIGHTS))}: add --dry-run to list them"
            )
        wanted += WEIGHTS
    for name in wanted:
        if name not in known:
            raise UnknownNameError("thing to fetch", name, known)
    if not wanted:
        raise FssBenchError(f"nothing to fetch: name {', '.join(DATASETS)} or weights NAME")
    return [known[name] for name in dict.fromkeys(wanted)]
