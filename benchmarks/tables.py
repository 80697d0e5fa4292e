"""Tables that studies share: CSV files, pages of docs, figures in percent."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

Row = dict[str, str]


def percent(value: float) -> str:
    """0.1234 as `12.34`."""
    return f"{100 * value:.2f}"


def write_rows(file: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A published table, complete or not at all."""
    from fss_bench.files import write_text

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def read_rows(file: Path) -> list[Row]:
    """A published table."""
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def write_page(page: Path, tables: str) -> None:
    """Replace what follows a page's introduction."""
    from fss_bench.files import write_text

    head = page.read_text(encoding="utf-8").partition("\n## ")[0]
    write_text(page, f"{head.rstrip()}\n\n{tables}")


def difference(row: Row, base: str) -> str:
    """Points and interval; bold where the corrected p-value is below 0.05."""
    value, low, high, p = (
        float(row[name])
        for name in (f"minus_{base}", f"minus_{base}_low", f"minus_{base}_high", f"p_{base}")
    )
    text = f"{value:+.2f}"
    text = f"**{text}**" if p < 0.05 else text
    return f"{text} ({low:+.2f} to {high:+.2f}), p {p:.3f}"
