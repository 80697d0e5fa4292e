"""Downloads from a server here that cuts, stalls, lies, redirects and sends other bytes."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request

import loopback
import pytest

from fss_bench import downloading, web_opener
from fss_bench.downloading import download
from fss_bench.errors import FetchError
from fss_bench.source import SourceFile
from fss_bench.transfer import Patience

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = Patience(stall=0.4, tries=3, wait=0.0)
SIZE = len(CONTENT)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback.Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with loopback.serving(CONTENT) as running:
        yield running


def published(server: loopback.Server, **facts: Any) -> SourceFile:
    """The file as a publisher describes it; by default with size and sha256."""
    facts = {"size": SIZE, "hashes": {"sha256": SHA256}, "known_from": "its page", **facts}
    return SourceFile("file.bin", f"{server.url}/file.bin", "https://page", "free", **facts)


def unknown(server: loopback.Server) -> SourceFile:
    return published(server, size=None, hashes={}, known_from="")


def refusal(file: SourceFile, target: Path, **options: Any) -> str:
    """The line with which a download fails; nothing is left in the file's place."""
    with pytest.raises(FetchError) as caught:
        download(file, target, patience=QUICK, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert not target.exists()
    return text


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "file.bin"


def ranges(server: loopback.Server) -> list[str | None]:
    return [asked for _, asked in server.asked]


def test_a_file_comes_with_its_bytes(server: loopback.Server, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = download(
        published(server), target, patience=QUICK, progress=lambda *a: seen.append(a)
    )
    assert target.read_bytes() == CONTENT
    assert (fetched.size, fetched.sha256, fetched.checked) == (SIZE, SHA256, "sha256")
    assert fetched.is_new
    assert seen[-1] == (SIZE, SIZE)
    assert sorted(p.name for p in target.parent.iterdir()) == [".file.bin.lock", "file.bin"]
    again = download(published(server), target, patience=QUICK)
    assert not again.is_new
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "failure",
    [
        loopback.cut(100_000),
        loopback.stall(100_000),
        loopback.cut(0),
        loopback.chunked_and_cut,
        loopback.trickle,
        *map(loopback.status, (500, 502, 503, 504, 429, 408)),
    ],
)
def test_what_fails_once_goes_on(
    server: loopback.Server, target: Path, failure: loopback.Answer
) -> None:
    server.script = [failure]
    download(published(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_only_missing_bytes_are_asked_for(server: loopback.Server, target: Path) -> None:
    server.script = [loopback.cut(100_000), loopback.cut(50_000)]
    download(published(server), target, patience=QUICK)
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    assert target.read_bytes() == CONTENT


def test_progress_gives_new_patience(server: loopback.Server, target: Path) -> None:
    server.script = [loopback.cut(20_000)] * 10
    download(published(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 11


def test_patience_ends_and_what_came_is_kept(server: loopback.Server, target: Path) -> None:
    server.script = [loopback.cut(100_000), *[loopback.status(503)] * 3]
    text = refusal(published(server), target)
    assert "(status 503 Service Unavailable); 100,000 of 300,000 bytes are here" in text
    assert "the same command again" in text
    assert f"get file.bin by hand (https://page) and put it at {target}" in text
    server.asked.clear()
    download(published(server), target, patience=QUICK)
    assert ranges(server) == ["bytes=100000-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [True, False])
def test_a_server_without_ranges_starts_over(
    server: loopback.Server, target: Path, known: bool
) -> None:
    server.script = [loopback.cut(100_000), loopback.ignore_range]
    download(published(server) if known else unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_file_that_changes_meanwhile_is_not_mixed(server: loopback.Server, target: Path) -> None:
    def other(handler: loopback.Handler) -> None:
        server.content, server.etag = CONTENT[::-1], '"two"'
        loopback.serve(handler)

    server.script = [loopback.cut(100_000), other]
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT[::-1]
    assert ranges(server) == [None, "bytes=100000-"]


def test_without_a_tag_or_hash_nothing_is_resumed(server: loopback.Server, target: Path) -> None:
    server.etag = ""
    server.script = [loopback.cut(100_000), *[loopback.status(503)] * 3]
    refusal(unknown(server), target)
    server.asked.clear()
    download(unknown(server), target, patience=QUICK)
    assert ranges(server) == [None]
    assert target.read_bytes() == CONTENT


def test_a_part_of_other_bytes_is_dropped_once(server: loopback.Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(bytes(1000))
    download(published(server), target, patience=QUICK)
    assert ranges(server) == ["bytes=1000-", None]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("facts", ["", "null", "[", "[" * 100_000, '{"total": "x"}', "\0"])
def test_damaged_facts_of_a_part_do_no_harm(
    server: loopback.Server, target: Path, facts: str
) -> None:
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(CONTENT[:10])
    target.with_name("file.bin.part.json").write_text(facts)
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_whole_part_needs_no_server(server: loopback.Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(CONTENT)
    download(published(server), target, patience=QUICK)
    assert server.asked == []
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_too_long_starts_over(server: loopback.Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("file.bin.part").write_bytes(CONTENT * 2)
    download(published(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_file_that_became_shorter(server: loopback.Server, target: Path) -> None:
    file = unknown(server)
    server.script = [loopback.cut(100_000), *[loopback.status(503)] * 3]
    refusal(file, target)
    server.content = CONTENT[:5000]
    download(file, target, patience=QUICK)
    assert target.read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize("length", [100, SIZE - 1, SIZE + 1, 10 * SIZE])
def test_another_length_than_published_is_refused(
    server: loopback.Server, target: Path, length: int
) -> None:
    server.always = loopback.say(length)
    text = refusal(published(server), target)
    assert f"has {length:,} bytes instead of 300,000 (its page)" in text
    assert len(server.asked) == 1


def test_a_length_that_never_comes(server: loopback.Server, target: Path) -> None:
    server.always = loopback.say(SIZE + 10)
    text = refusal(unknown(server), target)
    assert "(the connection ended early); 300,000 of 300,010 bytes are here" in text


def test_a_body_without_length_is_measured(server: loopback.Server, target: Path) -> None:
    server.always = loopback.say(None)
    download(published(server), target, patience=QUICK)
    server.content = CONTENT + b"x"
    text = refusal(published(server), target.with_name("longer"))
    assert "sends more than the 300,000 bytes" in text
    server.content = CONTENT[:-1]
    assert "299,999 of 300,000" in refusal(published(server), target.with_name("shorter"))


@pytest.mark.parametrize("length", ["-5", "many"])
def test_a_length_that_is_none(server: loopback.Server, target: Path, length: str) -> None:
    server.always = loopback.say(None, Content_Length=length)
    download(published(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_range_that_was_not_asked_for(server: loopback.Server, target: Path) -> None:
    wrong = loopback.say(SIZE, 206, Content_Range=f"bytes 7-{SIZE + 6}/{SIZE + 7}")
    server.script = [loopback.cut(100_000), wrong]
    download(published(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        loopback.drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
        loopback.drip(b"x", b"HTTP/1.1 200 OK\r\nX: "),
        loopback.drip(b"A: b\r\n", loopback.CHUNKED + b"5\r\n" + CONTENT[:5] + b"\r\n0\r\n"),
        loopback.drip(b"x", loopback.CHUNKED + b"5;"),
        loopback.drip(b"x", b"HTTP/1.1 302 Found\r\nLocation: /file.bin\r\n\r\n"),
    ],
    ids=["continue", "head", "trailer", "extension", "redirect"],
)
def test_no_step_takes_for_ever(
    server: loopback.Server, target: Path, answer: loopback.Answer
) -> None:
    server.script = [answer]
    began = time.monotonic()
    download(published(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert time.monotonic() - began < loopback.DRIPS / 2


def test_a_slow_disk_is_no_slow_server(server: loopback.Server, target: Path) -> None:
    seen: list[int] = []

    def slow(done: int, _: int | None) -> None:
        if not seen:
            time.sleep(3 * QUICK.stall)
        seen.append(done)

    download(published(server), target, patience=QUICK, progress=slow)
    assert len(server.asked) == 1


def part_of_another(total: int | None, **headers: str) -> loopback.Answer:
    """Answer for any range, whatever the client has, with other bytes."""

    def answer(handler: loopback.Handler) -> None:
        start = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        end = total or SIZE
        said = f"bytes {start}-{end - 1}/{total or '*'}"
        handler.head(206, end - start, Content_Range=said, **headers)
        handler.wfile.write(bytes(end - start))

    return answer


@pytest.mark.parametrize("tag", ['"two"', ""])
@pytest.mark.parametrize("total", [SIZE, SIZE + 10, None])
def test_a_server_that_ignores_tags_mixes_nothing(
    server: loopback.Server, target: Path, tag: str, total: int | None
) -> None:
    facts = {"ETag": tag} if tag else {}
    server.script = [loopback.cut(100_000), part_of_another(total, **facts)]
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", None]


def test_another_total_under_the_same_tag_is_another_file(
    server: loopback.Server, target: Path
) -> None:
    server.script = [loopback.cut(100_000), part_of_another(SIZE + 10, ETag='"one"')]
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_without_a_tag_nothing_is_resumed_at_once(server: loopback.Server, target: Path) -> None:
    server.etag = ""
    server.script = [loopback.cut(100_000)]
    download(unknown(server), target, patience=QUICK)
    assert ranges(server) == [None, None]
    assert target.read_bytes() == CONTENT


def test_a_rest_of_unknown_total_that_is_cut(server: loopback.Server, target: Path) -> None:
    def rest(handler: loopback.Handler) -> None:
        said = f"bytes 100000-{SIZE - 1}/*"
        handler.head(206, length, Content_Range=said, ETag=server.etag)
        handler.wfile.write(CONTENT[100_000:200_000])

    for length in (SIZE - 100_000, None):
        server.script = [loopback.cut(100_000), rest]
        server.asked.clear()
        place = target.with_name(str(length))
        download(unknown(server), place, patience=QUICK)
        assert place.read_bytes() == CONTENT
        assert ranges(server) == [None, "bytes=100000-", "bytes=200000-"]


def test_a_rest_that_is_longer_than_said(server: loopback.Server, target: Path) -> None:
    def rest(handler: loopback.Handler) -> None:
        handler.head(206, None, Content_Range=f"bytes 100000-100009/{SIZE}", ETag=server.etag)
        handler.wfile.write(bytes(20))

    server.script = [loopback.cut(100_000), rest]
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_a_total_once_known_is_not_forgotten(server: loopback.Server, target: Path) -> None:
    def half(handler: loopback.Handler) -> None:
        handler.head(200, None, ETag=server.etag)
        handler.wfile.write(CONTENT[: SIZE // 2])

    server.script = [loopback.cut(100_000), half]
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_an_encoded_file_is_refused(server: loopback.Server, target: Path, encoding: str) -> None:
    server.always = loopback.say(SIZE, Content_Encoding=encoding)
    assert "answers with an encoded file" in refusal(unknown(server), target)
    assert len(server.asked) == 1
    server.always = loopback.say(SIZE, Content_Encoding="Identity")
    download(unknown(server), target, patience=QUICK)


def test_the_packing_of_an_archive_is_no_encoding(server: loopback.Server, target: Path) -> None:
    server.always = loopback.say(SIZE, Content_Encoding="x-gzip")
    download(replace(unknown(server), url=f"{server.url}/file.tgz"), target, patience=QUICK)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "hashes", [{"sha256": SHA256}, {"sha256": SHA256[:8]}, {"md5": MD5}, {"md5": MD5[:6]}]
)
def test_other_bytes_are_not_kept(
    server: loopback.Server, target: Path, hashes: dict[str, str]
) -> None:
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    ((name, digits),) = hashes.items()
    found = hashlib.new(name, server.content).hexdigest()[: len(digits)]
    text = refusal(published(server, hashes=hashes), target)
    assert f"has {name} {found} instead of {digits} (its page); what came was dropped" in text
    assert [p.name for p in target.parent.iterdir()] == [".file.bin.lock"]


@pytest.mark.parametrize("known", [True, False])
def test_a_web_page_is_called_one(server: loopback.Server, target: Path, known: bool) -> None:
    file = published(server) if known else unknown(server)
    server.always = loopback.page()
    assert "answers with a web page, not with the file" in refusal(file, target)
    text = b"\n<html><body>no</body></html>"
    server.always = loopback.page(text, kind="application/zip")
    server.content = text
    file = replace(file, size=len(text) if known else None)
    assert "is a web page, not file.bin" in refusal(file, target)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_file_that_is_not_there_is_asked_for_once(
    server: loopback.Server, target: Path, code: int
) -> None:
    server.always = loopback.status(code)
    text = refusal(published(server), target)
    assert f"answers with status {code}" in text
    assert f"put it at {target}" in text
    assert len(server.asked) == 1


def test_what_is_empty_is_no_file(server: loopback.Server, target: Path) -> None:
    server.content = b""
    assert "is empty; what came was dropped" in refusal(unknown(server), target)
    server.always = loopback.status(204)
    assert "answers with status 204" in refusal(unknown(server), target)


def test_a_server_cannot_steer_the_terminal(server: loopback.Server, target: Path) -> None:
    server.always = lambda handler: handler.send_error(503, "\x1b[2J")
    assert refusal(published(server), target).isprintable()
    server.always = lambda handler: handler.send_error(404, "\x1b[2J")
    assert refusal(published(server), target).isprintable()


def test_an_absent_server(server: loopback.Server, target: Path) -> None:
    with loopback.serving(b"") as gone:
        address = f"{gone.url}/file.bin"
    text = refusal(replace(published(server), url=address), target)
    assert "Connection refused" in text
    assert "0 of 300,000 bytes" in text


def test_redirects_are_followed_to_the_web_only(
    server: loopback.Server, target: Path, tmp_path: Path
) -> None:
    server.script = [loopback.redirect("/elsewhere")]
    download(published(server), target, patience=QUICK)
    assert [path for path, _ in server.asked] == ["/file.bin", "/elsewhere"]
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    for place in (secret.as_uri(), "ftp://127.0.0.1/x", "data:,x", "gopher://x"):
        server.script = [loopback.redirect(place)]
        refusal(published(server), target.with_name("other"))
    server.always = loopback.redirect("/file.bin")
    assert "redirects in circles" in refusal(published(server), target.with_name("other"))
    assert len(server.asked) < 40


def test_https_never_becomes_http() -> None:
    asked = Request("https://host/file")
    follow = web_opener.Redirects().redirect_request
    headers: Any = {}
    with pytest.raises(web_opener.RefusedTransferError, match="which is not followed"):
        follow(asked, io.BytesIO(), 302, "", headers, "http://host/file")
    assert follow(asked, io.BytesIO(), 302, "", headers, "https://other/file").full_url.endswith(
        "/file"
    )


def test_what_is_there_is_checked_and_never_overwritten(
    server: loopback.Server, target: Path
) -> None:
    target.parent.mkdir()
    target.write_bytes(b"something of mine")
    with pytest.raises(FetchError, match=r"has 17 bytes instead of 300,000 .* move it away"):
        download(published(server), target, patience=QUICK)
    assert target.read_bytes() == b"something of mine"
    assert server.asked == []
    target.write_bytes(CONTENT)
    assert download(published(server), target, patience=QUICK).checked == "sha256"


def test_a_first_fetch_is_recorded(server: loopback.Server, target: Path) -> None:
    first = download(unknown(server), target, patience=QUICK)
    assert first.checked == ""
    record = target.with_name("file.bin.sha256")
    assert record.read_text() == f"{SHA256}  file.bin\n"
    assert download(unknown(server), target, patience=QUICK).checked.startswith("the record of")
    target.unlink()
    server.content = CONTENT + b"more"
    text = refusal(unknown(server), target)
    assert f"instead of {SHA256}, as at its first fetch (remove file.bin.sha256" in text
    record.unlink()
    download(unknown(server), target, patience=QUICK)
    assert target.read_bytes() == CONTENT + b"more"


def test_a_mirror_has_files_by_their_names(
    server: loopback.Server, target: Path, tmp_path: Path
) -> None:
    file = replace(published(server), url="http://127.0.0.1:9/gone", name="a file.bin")
    download(file, target, mirror=f"{server.url}/some/where/", patience=QUICK)
    assert server.asked[0][0] == "/some/where/a%20file.bin"
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "a file.bin").write_bytes(CONTENT)
    for number, mirror in enumerate((str(folder), folder.as_uri())):
        download(file, target.with_name(str(number)), mirror=mirror, patience=QUICK)
        assert target.with_name(str(number)).read_bytes() == CONTENT
    (folder / "a file.bin").write_bytes(CONTENT[:-1])
    assert "299,999 bytes" in refusal(file, target.with_name("cut"), mirror=str(folder))
    (folder / "a file.bin").unlink()
    assert "choose another --mirror" in refusal(file, target.with_name("gone"), mirror=str(folder))
    for wrong in ("ftp://host/x", str(tmp_path / "absent"), "ssh:x", "http://"):
        assert "is no folder here" in refusal(file, target.with_name("no"), mirror=wrong)
    assert "is no address" in refusal(file, target.with_name("no"), mirror="http://[x")


def test_a_part_goes_on_from_a_mirror(
    server: loopback.Server, target: Path, tmp_path: Path
) -> None:
    server.script = [loopback.cut(100_000), *[loopback.status(503)] * 3]
    refusal(published(server), target)
    (tmp_path / "file.bin").write_bytes(CONTENT)
    seen: list[int] = []
    download(
        published(server),
        target,
        mirror=str(tmp_path),
        patience=QUICK,
        progress=lambda done, total: seen.append(done),
    )
    assert seen[0] > 100_000
    assert target.read_bytes() == CONTENT


def test_a_full_disk_is_seen_before(
    server: loopback.Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: usage)
    text = refusal(published(server), target)
    assert "has room for 1,000 bytes, and 300,000 are to come" in text


def test_a_place_that_cannot_be_written(server: loopback.Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "choose another --data-root" in refusal(published(server), tmp_path / "file" / "x")
    assert server.asked == []


SCRIPT = """
import resource, sys
from pathlib import Path
from fss_bench.downloading import download
from fss_bench.source import SourceFile
url, sha256, target, most = sys.argv[1:]
if int(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
file = SourceFile("file.bin", url, "p", "t", hashes={"sha256": sha256})
download(file, Path(target), note=lambda text: print(text, flush=True))
"""


def start(server: loopback.Server, target: Path, most: int = 0) -> "subprocess.Popen[str]":
    """A process that fetches; `most` limits the size of its files."""
    arguments = [f"{server.url}/file.bin", SHA256, str(target), str(most)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], **pipes)


def test_a_disk_that_fills_up(server: loopback.Server, target: Path) -> None:
    _, errors = start(server, target, most=100_000).communicate(timeout=60)
    assert "FetchError: cannot write" in errors.splitlines()[-1]
    assert "File too large" in errors.splitlines()[-1]
    assert not target.exists()
    server.asked.clear()
    download(published(server), target, patience=QUICK)
    assert ranges(server) == ["bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_a_killed_process_loses_nothing(server: loopback.Server, target: Path) -> None:
    server.script = [loopback.stall(100_000)]
    part = target.with_name("file.bin.part")
    with start(server, target) as process:
        deadline = time.monotonic() + 30
        while not part.is_file() or part.stat().st_size < 100_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not target.exists()
    download(published(server), target, patience=QUICK)
    assert ranges(server) == [None, "bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_many_processes_fetch_once(server: loopback.Server, target: Path) -> None:
    def slow(handler: loopback.Handler) -> None:
        time.sleep(1.0)
        loopback.serve(handler)

    server.always = slow
    processes = [start(server, target) for _ in range(4)]
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert any("waiting for it" in text for text in told)
