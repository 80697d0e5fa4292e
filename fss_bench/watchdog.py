"""Cuts a connection on which one step takes too long, whatever the server drips meanwhile."""

import socket
import threading
import time
from contextlib import suppress
from math import inf


class Watchdog:
    """Shuts a socket down when a step on it is not done in time. Used as a context.

    The time limit of a socket begins anew with each byte, this one does not.

    Args:
        seconds: a step may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = inf
        self._socket: socket.socket | None = None
        self._has_bitten = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._guard, daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._forget()

    def watch(self, connection: socket.socket) -> None:
        """Guard this connection from now on, in place of the last; a step begins."""
        self._forget()
        self._socket = connection.dup()  # TLS takes the number of the first one over
        self.start()

    def start(self) -> None:
        """A step begins.

        Raises:
            TimeoutError: one before was cut.
        """
        self.rest()
        self._deadline = time.monotonic() + self._seconds

    def rest(self) -> None:
        """The step is done.

        Raises:
            TimeoutError: it, or one before, was cut; what was read may be too short.
        """
        self._deadline = inf
        if self._has_bitten:
            raise TimeoutError("hardly anything came")

    def _guard(self) -> None:
        # no step begins and ends its time within one wait, so nothing has to wake this
        wait = 0.0
        while not self._ended.wait(wait):
            left = self._deadline - time.monotonic()
            if left <= 0:
                self._bite()
                return
            wait = min(left, self._seconds)

    def _bite(self) -> None:
        self._has_bitten = True
        connection = self._socket
        if connection is not None:
            with suppress(OSError):  # it may have ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
