"""A web server on this machine that misbehaves as told."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Serves `content`; the first answers are those of `script`."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = content, '"one"'
        self.script: list[Answer] = []
        self.always: Answer = serve
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers["Range"]))
        (server.script.pop(0) if server.script else server.always)(self)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    @property
    def start(self) -> int:
        """The first byte asked for, if what the client has is still right."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        valid = self.headers["If-Range"] in (None, self.server.etag)
        return int(asked[1]) if asked and valid else 0


def serve(handler: Handler, take: int | None = None) -> None:
    """As a good server does; of its answer, only the first bytes if `take` says so."""
    content, start, etag = handler.server.content, handler.start, handler.server.etag
    if start >= len(content) and start:
        handler.head(416, 0, Content_Range=f"bytes */{len(content)}")
        return
    facts = {"ETag": etag} if etag else {}
    if start:
        facts["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.head(206 if start else 200, len(content) - start, **facts)
    rest = content[start:]
    handler.wfile.write(rest if take is None else rest[:take])


def cut(take: int) -> Answer:
    """Hang up after some bytes."""
    return lambda handler: serve(handler, take)


def stall(take: int) -> Answer:
    """Send nothing more after some bytes."""

    def answer(handler: Handler) -> None:
        serve(handler, take)
        handler.wfile.flush()
        handler.server.closing.wait(20)

    return answer


def trickle(handler: Handler) -> None:
    """Send a byte now and then."""
    content = handler.server.content
    handler.head(200, len(content), ETag=handler.server.etag)
    for i in range(200):
        handler.wfile.write(content[i : i + 1])
        if handler.server.closing.wait(0.05):
            return


DRIPS = 20.0
"""Seconds for which `drip` goes on."""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def drip(drop: bytes, first: bytes = b"") -> Answer:
    """Send the same again and again, never too slow for a single read."""

    def answer(handler: Handler) -> None:
        end = time.monotonic() + DRIPS
        handler.wfile.write(first)
        while time.monotonic() < end and not handler.server.closing.wait(0.02):
            handler.wfile.write(drop)

    return answer


def ignore_range(handler: Handler) -> None:
    """Send everything, whatever is asked."""
    handler.head(200, len(handler.server.content), ETag=handler.server.etag)
    handler.wfile.write(handler.server.content)


def say(length: int | None, status: int = 200, **headers: str) -> Answer:
    """Say another length than that of what is sent, or none."""

    def answer(handler: Handler) -> None:
        handler.head(status, length, **headers)
        handler.wfile.write(handler.server.content)

    return answer


def status(code: int) -> Answer:
    """Fail."""
    return lambda handler: handler.head(code, 0)


def redirect(place: str) -> Answer:
    """Send elsewhere."""
    return lambda handler: handler.head(302, 0, Location=place)


def page(
    text: bytes = b"<!DOCTYPE html><html>Quota exceeded</html>", kind: str = "text/html"
) -> Answer:
    """Send a web page."""

    def answer(handler: Handler) -> None:
        handler.head(200, len(text), Content_Type=kind)
        handler.wfile.write(text)

    return answer


def chunked_and_cut(handler: Handler) -> None:
    """Hang up within a chunk of unknown total."""
    handler.head(200, None, Transfer_Encoding="chunked", ETag=handler.server.etag)
    handler.wfile.write(b"400\r\n" + handler.server.content[:100])


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
