"""Archives that want out of their folder, or are damaged, or are bombs."""

import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_archives import CONTENT, KINDS, MAKERS, Entries, pack, tar, tgz

from fss_bench import archives
from fss_bench.archives import unpack
from fss_bench.errors import FetchError


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[[Entries], bytes]:
    return MAKERS[request.param]


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def unpacked(content: bytes, work: Path, wanted: tuple[str, ...] = ("",)) -> list[str]:
    (work / "archive").write_bytes(content)
    unpack(work / "archive", work / "in" / "side", wanted)
    return tree(work / "in" / "side")


def refusal(content: bytes, work: Path, wanted: tuple[str, ...] = ("",)) -> str:
    """The line with which an archive is refused; nothing is outside of its folder."""
    with pytest.raises(FetchError) as caught:
        unpacked(content, work, wanted)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    outside = [p for p in tree(work) if not p.startswith("in/side/")]
    assert outside == ["archive", "in", "in/side"]
    return text


def test_members_become_files(make: Callable[[Entries], bytes], tmp_path: Path) -> None:
    entries = [("a", "folder"), ("a/1.txt", "file"), ("b/c/2.txt", "file"), ("./a/3.txt", "file")]
    assert unpacked(make(entries), tmp_path) == "a a/1.txt a/3.txt b b/c b/c/2.txt".split()
    assert (tmp_path / "in" / "side" / "a" / "1.txt").read_bytes() == CONTENT


def test_only_what_is_wanted(make: Callable[[Entries], bytes], tmp_path: Path) -> None:
    entries = [(name, "file") for name in ("a/1", "a/b/2", "ab/3", "c/4", "c/5")]
    assert unpacked(make(entries), tmp_path, ("a", "c/5")) == "a a/1 a/b a/b/2 c c/5".split()


def test_names_that_differ_in_case_are_two(
    make: Callable[[Entries], bytes], tmp_path: Path
) -> None:
    assert unpacked(make([("A", "file"), ("a", "file")]), tmp_path) == ["A", "a"]


OUTSIDE = ("../out", "a/../../out", "/tmp/out", "//out", "..", "a/..")
ODD = (
    *("C:\\out", "C:out", "..\\out", "a\\..\\out", "a\x1b[2J", "a\nb", "\u202eout", "x" * 300),
    "a:stream",
)


@pytest.mark.parametrize("name", OUTSIDE + ODD)
def test_names_that_lead_elsewhere(
    make: Callable[[Entries], bytes], tmp_path: Path, name: str
) -> None:
    text = refusal(make([("good", "file"), (name, "file")]), tmp_path)
    assert f"holds a member {'outside of it' if name in OUTSIDE else 'oddly named'}" in text
    assert tree(tmp_path / "in" / "side") == ["good"]


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "device", "pipe", "sparse"])
def test_links_and_devices(tmp_path: Path, kind: str) -> None:
    entries = [("a", kind), ("a/out", "file")]
    makers = (tar, tgz) if kind in ("hardlink", "sparse") else (tar, tgz, pack)
    for number, make in enumerate(makers):
        work = tmp_path / str(number)
        work.mkdir()
        assert "holds a link or device, a" in refusal(make(entries), work)
        assert tree(work / "in" / "side") == []


@pytest.mark.parametrize(
    "entries",
    [
        [("a", "file"), ("a", "file")],
        [("a", "file"), ("./a", "file")],
        [("a", "file"), ("a/b", "file")],
        [("a/b", "file"), ("a", "file")],
        [("a", "file"), ("a", "folder")],
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_there_twice(
    make: Callable[[Entries], bytes], tmp_path: Path, entries: Entries
) -> None:
    assert "twice" in refusal(make(entries), tmp_path)


def test_what_is_not_wanted_is_not_judged(tmp_path: Path) -> None:
    entries = [("a", "file"), ("Icon\r", "file"), ("b:c", "file"), ("d", "symlink")]
    for number, make in enumerate((tar, tgz, pack)):
        work = tmp_path / str(number)
        work.mkdir()
        assert unpacked(make(entries), work, ("a",)) == ["a"]
    (tmp_path / "last").mkdir()
    content = pack([*entries, ("../a", "file")])
    assert "outside of it" in refusal(content, tmp_path / "last", ("a",))


def names() -> st.SearchStrategy[str]:
    part = st.sampled_from(["a", "b", "..", ".", "", "C:", "\\", "a\\b", "~", "\u2024\u2024", " "])
    odd = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
    return st.lists(part | odd, min_size=1, max_size=4).map("/".join)


@given(
    entries=st.lists(st.tuples(names(), st.sampled_from(sorted(KINDS))), max_size=4),
    maker=st.sampled_from(sorted(MAKERS)),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_ever_made_outside(entries: Entries, maker: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        content = MAKERS[maker](entries)
        with suppress(FetchError):
            unpacked(content, work)
        outside = [p for p in tree(work) if not p.startswith("in/side/")]
        assert outside == ["archive", "in", "in/side"]
        for path in (work / "in" / "side").rglob("*"):
            assert path.is_file() or path.is_dir()
            assert not path.is_symlink()


def damaged(content: bytes) -> Iterator[bytes]:
    """Cut at many places; the last quarter of a tar file may be zeros that say nothing."""
    for length in sorted(
        {1, 3, 20, 99, len(content) // 3, len(content) // 2, len(content) * 3 // 4}
    ):
        yield content[:length]


def test_truncated_archives(make: Callable[[Entries], bytes], tmp_path: Path) -> None:
    content = make([(f"{i}", "file") for i in range(40)])
    for number, part in enumerate(damaged(content)):
        work = tmp_path / str(number)
        work.mkdir()
        assert "fetch it again" in refusal(part, work)


def test_a_tar_file_cut_between_members(tmp_path: Path) -> None:
    content = tar([("a", "file"), ("b", "file")])
    assert "is damaged (ReadError: empty header)" in refusal(content[:1024], tmp_path)
    (tmp_path / "second").mkdir()
    assert "empty header" in refusal(gzip.compress(content[:1024]), tmp_path / "second")


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    content = bytearray(tar([("a", "file"), ("b", "file")]))
    content[1024] ^= 1
    assert "is damaged (ReadError: bad checksum)" in refusal(bytes(content), tmp_path)


def test_what_is_no_archive(tmp_path: Path) -> None:
    assert "is damaged" in refusal(b"<html>" * 200, tmp_path)


def test_encrypted_members(tmp_path: Path) -> None:
    content = bytearray(pack([("a", "file")]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    assert "a file with a password, a" in refusal(bytes(content), tmp_path)


def test_other_packings_are_not_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_BZIP2) as made:
        made.writestr("a", CONTENT)
    assert "a file of an unusual packing" in refusal(stream.getvalue(), tmp_path)


def test_wrong_checksums(tmp_path: Path) -> None:
    content = bytearray(pack([("a", "file")]))
    place = content.index(b"PK\x01\x02") + 16
    content[place] ^= 1
    assert "is damaged (BadZipFile: Bad CRC-32" in refusal(bytes(content), tmp_path)
    squeezed = bytearray(tgz([("a", "file")]))
    squeezed[-8] ^= 1
    (tmp_path / "second").mkdir()
    assert "CRC check failed" in refusal(bytes(squeezed), tmp_path / "second")


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SPARE", 100_000)


@pytest.mark.usefixtures("little_room")
def test_bombs(tmp_path: Path) -> None:
    zeros = bytes(5_000_000)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", zeros)
    bomb_tar = io.BytesIO()
    with tarfile.open(fileobj=bomb_tar, mode="w:gz") as opened:
        info = tarfile.TarInfo("a")
        info.size = len(zeros)
        opened.addfile(info, io.BytesIO(zeros))
    header = io.BytesIO()
    with tarfile.open(fileobj=header, mode="w:gz", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * 5_000_000}
        opened.addfile(info)
    unwanted = gzip.compress(tar([("b", "file")]) + zeros)
    for number, bomb in enumerate((stream, bomb_tar, header, io.BytesIO(unwanted))):
        work = tmp_path / str(number)
        work.mkdir()
        assert "holds more than 20 times its own size" in refusal(bomb.getvalue(), work)
        assert sum(p.stat().st_size for p in (work / "in").rglob("*")) < 3_000_000


def test_too_many_members(
    make: Callable[[Entries], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    content = make([(f"{i}", "file") for i in range(11)])
    assert "holds more than 10 members" in refusal(content, tmp_path)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_folders_in_folders(make: Callable[[Entries], bytes], tmp_path: Path, kind: str) -> None:
    deep = "/".join("a" * 51)
    assert "holds a path of 51 parts, a/a/a" in refusal(make([(deep, kind)]), tmp_path)
    assert len(unpacked(make([(deep[2:], kind)]), tmp_path)) == 50


def test_a_size_below_zero_ends(tmp_path: Path) -> None:
    content = bytearray(tar([("a", "file"), ("b", "file")]))
    content[124:136] = b"\xff" * 4 + struct.pack(">q", -512)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    refusal(bytes(content), tmp_path)


def test_a_full_disk(
    make: Callable[[Entries], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, mode: str = "r") -> io.BytesIO:
        if "x" in mode:
            raise OSError(28, "No space left on device")
        return opens(self, mode)  # type: ignore[return-value, call-overload]

    opens = Path.open
    content = make([("a", "file")])
    (tmp_path / "archive").write_bytes(content)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FetchError, match=r"No space left on device\): free space"):
        unpack(tmp_path / "archive", tmp_path / "in")
