"""Names of images as lists and folders give them, and all that is wrong with them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fss_bench.errors import DatasetError, one_line, shorten

LONGEST_NAME = 255
"""Bytes of a file's name; no common file system admits more."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset, or only worth telling.

    Attributes:
        text: what it is and what to do, one line.
        grave: whether it must be mended.
    """

    text: str
    grave: bool = True


@dataclass(frozen=True)
class Listing:
    """Images of a split, and what was found in the files that name them.

    Attributes:
        images: those that can be used, in order.
        findings: of the list itself, not of its images.
    """

    images: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def checked(self) -> list[str]:
        """The images.

        Raises:
            DatasetError: something must be mended; the first of it.
        """
        faults = [finding.text for finding in self.findings if finding.grave]
        if faults:
            more = f"; fss-bench data verify lists {len(faults) - 1} more" if faults[1:] else ""
            raise DatasetError(faults[0] + more)
        return list(self.images)


def read_lines(file: Path, content: str) -> list[str]:
    """The lines of a UTF-8 text file that are not blank, without the blanks around them.

    Args:
        file: the file.
        content: what it holds, for messages.

    Raises:
        DatasetError: missing, or not UTF-8.
    """
    lines, findings = _lines(file, content)
    Listing((), findings).checked()
    return lines


def read_listing(file: Path, content: str) -> Listing:
    """The names of `read_lines`, each once, and what is wrong with them."""
    lines, findings = _lines(file, content)
    found = listing_of(lines, file)
    return Listing(found.images, (*findings, *found.findings))


def _lines(file: Path, content: str) -> tuple[list[str], tuple[Finding, ...]]:
    """The lines that can be read, and why the others cannot."""
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except FileNotFoundError:
        return [], (Finding(f"{file} is missing: write {content} there, one a line"),)
    except OSError as error:
        return [], (Finding(f"{file} cannot be read ({one_line(error)}): mend it"),)
    names, foreign = [], []
    for number, line in enumerate(lines, start=1):
        try:
            names.append(line.decode().strip())
        except UnicodeDecodeError:
            foreign.append(number)
    told = Finding(f"{file} is not UTF-8 in line {shorten(foreign)}: save it as UTF-8")
    return [name for name in names if name], (told,) if foreign else ()


def read_names(file: Path, content: str) -> list[str]:
    """The images of `read_listing`.

    Raises:
        DatasetError: missing, not UTF-8, or with a name that cannot be one of a file.
    """
    return read_listing(file, content).checked()


def listing_of(names: Iterable[str], source: Path) -> Listing:
    """Names that `source` gives, each once, and what is wrong with them."""
    counts = Counter(names)
    findings = []
    if outside := [repr(name) for name in counts if not is_inside(name)]:
        findings.append(
            Finding(
                f"{source} has {len(outside)} names that lead out of the folder or cannot be names "
                f"of files ({shorten(outside)}): rename them"
            )
        )
    if twice := [name for name, count in counts.items() if count > 1 and is_inside(name)]:
        findings.append(
            Finding(
                f"{source} names {len(twice)} more than once ({shorten(twice)}): each counts once",
                grave=False,
            )
        )
    return Listing(tuple(name for name in counts if is_inside(name)), tuple(findings))


def is_inside(name: str) -> bool:
    """Whether a name can be one of a file, and one in the folder where it is looked for."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or path == PurePosixPath():
        return False
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in name):
        return False
    return all(len(part.encode()) <= LONGEST_NAME for part in path.parts)
