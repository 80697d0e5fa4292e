"""Files that are written whole or not at all, and are on the disk when that is said."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_whole(path, text.encode())


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: bytes, or what is written into a stream."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                content(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_names(path.parent)
    finally:
        with suppress(OSError):  # it is gone where all went well
            temporary.unlink()


def sync_names(folder: Path) -> None:
    """Have new names of files on the disk, in their order, where the system can do that."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
