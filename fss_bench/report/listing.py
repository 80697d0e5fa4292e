"""Registered names as lines of text."""

import textwrap
from collections.abc import Iterator, Sequence

from fss_bench.registry import Entry


def entry_lines(entries: Sequence[Entry], columns: int | None = None) -> Iterator[str]:
    """A line an entry; on a terminal of so many columns wrapped under its name."""
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        line = f"{entry.name:{width}}  {describe(entry)}"
        if columns is None:
            yield line
        else:
            indent = " " * (width + 2)
            yield textwrap.fill(line, columns, subsequent_indent=indent, break_on_hyphens=False)


def describe(entry: Entry) -> str:
    """What is known of an entry without importing it."""
    parts = [entry.summary.rstrip(".") if entry.card else entry.summary]
    if card := entry.card:
        sizes = ", ".join(f"{name} {count:,}" for name, count in card["backbones"].items())
        parts += [
            f'"{card["paper"]}", {card["venue"]} {card["year"]}',
            f"input {card['input_size']}",
            f"trainable parameters on {sizes}",
        ]
    text = "; ".join(parts)
    return text if entry.origin == "built-in" else f"{text} [{entry.origin}]"
