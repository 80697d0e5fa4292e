"""Results of contract checks as lines of text and as JSON."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fss_bench.contract import Result

INDENT = " " * 8
OUTCOMES = {"passed": "passed", "failed": "FAILED", "not applicable": "n/a"}


def result_line(result: "Result", columns: int | None = None) -> str:
    """A check in a line; on a terminal of so many columns wrapped under its name."""
    found = f"{result.found}; to mend it: {result.cure}" if result.cure else result.found
    line = f"{OUTCOMES[result.outcome]:8}{result.check}: {result.promise.rstrip('.')}: {found}"
    line += "" if line.endswith((".", "?")) else "."
    if columns is None:
        return line
    return textwrap.fill(line, columns, subsequent_indent=INDENT, break_on_hyphens=False)


def tally(results: "Sequence[Result]") -> str:
    """How many checks had which outcome."""
    found = [result.outcome for result in results]
    return ", ".join(f"{found.count(o)} {o}" for o in OUTCOMES if o in found)


def contract_json(results: "Sequence[Result]") -> Iterator[dict[str, Any]]:
    """A dict a check."""
    for one in results:
        yield {
            "check": one.check,
            "promise": one.promise,
            "outcome": one.outcome,
            "found": one.found,
            "cure": one.cure,
        }
