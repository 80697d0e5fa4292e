"""Opens web addresses: http and https only, redirects included, and no step for ever."""

from functools import partial
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import IO, Any
from urllib import request
from urllib.parse import urlsplit

from fss_bench.errors import printable
from fss_bench.watchdog import Watchdog


class InterruptedTransferError(Exception):
    """An attempt that ended early, and why; another may go on from there."""


class RefusedTransferError(Exception):
    """What a server answers in place of the file, now and later."""


def web_opener(watchdog: Watchdog) -> request.OpenerDirector:
    """Of what Python's own opener can, without files, FTP and inline data.

    Args:
        watchdog: guards each connection from when it is made until the head of the answer is
            here; then the caller has to rest it.
    """
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        _HTTP(watchdog),
        _HTTPS(watchdog),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class Redirects(request.HTTPRedirectHandler):
    """Follows to http and https, and from https to https only."""

    def redirect_request(
        self,
        req: request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> request.Request | None:
        fp.close()  # the base class would read all of it
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and scheme != req.type:
            raise RefusedTransferError(
                f"{req.full_url} redirects to {printable(newurl)[:200]}, which is not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Watched(HTTPConnection):
    """A connection that is guarded once it is made; with TLS, before hands are shaken."""

    watchdog: Watchdog

    def connect(self) -> None:
        self.watchdog.rest()
        super().connect()
        self.watchdog.watch(self.sock)


class _WatchedTLS(HTTPSConnection, _Watched):
    """The same with TLS."""


class _HTTP(request.HTTPHandler):
    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def http_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(partial(_connection, _Watched, self._watchdog), req)


class _HTTPS(request.HTTPSHandler):
    def __init__(self, watchdog: Watchdog) -> None:
        super().__init__()
        self._watchdog = watchdog

    def https_open(self, req: request.Request) -> HTTPResponse:
        return self.do_open(partial(_connection, _WatchedTLS, self._watchdog), req)


def _connection(
    kind: type[_Watched], watchdog: Watchdog, host: str, /, **options: Any
) -> HTTPConnection:
    made = kind(host, **options)
    made.watchdog = watchdog
    return made
