"""What the default tests reach, a row a module. For results/coverage.csv; `make coverage` runs it.

    python benchmarks/coverage_table.py COVERAGE.json TABLE.csv

Exits with 1 where less than FLOOR of all branches are taken, or of all statements run: coverage's
own `fail_under` counts both together.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tables import Row, percent, write_rows

COLUMNS = "module,statements,branches,statement_percent,branch_percent".split(",")
FLOOR = 90


def share(covered: int, all_of_them: int) -> float:
    """Of nothing, everything is covered."""
    return covered / all_of_them if all_of_them else 1.0


def row(module: str, counts: dict[str, Any]) -> Row:
    """A row of the table from coverage's summary of a file."""
    lines, branches = counts["num_statements"], counts["num_branches"]
    return {
        "module": module,
        "statements": str(lines),
        "branches": str(branches),
        "statement_percent": percent(share(counts["covered_lines"], lines)),
        "branch_percent": percent(share(counts["covered_branches"], branches)),
    }


def main(report: Path, table: Path) -> int:
    """Write the table; the exit status."""
    found = json.loads(report.read_text(encoding="utf-8"))
    rows = [row(file, one["summary"]) for file, one in sorted(found["files"].items())]
    total = row("total", found["totals"])
    write_rows(table, COLUMNS, [*rows, total])
    statements, branches = total["statement_percent"], total["branch_percent"]
    print(f"{statements} % of statements, {branches} % of branches; at least {FLOOR} % wanted")
    return int(min(float(statements), float(branches)) < FLOOR)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
