"""One attempt to read a published file: from a web server, or from a folder.

Only http and https are spoken, redirects included, and never http after https. Nothing is run.
"""

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from fss_bench import __version__
from fss_bench.errors import FetchError, one_line
from fss_bench.watchdog import Watchdog
from fss_bench.web_opener import InterruptedTransferError, RefusedTransferError, web_opener

CHUNK = 1 << 16
SLOWEST = 100
"""Bytes a second below which a server counts as stalled."""
WORTH_ANOTHER = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be others a moment later."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for servers.

    Attributes:
        stall: seconds without bytes, or without the head of an answer, after which an attempt
            ends.
        tries: attempts in a row that bring nothing new.
        wait: seconds before the second attempt; doubled for each further one.
        longest: seconds, of all waits.
    """

    stall: float = 30.0
    tries: int = 5
    wait: float = 1.0
    longest: float = 30.0


@dataclass(frozen=True)
class Body:
    """What an attempt brings.

    Attributes:
        start: place of the first byte in the file.
        total: bytes of the whole file, if that is said.
        validator: changes when the file does; "" if there is none.
        chunks: the bytes, as they come; raise InterruptedTransferError.
    """

    start: int
    total: int | None
    validator: str
    chunks: Iterator[bytes]


def on_mirror(mirror: str, name: str) -> str | Path:
    """Where a mirror has a file: an address, or a path.

    Args:
        mirror: `http(s)://…`, `file://…` or a folder, which holds files by their names.
        name: of the file.

    Raises:
        FetchError: it is none of these.
    """
    try:
        parts = urlsplit(mirror)
    except ValueError as error:
        raise FetchError(f"mirror {mirror!r} is no address ({error}): mend it") from error
    if parts.scheme in ("http", "https") and parts.netloc:
        return f"{mirror.rstrip('/')}/{quote(name)}"
    path = Path(request.url2pathname(parts.path)) if parts.scheme == "file" else Path(mirror)
    if not path.is_dir():
        raise FetchError(
            f"mirror {mirror!r} is no folder here, and no http:// or https:// address: give one"
        )
    return path / name


@contextmanager
def open_body(
    place: str | Path, start: int, validator: str, patience: Patience
) -> Iterator[Body | None]:
    """Ask for a file from some byte on.

    Args:
        place: address or path.
        start: bytes that are here already.
        validator: what these came with; where the file changed since, it comes from its start.
        patience: see there.

    Yields:
        What comes, which may begin at 0 instead; None where there is nothing behind `start`.

    Raises:
        FetchError: a file of a mirror cannot be read.
        RefusedTransferError: the server has something else.
        InterruptedTransferError: another attempt may do.
    """
    if isinstance(place, Path):
        with _open_file(place) as stream:
            yield _file_body(stream, place, start, validator)
        return
    with (
        Watchdog(patience.stall) as watchdog,
        _open_address(place, start, validator, patience, watchdog) as response,
    ):
        yield None if response is None else _web_body(response, start, patience, watchdog)


def _open_file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise FetchError(
            f"{path} cannot be read ({one_line(error)}): put it there, or choose another --mirror"
        ) from error


def _file_body(stream: BinaryIO, path: Path, start: int, validator: str) -> Body:
    facts = path.stat()
    now = f"{facts.st_size}-{facts.st_mtime_ns}"
    begin = start if start <= facts.st_size and validator in ("", now) else 0

    def chunks() -> Iterator[bytes]:
        try:
            stream.seek(begin)
            while chunk := stream.read(CHUNK):
                yield chunk
        except OSError as error:
            raise InterruptedTransferError(one_line(error)) from error

    return Body(begin, facts.st_size, now, chunks())


@contextmanager
def _open_address(
    url: str, start: int, validator: str, patience: Patience, watchdog: Watchdog
) -> Iterator[HTTPResponse | None]:
    headers = {"User-Agent": f"fss-bench/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        opener = web_opener(watchdog)
        response = opener.open(request.Request(url, headers=headers), timeout=patience.stall)
    except HTTPError as error:
        with closing(error):
            if error.code == 416:
                yield None
                return
            raise _refusal(url, error) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = one_line(reason) if isinstance(reason, BaseException) else str(reason)
        raise InterruptedTransferError(text) from error
    with response:
        _rest(watchdog)
        if response.headers.get_content_type() == "text/html":
            raise RefusedTransferError(f"{url} answers with a web page, not with the file")
        if response.status not in (200, 206):
            raise RefusedTransferError(f"{url} answers with status {response.status}")
        if not _is_plain(url, response.headers.get("Content-Encoding", "")):
            raise RefusedTransferError(f"{url} answers with an encoded file, not with its bytes")
        yield response


def _is_plain(url: str, encoding: str) -> bool:
    """Whether what comes is the file; old servers call the packing of a .tgz its encoding."""
    encoding = encoding.strip().lower()
    packed = urlsplit(url).path.endswith((".tgz", ".gz")) and encoding in ("gzip", "x-gzip")
    return packed or encoding in ("", "identity")


def _refusal(url: str, error: HTTPError) -> Exception:
    if error.code in WORTH_ANOTHER:
        return InterruptedTransferError(f"status {error.code} {error.reason}")
    if error.code in (301, 302, 303, 307, 308):
        return RefusedTransferError(f"{url} redirects in circles or to what is no web address")
    return RefusedTransferError(f"{url} answers with status {error.code} {error.reason}")


def _web_body(response: HTTPResponse, asked: int, patience: Patience, watchdog: Watchdog) -> Body:
    # weak tags may stay when bytes change
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    start, total, length = 0, response.length, response.length
    if response.status == 206:
        pattern = r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)"
        found = re.fullmatch(pattern, response.headers.get("Content-Range", ""))
        part = int(found[2]) - asked + 1 if found and int(found[1]) == asked else None
        if found is None or part is None or length not in (None, part):
            raise InterruptedTransferError("another part of the file came than was asked for")
        start, total, length = asked, int(found[3]) if found[3] != "*" else None, part
    chunks = _chunks(response, patience, watchdog)
    return Body(start, total, validator, _whole(chunks, length))


def _whole(chunks: Iterator[bytes], length: int | None) -> Iterator[bytes]:
    """Bytes as they come, which must be as many as was said, if it was."""
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if length is not None and received > length:
            raise InterruptedTransferError("more came than was said")
        yield chunk
    if length is not None and received < length:
        raise InterruptedTransferError("the connection ended early")


def _chunks(response: HTTPResponse, patience: Patience, watchdog: Watchdog) -> Iterator[bytes]:
    received, since = 0, time.monotonic()
    try:
        while chunk := _read(response, watchdog):
            yield chunk
            received += len(chunk)
            if (seconds := time.monotonic() - since) > patience.stall:
                if received < SLOWEST * seconds:
                    raise InterruptedTransferError("hardly anything came")
                received, since = 0, time.monotonic()
    except (HTTPException, OSError, ValueError) as error:
        raise InterruptedTransferError(one_line(error)) from error


def _read(response: HTTPResponse, watchdog: Watchdog) -> bytes:
    watchdog.start()
    chunk = response.read1(CHUNK)  # what is there: nothing waits for a full chunk
    watchdog.rest()
    return chunk


def _rest(watchdog: Watchdog) -> None:
    try:
        watchdog.rest()
    except TimeoutError as error:
        raise InterruptedTransferError(one_line(error)) from error
