"""Every row of docs/reliability.md: faults on purpose, bad data, damaged files.

    python benchmarks/reliability.py

Writes faults.csv, bad_data.csv and fuzz.csv in results/ and the tables of the page; `--page` that
alone.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fuzz
import inject_faults
from tables import Row, read_rows, write_page, write_rows

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BAD_DATA = ROOT / "results" / "bad_data.csv"
BAD_COLUMNS = "where,cases,read,refused,findings,kinds".split(",")


def bad_data(jobs: int) -> Iterator[Row]:
    """A row a reader: all kinds of bad data (tests/bad_data.py), by library and command."""
    from bad_data import all_cases

    cases = all_cases()
    with ProcessPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(_outcome, range(len(cases)), chunksize=8))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: dict[str, list[str]] = defaultdict(list)
    for case, outcome in zip(cases, outcomes, strict=True):
        good = outcome == case.expected
        counts[case.where][outcome if good else "findings"] += 1
        kinds[case.where].append(case.fault)
        if not good:
            print(f"{case.name}: {outcome}", flush=True)
    for where, found in counts.items():
        numbers = {name: str(found[name]) for name in ("read", "refused", "findings")}
        total = {"cases": str(found.total()), "kinds": "; ".join(kinds[where])}
        yield {"where": where, **numbers, **total}


def _outcome(number: int) -> str:
    from bad_data import all_cases

    return all_cases()[number].run()


def page_tables(faults: Sequence[Row], bad: Sequence[Row], files: Sequence[Row]) -> str:
    """The tables of the page."""
    parts = [_faults(faults), _bad_data(bad), fuzz.page_table(files)]
    return "\n".join(parts)


def _faults(rows: Sequence[Row]) -> str:
    lines = [
        "## Faults on purpose",
        "",
        "| fault | injected | promised | happened |",
        "|---|---:|---|---|",
    ]
    for row in rows:
        happened = f"{row['findings']} findings" if int(row["findings"]) else "as promised"
        lines.append(
            f"| {row['fault']} | {int(row['injected']):,} | {row['promised']} | {happened} |"
        )
    return "\n".join([*lines, ""])


def _bad_data(rows: Sequence[Row]) -> str:
    lines = [
        "## Bad data",
        "",
        f"{sum(int(row['cases']) for row in rows)} cases, made one by one (`tests/bad_data.py`;",
        "their names: `results/bad_data.csv`). Of each it is stated whether it is read rightly or",
        "refused in one line, and with which words: by the library, the command and `data verify`.",
        "",
        "| read by | cases | read rightly | refused | findings |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [f"| {' | '.join(row[name] for name in BAD_COLUMNS[:5])} |" for row in rows]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run all campaigns, or write the page from their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="from the tables that are there")
    parser.add_argument("--fuzz-cases", type=int, default=84_000, help="of each reader")
    parser.add_argument("--jobs", type=int, default=2)
    a = parser.parse_args()
    if not a.page:
        from faults import FAULTS

        rows = list(inject_faults.campaign(FAULTS, None, a.jobs))
        write_rows(inject_faults.TABLE, inject_faults.COLUMNS, rows)
        write_rows(BAD_DATA, BAD_COLUMNS, bad_data(a.jobs))
        files = list(fuzz.campaign(fuzz.names(), a.fuzz_cases, a.jobs))
        write_rows(fuzz.TABLE, fuzz.COLUMNS, files)
    tables = map(read_rows, (inject_faults.TABLE, BAD_DATA, fuzz.TABLE))
    write_page(PAGE, page_tables(*tables))


if __name__ == "__main__":
    main()
