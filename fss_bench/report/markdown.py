"""The leaderboard as Markdown: a table a comparable group."""

import re
from collections.abc import Sequence

from fss_bench.report.grid import Cell, Grid

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")
MARKS = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}


def to_markdown(tables: Sequence[Grid]) -> str:
    """Tables with the best score of a column bold, the second underlined, shared ranks as `1=`."""
    return "\n".join(_section(table) for table in tables)


def _section(table: Grid) -> str:
    texts = [len(table.columns) - table.numbers, table.numbers]
    aligned = ["---"] * texts[0] + ["---:"] * texts[1]
    lines = [table.columns, aligned, *(map(_cell, row) for row in table.rows)]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {_escaped(table.title)}\n\n{_escaped(table.detail)}\n\n{rows}\n"


def _cell(cell: Cell) -> str:
    return MARKS[cell.mark].format(_escaped(cell.text))


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
