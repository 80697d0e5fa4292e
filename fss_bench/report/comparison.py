"""Compared runs as a terminal table and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fss_bench.comparison import Compared
from fss_bench.leaderboard import Row
from fss_bench.results import Run


def comparison_table(first: Run, compared: Sequence[Compared]) -> Table:
    """Every run beside the first: at most 80 columns wide."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run\nmethod\nbackbone\nweights", overflow="fold", min_width=12)
    for name in ("mIoU", "difference", "95 % interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)  # a cut number is a wrong one
    table.add_row(_entrant(first), points(compared[0].difference.first, sign=False), "first")
    for one in compared:
        table.add_row(
            _entrant(one.run),
            points(one.difference.second, sign=False),
            points(one.difference.value),
            interval(one.difference.ci95),
            "" if one.p is None else f"{one.p:.4f}",
        )
    return table


def print_comparison(
    first: Run, compared: Sequence[Compared], console: Console | None = None
) -> None:
    """Print the table, what it is about, and how to read it."""
    console = console or Console()
    console.print(Text(_title(first), style="bold"))
    console.print(comparison_table(first, compared))
    console.print(Text(_caption(compared)))


def comparison_json(first: Run, compared: Sequence[Compared]) -> dict[str, Any]:
    """The same as plain values; scores are fractions."""
    return {
        "first": {**_identity(first), "miou": compared[0].difference.first},
        "runs": [
            {
                **_identity(one.run),
                "miou": one.difference.second,
                "difference": one.difference.value,
                "ci95": list(one.difference.ci95),
                "p": one.difference.p,
                "p_holm": one.p,
                "notes": list(one.notes),
            }
            for one in compared
        ],
    }


def points(fraction: float, sign: bool = True) -> str:
    """Points of mIoU with two decimals; never -0.00."""
    value = round(100 * fraction, 2) + 0.0
    return f"{value:+.2f}" if sign and value else f"{value:.2f}"


def interval(ends: tuple[float, float]) -> str:
    """Both ends in points."""
    return f"{points(ends[0])} to {points(ends[1])}"


def _title(first: Run) -> str:
    record = first.record
    return (
        f"{record['dataset']['name']}, fold {record['fold']}, {record['ways']}-way "
        f"{record['shots']}-shot, protocol {record['protocol']['label']}\n"
        f"{len(first.episodes)} episodes, sha256 {record['episodes_sha256'][:12]}"
    )


def _caption(compared: Sequence[Compared]) -> str:
    tested = sum(one.difference.p is not None for one in compared)
    test = "; p by a paired permutation test" if tested else ""
    test += f", Holm-corrected for {tested} comparisons" if tested > 1 else ""
    lines = [
        "Difference to the first run, in points, with its interval by a paired bootstrap",
        f"over episodes{test}.",
    ]
    lines += [f"{one.run.record['run_id']}: {note}" for one in compared for note in one.notes]
    return "\n".join(lines)


def _entrant(run: Run) -> Text:
    return Text("\n".join([run.record["run_id"], *_names(run)]))  # Text: no markup


def _identity(run: Run) -> dict[str, Any]:
    names = dict(zip(("method", "backbone", "weights"), _names(run), strict=True))
    return {"run_id": run.record["run_id"], **names, "path": str(run.path) if run.path else None}


def _names(run: Run) -> tuple[str, str, str]:
    return Row({run.record["fold"]: run}).names
