"""Every row of docs/reliability.md: faults on purpose, then damaged files.

    python benchmarks/reliability.py

Writes results/faults.csv, results/fuzz.csv and the tables of the page; `--page` the page alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import fuzz
import inject_faults
from tables import Row, read_rows, write_page, write_rows

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def page_tables(faults: Sequence[Row], files: Sequence[Row]) -> str:
    """The tables of the page."""
    lines = [
        "## Faults on purpose",
        "",
        "| fault | injected | promised | happened |",
        "|---|---:|---|---|",
    ]
    for row in faults:
        happened = f"{row['findings']} findings" if int(row["findings"]) else "as promised"
        lines.append(
            f"| {row['fault']} | {int(row['injected']):,} | {row['promised']} | {happened} |"
        )
    return "\n".join([*lines, "", fuzz.page_table(files)])


def main() -> None:
    """Run both campaigns, or write the page from their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="from the tables that are there")
    parser.add_argument("--fuzz-cases", type=int, default=84_000, help="of each reader")
    parser.add_argument("--jobs", type=int, default=2)
    a = parser.parse_args()
    if not a.page:
        from faults import FAULTS

        rows = list(inject_faults.campaign(FAULTS, None, a.jobs))
        write_rows(inject_faults.TABLE, inject_faults.COLUMNS, rows)
        files = list(fuzz.campaign(fuzz.names(), a.fuzz_cases, a.jobs))
        write_rows(fuzz.TABLE, fuzz.COLUMNS, files)
    write_page(PAGE, page_tables(read_rows(inject_faults.TABLE), read_rows(fuzz.TABLE)))


if __name__ == "__main__":
    main()
