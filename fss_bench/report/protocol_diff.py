"""Two protocols rule by rule, with what is known of the size of each difference."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from fss_bench.protocol_effects import SCOPES, Effect, effects_between
from fss_bench.protocols import EvaluationProtocol

LONGEST_HEADING = 30
"""Characters: longer labels stand above the table."""
LEAST_COLUMN = 8
GAP = "  "


@dataclass(frozen=True)
class Difference:
    """A rule of which two protocols have different values, and what was measured between them."""

    rule: str
    a: Any
    b: Any
    effects: Sequence[Effect]


def differences(a: EvaluationProtocol, b: EvaluationProtocol) -> list[Difference]:
    """The rules that differ, in the order of `EvaluationProtocol`."""
    other = b.rules
    return [
        Difference(rule, value, other[rule], effects_between(rule, value, other[rule]))
        for rule, value in a.rules.items()
        if value != other[rule]
    ]


def diff_json(a: EvaluationProtocol, b: EvaluationProtocol) -> dict[str, Any]:
    """Labels and differences in types of JSON."""
    found = {
        d.rule: {
            "a": d.a,
            "b": d.b,
            "effects": [{"text": e.text, "source": e.source} for e in d.effects],
        }
        for d in differences(a, b)
    }
    return {"a": a.label, "b": b.label, "differences": found}


def diff_lines(
    a: EvaluationProtocol, b: EvaluationProtocol, columns: int | None = None
) -> Iterator[str]:
    """A table of the rules that differ, each over its effects.

    Args:
        a, b: the protocols compared.
        columns: of the terminal, to wrap for; None does not wrap.
    """
    found = differences(a, b)
    if not found:
        yield "no rule differs"
        return
    headings = [a.label, b.label]
    if max(map(len, headings)) > LONGEST_HEADING:
        for letter, label in zip("AB", headings, strict=True):
            yield from _wrapped(f"{letter}: {label}", columns, "   ")
        yield ""
        headings = ["A", "B"]
    rows = [["rule", *headings], *([d.rule, shown(d.a), shown(d.b)] for d in found)]
    widths = _widths(rows, columns)
    yield from _row(rows[0], widths)
    told: dict[str, str] = {}
    for row, difference in zip(rows[1:], found, strict=True):
        yield from _row(row, widths)
        for note in _notes(difference, told):
            yield from _wrapped(f"    {note}", columns, "      ")


def shown(value: Any) -> str:
    """A rule's value, to be read: a narrow column may break it at its commas."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "none" if text in ("", "None") else text


def _notes(difference: Difference, told: dict[str, str]) -> Iterator[str]:
    """What stands beneath a rule. `told`: the rule where an effect was written out; it grows."""
    if difference.rule in SCOPES:
        yield SCOPES[difference.rule]
    for effect in difference.effects:
        if told.setdefault(effect.text, difference.rule) == difference.rule:
            yield f"{effect.text} ({effect.source})"
        else:
            yield f"as under {told[effect.text]}"


def _widths(rows: Sequence[Sequence[str]], columns: int | None) -> list[int]:
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    if columns is None:
        return widths
    room = max((columns - widths[0] - 2 * len(GAP)) // 2, LEAST_COLUMN)
    return [widths[0], *(min(width, room) for width in widths[1:])]


def _row(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """The lines of a row: a cell wider than its column goes on in the next line."""
    wrapped = [_cell(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=""):
        padded = (f"{part:{width}}" for part, width in zip(parts, widths, strict=True))
        yield GAP.join(padded).rstrip()


def _cell(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _wrapped(text: str, columns: int | None, indent: str) -> list[str]:
    if columns is None:
        return [text]
    return textwrap.wrap(text, max(columns, 20), subsequent_indent=indent, break_on_hyphens=False)
