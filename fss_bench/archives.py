"""Unpack zip and tar files that nobody vouches for: nothing gets out of the folder, or too large.

Members are read by the standard library and written here, each as a plain new file under a name
that was checked; what the library itself would make on the disk (links, devices, modes) is never
made.
"""

import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from fss_bench.errors import FetchError, one_line, printable

TIMES, SPARE = 20, 16 << 20
"""An archive may hold this many times its own size and some bytes more."""
MOST_MEMBERS = 1_000_000
DEEPEST = 50
"""Parts of a path; thousands of them, and Python gives up on removing the tree."""
CHUNK = 1 << 20
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(NotImplementedError, ValueError, OverflowError, RuntimeError, KeyError, IndexError),
)
"""What the standard library raises for damaged archives."""
Progress = Callable[[int, int | None], None]


class _Budget:
    """Bytes that an archive may still bring."""

    def __init__(self, archive: Path, left: int) -> None:
        self.archive, self.left = archive, left

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise _refused(self.archive, f"more than {TIMES} times its own size")


class _Metered:
    """An unpacked stream, read forwards, whose bytes count."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, budget: _Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._budget.spend(len(data))
        return data

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    Attributes:
        name: as the archive has it.
        kind: `file`, `folder`, or what else it is.
        open: reads it.
    """

    name: str
    kind: str
    open: Callable[[], _Metered | IO[bytes] | None]


def unpack(
    archive: Path, folder: Path, wanted: Sequence[str] = ("",), progress: Progress | None = None
) -> int:
    """Write members of a zip or tar file below a folder.

    Args:
        archive: zip, tar, tar.gz; told by its content.
        folder: new or empty. After an error it holds a part, and has to be removed.
        wanted: paths in the archive; what is neither one of them nor below one is left out.
        progress: called with members done, and how many there are where that is known.

    Returns:
        Files written.

    Raises:
        FetchError: truncated, damaged, encrypted, of another format; holds a member outside of
            it, or more than it can honestly hold; or what is wanted is there twice, oddly named, a
            link or a device.
    """
    budget = _Budget(archive, TIMES * archive.stat().st_size + SPARE)
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with _saying_damage(archive), _members(archive, budget) as (members, total):
        for number, member in enumerate(members):
            if number >= MOST_MEMBERS:
                raise _refused(archive, f"more than {MOST_MEMBERS:,} members")
            path = _path_of(archive, member)
            if any(part == "" or f"{path}/".startswith(f"{part}/") for part in wanted):
                _check(archive, member, path)
                written += _write(archive, member, folder / path)
            if progress:
                progress(number + 1, total)
    return written


@contextmanager
def _members(archive: Path, budget: _Budget) -> Iterator[tuple[Iterator[Member], int | None]]:
    """The members of an archive, and how many there are where that is known."""
    with archive.open("rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        if head[:2] == b"PK":
            with zipfile.ZipFile(stream) as opened:
                infos = opened.infolist()
                yield (_zip_member(budget, opened, info) for info in infos), len(infos)
        elif head[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=stream) as unzipped:
                metered = _Metered(unzipped, budget)
                yield _tar_members(metered), None
                while metered.read(CHUNK):  # to its checksum
                    pass
        else:
            yield _tar_members(stream), None


def _zip_member(budget: _Budget, opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    kind = "folder" if info.is_dir() else "file"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "link or device"
    elif info.flag_bits & 1:
        kind = "file with a password"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        kind = "file of an unusual packing"
    # `filename` is cut at a zero
    return Member(info.orig_filename, kind, lambda: _Metered(opened.open(info), budget))


class _Header(tarfile.TarInfo):
    """A header of a tar file; tarfile takes a damaged or a missing one for the end."""

    @classmethod
    def fromtarfile(cls, opened: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(opened)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # zeros: the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _tar_members(stream: object) -> Iterator[Member]:
    # as a pipe: a header with a damaged size cannot send the reader back
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_Header) as opened:  # type: ignore[call-overload]
        for info in opened:
            plain = info.isreg() and not info.issparse() and info.size >= 0
            kind = "file" if plain else "folder" if info.isdir() else "link or device"
            yield Member(info.name, kind, partial(opened.extractfile, info))
            opened.members.clear()  # which tarfile would keep, a million of them


def _path_of(archive: Path, member: Member) -> str:
    """A member's path below the folder, with "/" between its parts."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts or member.name.startswith("/"):
        raise _refused(archive, f"a member outside of it, {printable(member.name)[:200]}")
    return "/".join(parts)


def _check(archive: Path, member: Member, path: str) -> None:
    """Refuse what is not to be made; the same beside what is wanted does no harm."""
    parts = path.split("/")
    if len(parts) > DEEPEST:
        raise _refused(archive, f"a path of {len(parts):,} parts, {printable(path)[:200]}")
    longest = max(len(part.encode(errors="replace")) for part in parts)
    if not path.isprintable() or re.search(r"[\\:]", path) or longest > 255:
        raise _refused(archive, f"a member oddly named, {printable(path)[:200]}")
    if member.kind not in ("file", "folder"):
        raise _refused(archive, f"a {member.kind}, {path[:200]}")


def _write(archive: Path, member: Member, path: Path) -> int:
    """Make a member; returns the number of files made."""
    try:
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _refused(archive, f"{member.name[:200]} twice") from error
    with target:
        stream = member.open()
        if stream is None:
            raise _refused(archive, f"a member without content, {member.name[:200]}")
        with closing(stream):
            while chunk := stream.read(CHUNK):
                target.write(chunk)
    return 1


@contextmanager
def _saying_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise FetchError(
            f"{archive} is damaged ({printable(one_line(error))[:160]}): remove it and fetch it "
            "again"
        ) from error
    except gzip.BadGzipFile as error:
        raise FetchError(
            f"{archive} is damaged ({one_line(error)[:160]}): remove it and fetch it again"
        ) from error
    except OSError as error:
        raise FetchError(
            f"{archive} cannot be unpacked ({one_line(error)[:160]}): free space or mend "
            "permissions, then run the same command again"
        ) from error


def _refused(archive: Path, what: str) -> FetchError:
    return FetchError(f"{archive} holds {what}, and is not unpacked: fetch it from its publisher")
