"""Registered names as lines of text."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
    parts = list(_card_parts(entry.card))
    summary = entry.summary.rstrip(".") if parts else entry.summary
    text = "; ".join(part for part in (summary, *parts) if part)
    text = text if entry.origin == "built-in" else f"{text} [{entry.origin}]"
    return " ".join(text.split())


def _card_parts(card: Mapping[str, Any]) -> Iterator[str]:
    """What a card says; a plug-in's may lack something or hold another thing."""
    where = " ".join(str(card[key]) for key in ("venue", "year") if card.get(key))
    paper = f'"{card["paper"]}"' if card.get("paper") else ""
    if paper or where:
        yield ", ".join(text for text in (paper, where) if text)
    if card.get("input_size"):
        native = card.get("paper_input")
        size = card["input_size"]
        yield f"input {native}, here {size}" if native else f"input {size}"
    backbones = card.get("backbones")
    if isinstance(backbones, Mapping) and backbones:
        sizes = (f"{k} {n:,}" if isinstance(n, int) else str(k) for k, n in backbones.items())
        yield f"trainable parameters on {', '.join(sizes)}"
