"""A campaign of damaged files over every reader. For results/fuzz.csv.

    python benchmarks/fuzz.py --only journal --cases 20000

Cases are numbers (tests/fuzzing.py): a finding is made again from its reader and number. Each is
printed, and belongs into tests/test_fuzzing.py. `benchmarks/reliability.py` tries all readers and
writes the page.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from tables import Row  # noqa: E402

TABLE = ROOT / "results" / "fuzz.csv"
COLUMNS = "reader,cases,read,refused,findings,seconds".split(",")
CHUNK = 2000


def run_chunk(name: str, first: int, count: int) -> tuple[Counter[str], dict[int, str], float]:
    """Outcomes of some cases, the findings among them, and seconds."""
    from fuzzing import targets

    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        (target,) = (one for one in targets(Path(folder)) if one.name == name)
        file, start = Path(folder) / f"damaged{target.suffix}", time.perf_counter()
        outcomes = {n: target.outcome(n, file) for n in range(first, first + count)}
    found = {n: text for n, text in outcomes.items() if text not in ("read", "refused")}
    counts = Counter("finding" if n in found else text for n, text in outcomes.items())
    return counts, found, time.perf_counter() - start


def names() -> list[str]:
    """Of all readers."""
    from fuzzing import targets

    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        return [target.name for target in targets(Path(folder))]


def campaign(readers: list[str], cases: int, jobs: int) -> Iterator[Row]:
    """A row a reader."""
    with ProcessPoolExecutor(jobs) as pool:
        for name in readers:
            starts = range(0, cases, CHUNK)
            chunks = [pool.submit(run_chunk, name, s, min(CHUNK, cases - s)) for s in starts]
            counts: Counter[str] = Counter()
            kinds: dict[str, int] = {}
            seconds = 0.0
            for chunk in chunks:
                one, found, spent = chunk.result()
                counts += one
                seconds += spent
                for number, text in found.items():
                    if kinds.setdefault(text[:60], number) == number:
                        print(f"{name} {number}: {text}", flush=True)
            row = {
                "reader": name,
                "cases": str(cases),
                "read": str(counts["read"]),
                "refused": str(counts["refused"]),
                "findings": str(counts["finding"]),
                "seconds": f"{seconds:.0f}",
            }
            print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
            yield row


def main() -> None:
    """Try the cases of one reader; writes no table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", required=True, choices=names())
    a = parser.parse_args()
    for _ in campaign([a.only], a.cases, a.jobs):
        pass


def page_table(rows: Sequence[Row]) -> str:
    """The table of the page."""
    total = sum(int(row["cases"]) for row in rows)
    lines = [
        "## Damaged files",
        "",
        f"{total:,} cases: a good file with one to sixteen damages (flipped bits, other bytes,",
        "cuts, drops, insertions, doublings, other numbers). A finding is anything but a reading",
        "or a line.",
        "",
        "| reader | cases | read | refused | findings |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["reader"], *(f"{int(row[k]):,}" for k in COLUMNS[1:5])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
