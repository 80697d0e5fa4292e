"""The leaderboard as LaTeX tables (package booktabs): one a comparable group."""

from collections.abc import Sequence

from fss_bench.report.grid import Cell, Grid

ESCAPES = {
    "\\": r"\textbackslash{}",
    **{special: f"\\{special}" for special in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
MARKS = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}
INTERVALS = ("95 % CI", "ranks")
"""Columns whose hyphen is a range."""


def to_latex(tables: Sequence[Grid]) -> str:
    """Tables with the best score of a column bold, the second underlined, shared ranks as $1^=$."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(map(_table, tables))


def _table(table: Grid) -> str:
    left = len(table.columns) - table.numbers
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(table.title)}. {_escaped(table.detail)}.}}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * table.numbers}}}",
        r"\toprule",
        _line([_escaped(name) for name in table.columns]),
        r"\midrule",
        *(_line(_row(table.columns, row)) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(columns: Sequence[str], row: Sequence[Cell]) -> list[str]:
    cells = [MARKS[cell.mark].format(_escaped(cell.text)) for cell in row]
    if cells[0].endswith("="):
        cells[0] = f"${cells[0][:-1]}^=$"
    ranges = [name in INTERVALS for name in columns]
    return [
        text.replace("-", "--") if is_range else text
        for text, is_range in zip(cells, ranges, strict=True)
    ]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in " ".join(text.split()))
