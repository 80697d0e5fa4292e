"""Mistakes the user can mend. The command line prints them as one line and exits with status 2."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1600
"""Characters of a message; of a longer one, as of a damaged file, the middle is left out."""


class FssBenchError(Exception):
    """What was wrong, the value, and the cure, in one line."""

    def __str__(self) -> str:
        text = super().__str__()
        half = LONGEST // 2
        return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


class UnknownNameError(FssBenchError):
    """A name that is not registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        known = f"known: {shorten(names, 12)}" if names else "there are none"
        hint = f"did you mean {near[0]!r}?" if near else known
        super().__init__(f"unknown {kind} {name!r}: {hint}")


class DatasetError(FssBenchError):
    """A dataset folder, image, mask or list that cannot be used as it is."""


class EpisodeError(FssBenchError):
    """A setting from which no episodes can be drawn."""


class WeightsError(FssBenchError):
    """A weights file that cannot be read or does not fit the network."""


class ResultsError(FssBenchError):
    """A results folder or run that cannot be read or written."""


class FetchError(FssBenchError):
    """A file that cannot be fetched, is another one, or cannot be unpacked."""


def shorten(items: Iterable[object], limit: int = 3) -> str:
    """List the first few items and how many more there are: ``a, b, c and 7 more``."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def one_line(error: BaseException) -> str:
    """An exception's type and text without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def printable(text: str) -> str:
    """Text with what steers a terminal escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
