"""Which of several processes says a mistake that all of them find. No torch here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fss_bench.errors import FssBenchError


class ToldElsewhereError(FssBenchError):
    """A mistake that another process of the run says, so that it is said once."""


@contextmanager
def said_once() -> Iterator[None]:
    """For mistakes before the processes are connected: the first on each machine says them.

    Raises:
        ToldElsewhereError: in the others, in place of any FssBenchError.
    """
    try:
        yield
    except FssBenchError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        raise ToldElsewhereError(str(error)) from error
