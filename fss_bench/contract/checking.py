"""A check: a promise, the method that it is about, and what comes of it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from unittest import SkipTest

from fss_bench.errors import FssBenchError, one_line

if TYPE_CHECKING:
    from fss_bench.contract.subject import Subject

Outcome = Literal["passed", "failed", "not applicable"]


class ContractError(FssBenchError):
    """A promise that a method breaks.

    Args:
        found: what it does.
        cure: what to do about it.
    """

    def __init__(self, found: str, cure: str) -> None:
        super().__init__(f"{found}: {cure}")
        self.found, self.cure = found, cure


class NotApplicable(SkipTest):
    """A promise that a method need not make; unittest and pytest show it as skipped."""


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Attributes:
        check: its name.
        promise: what is checked.
        outcome: `passed`, `failed` or `not applicable`.
        found: what was seen.
        cure: what to do about a failure.
    """

    check: str
    promise: str
    outcome: Outcome
    found: str
    cure: str = ""


@dataclass(frozen=True)
class Check:
    """A promise about one method; calling it checks it, `str` is its name.

    Attributes:
        function: raises, or returns what was found; its docstring is the promise.
        subject: the method.
    """

    function: "Callable[[Subject], str]"
    subject: "Subject"

    def __str__(self) -> str:
        return self.function.__name__

    @property
    def promise(self) -> str:
        """What is checked, in one line."""
        return (self.function.__doc__ or "").splitlines()[0]

    def __call__(self) -> str:
        """Check, and return what was found.

        Raises:
            ContractError: the promise is broken.
            NotApplicable: it need not be kept.
            Exception: the method raised it.
        """
        return self.function(self.subject)

    def result(self) -> Result:
        """Check, whatever the method does."""
        try:
            return Result(str(self), self.promise, "passed", self())
        except NotApplicable as skipped:
            return Result(str(self), self.promise, "not applicable", str(skipped))
        except ContractError as error:
            return Result(str(self), self.promise, "failed", error.found, error.cure)
        except FssBenchError as error:  # says its cure itself
            return Result(str(self), self.promise, "failed", one_line_of(error))
        except Exception as error:
            found, cure = one_line(error), f"mend {_place(error)}"
            return Result(str(self), self.promise, "failed", found, cure)


def one_line_of(error: FssBenchError) -> str:
    """The text of a mistake without line breaks."""
    return " ".join(str(error).split())


def _place(error: Exception) -> str:
    """Where a plug-in raised an exception, or called the library that did; else where it was."""
    frames, package = traceback.extract_tb(error.__traceback__), Path(__file__).parents[1]
    own = [
        frame
        for frame in frames
        if "site-packages" not in (path := Path(frame.filename)).parts
        and package not in path.parents
    ]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
