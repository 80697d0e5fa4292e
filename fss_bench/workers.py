"""What processes that load images need: silence, and to leave signals to their parent."""

import signal
import sys
from multiprocessing import AuthenticationError
from typing import Any


def quiet_worker(_: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which finishes its step; a worker ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _print_faults


def _print_faults(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Say nothing of a queue that broke because the parent went away."""
    if not issubclass(kind, (EOFError, OSError, AuthenticationError, KeyboardInterrupt)):
        sys.__excepthook__(kind, error, trace)
