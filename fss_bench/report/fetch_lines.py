"""What `data fetch` says of files, as lines of 80 columns and as JSON."""

import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fss_bench.downloading import Fetched
from fss_bench.fetching import Step
from fss_bench.file_checks import checks

WIDTH = 80
UNCHECKED = "not checked: no hash of it is published"


def plan_lines(steps: list[Step], places: list[str | Path]) -> Iterator[str]:
    """Everything that is known of the files; addresses are never broken, so that they can be used.

    Args:
        steps: the files.
        places: where each would be fetched from.
    """
    last = None
    for step, place in zip(steps, places, strict=True):
        if step.source is not last:
            last = step.source
            yield f"{step.source.name}: {step.source.title}, into {step.root}"
        file = step.file
        size = f"{file.size:,} bytes" if file.size else "size not published"
        yield from _wrapped(f"{file.name}, {size}: {step.state}", 2)
        yield f"    {place}"
        for name, digits in file.hashes.items():
            yield f"    {name} {digits}"
        known = f"known from: {file.known_from}" if file.known_from else UNCHECKED
        yield from _wrapped(known, 4)
        yield from _wrapped(f"goes to: {', '.join(destinations(step))}", 4)
        yield from _wrapped(f"terms: {file.terms}; by hand: {file.page}", 4)


def destinations(step: Step) -> list[str]:
    """Where in the file system a file, or what it holds, goes."""
    root, file = step.root, step.file
    if not file.unpack:
        return [str(step.target)]
    return [str(root) if to == "." else str(root / to) for to in file.unpack.values()]


def plan_json(step: Step, place: str | Path) -> dict[str, Any]:
    """A file of the plan."""
    file = step.file
    return {
        "name": step.source.name,
        "file": file.name,
        "size": file.size,
        "hashes": dict(file.hashes),
        "known_from": file.known_from,
        "url": str(place),
        "page": file.page,
        "terms": file.terms,
        "target": str(step.target),
        "goes_to": destinations(step),
        "state": step.state,
    }


def fetched_line(step: Step, fetched: Fetched | None) -> str:
    """What became of a file."""
    if fetched is None:
        return f"{step.file.name}: was unpacked before"
    how = "fetched" if fetched.is_new else "was here"
    by = fetched.checked
    known = f" ({step.file.known_from})" if checks(step.file) else ""
    checked = f"checked by {by}{known}" if by else f"{UNCHECKED}, sha256 {fetched.sha256}"
    return f"{fetched.path}: {how}, {fetched.size:,} bytes, {checked}"


def fetched_json(step: Step, fetched: Fetched | None) -> dict[str, Any]:
    """The same, for programs."""
    shown: dict[str, Any] = {"name": step.source.name, "file": step.file.name}
    if fetched is None:
        return {**shown, "path": None, "is_new": False}
    return {
        **shown,
        "path": str(fetched.path),
        "size": fetched.size,
        "sha256": fetched.sha256,
        "checked": fetched.checked,
        "is_new": fetched.is_new,
    }


def usage(step: Step) -> str:
    """The flags with which other commands use what a source is."""
    source = step.source
    if source.dataset:
        return f"--dataset {source.dataset} --data-root {shlex.quote(str(step.root))}"
    return f"--backbone {source.backbone} --weights {shlex.quote(str(step.target))}"


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
