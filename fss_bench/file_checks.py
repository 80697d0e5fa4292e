"""Whether a file is the published one: its size, its hashes, or the record of its first fetch."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fss_bench.files import write_text
from fss_bench.source import SourceFile

DIGITS = {"md5": 32, "sha256": 64}


def checks(file: SourceFile) -> str:
    """By which hashes a file is checked, in words; "" for none."""
    return " and ".join(
        name if len(digits) == DIGITS[name] else f"the first {len(digits)} digits of {name}"
        for name, digits in file.hashes.items()
    )


def is_checked_whole(file: SourceFile) -> bool:
    """Whether a hash of the file is published to its last digit."""
    return any(len(digits) == DIGITS[name] for name, digits in file.hashes.items())


def wrong(
    file: SourceFile, size: int, digests: Mapping[str, str], head: bytes, record: str | None
) -> str | None:
    """What is wrong with a file, or None.

    Args:
        file: what it should be.
        size: bytes.
        digests: algorithm -> hex digits, of sha256 and of those published.
        head: its first bytes.
        record: see `read_record`.
    """
    if b"<html" in head.lower() or head.lstrip().lower().startswith(b"<!doctype"):
        return f"is a web page, not {file.name}"
    if size == 0:
        return "is empty"
    if file.size is not None and size != file.size:
        return f"has {size:,} bytes instead of {file.size:,} ({file.known_from})"
    for name, digits in file.hashes.items():
        if not digests[name].startswith(digits):
            found = digests[name][: len(digits)]
            return f"has {name} {found} instead of {digits} ({file.known_from})"
    if record is not None and record != digests["sha256"]:
        return (
            f"has sha256 {digests['sha256']} instead of {record}, as at its first fetch (remove "
            f"{file.name}.sha256 if it may have changed)"
        )
    return None


def read_record(target: Path) -> str | None:
    """The sha256 that a file had when it was first fetched."""
    with suppress(OSError, UnicodeDecodeError):
        words = _record_file(target).read_text(encoding="ascii").split()
        return words[0] if words else None
    return None


def keep_record(file: SourceFile, target: Path, sha256: str) -> None:
    """Where nobody publishes a whole sha256, note that of the first fetch, as `sha256sum` does.

    Raises:
        OSError: it cannot be written.
    """
    published = file.hashes.get("sha256", "")
    if len(published) < DIGITS["sha256"] and read_record(target) is None:
        write_text(_record_file(target), f"{sha256}  {target.name}\n")


def _record_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")
