"""Bad data of every kind: what it is, where it is met, what is promised of it.

`CASES` is the table; `Case.run` makes the files of one case anew, reads them by the library and by
the command line, and says what happened. Tests assert that it is what was promised;
docs/reliability.md lists it.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from fss_bench.cli import main
from fss_bench.errors import FssBenchError

READ, REFUSED = "read", "refused"
Arguments = tuple[object, ...]


class WrongReadingError(Exception):
    """Something was read, but not what is there."""


@dataclass(frozen=True)
class Attempt:
    """Files of a case, ready to be read.

    Attributes:
        library: reads them, and raises `WrongReadingError` if the result is wrong.
        command: the same on the command line; none where no command is quick enough.
        verify: arguments of `data verify`, of a dataset.
    """

    library: Callable[[], object]
    command: Arguments = ()
    verify: Arguments = ()


@dataclass(frozen=True)
class Case:
    """One kind of bad data in one place.

    Attributes:
        fault: what is bad.
        where: who reads it.
        promised: `read`, or words of the line that refuses it.
        prepare: makes the files in an empty folder.
        told: what `data verify` calls it: `problem`, `note` or nothing.
    """

    fault: str
    where: str
    promised: str
    prepare: Callable[[Path], Attempt]
    told: str = ""

    @property
    def name(self) -> str:
        return f"{self.where}: {self.fault}"

    @property
    def expected(self) -> str:
        """What `run` must say."""
        return READ if self.promised == READ else REFUSED

    def run(self, commands: bool = True) -> str:
        """`read`, `refused`, or what went wrong; by the library, and by commands too."""
        with tempfile.TemporaryDirectory() as folder:
            attempt = self.prepare(Path(folder))
            found = [_library(attempt.library)]
            if attempt.command and commands:
                found.append(_command(attempt.command))
            if attempt.verify and commands:
                found.append(self._verified(attempt.verify))
        for outcome in found:
            if self.promised != READ and outcome.startswith(REFUSED):
                if self.promised not in outcome:
                    return f"refused for another reason: {outcome}"
            elif outcome != self.expected:
                return outcome
        return self.expected

    def _verified(self, arguments: Arguments) -> str:
        """What is expected if `data verify` tells the fault rightly."""
        status, out, errors = run_command("data", "verify", *arguments)
        lines = [line for line in out.splitlines() if not line.endswith(NO_PROBLEMS)]
        problems = [line for line in lines if not line.startswith("note:")]
        told = "problem" if problems else "note" if lines else ""
        if told != self.told or status != (2 if problems else 0):
            return f"data verify, {status}: {out!r} {errors!r}"
        return f"{REFUSED}: {out}" if self.promised != READ else READ


NO_PROBLEMS = ("no problems", "notes")


def run_command(*arguments: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command, in this process."""
    out, errors = StringIO(), StringIO()
    with (
        warnings.catch_warnings(action="default"),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),  # as Python does
        patch.object(sys, "argv", ["fss-bench", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code
    return (status if isinstance(status, int) else 1), out.getvalue(), errors.getvalue()


def _library(read: Callable[[], object]) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of large pictures
            read()
    except FssBenchError as error:
        text = str(error)
        return f"{REFUSED}: {text}" if text.strip() and "\n" not in text else f"lines: {text!r}"
    except WrongReadingError as error:
        return f"wrong: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return READ


def _command(arguments: Arguments) -> str:
    try:
        status, _, errors = run_command(*arguments)
    except Exception as error:
        return f"the command ends in {type(error).__name__}: {error}"
    lines = [line for line in errors.splitlines() if not line.startswith("note:")]
    if status == 0 and not lines:
        return READ
    if status == 2 and len(lines) == 1 and lines[0].startswith("error: "):
        return f"{REFUSED}: {errors}"
    return f"status {status}: {errors!r}"


def all_cases() -> list[Case]:
    """The table."""
    import bad_annotations
    import bad_files
    import bad_lists
    import bad_own_pictures
    import bad_pictures

    modules = (bad_pictures, bad_own_pictures, bad_lists, bad_annotations, bad_files)
    return [case for module in modules for case in module.cases()]
