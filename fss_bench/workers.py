"""What processes that load images need: silence, no signals, and to end with their parent."""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import AuthenticationError
from typing import Any


def loading_worker(_: int) -> None:
    """End with the main process, and say nothing when it goes away in the middle of a hand-over."""
    sys.excepthook = _print_faults
    threading.Thread(target=_end_with_parent, daemon=True).start()


def quiet_worker(number: int) -> None:
    """Leave Ctrl-C and SIGTERM to the parent, which finishes its step; a worker ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    loading_worker(number)


def _end_with_parent() -> None:
    """Torch looks whether the process that started a worker lives: that may be a server's."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _print_faults(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Say nothing of a queue that broke because the parent went away."""
    if not issubclass(kind, (EOFError, OSError, AuthenticationError, KeyboardInterrupt)):
        sys.__excepthook__(kind, error, trace)
