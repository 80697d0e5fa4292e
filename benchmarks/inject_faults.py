"""Faults on purpose, many of each kind (tests/faults.py). For results/faults.csv.

    python benchmarks/inject_faults.py --only "the disk is full" --cases 5

A finding is made again from its fault and number. `benchmarks/reliability.py` runs all of them and
writes the page.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from tables import Row  # noqa: E402

if TYPE_CHECKING:
    from fault_lab import Fault, Lab, Outcome

TABLE = ROOT / "results" / "faults.csv"
COLUMNS = "fault,promised,cases,injected,findings,seconds".split(",")


def campaign(faults: "Iterable[Fault]", cases: int | None, jobs: int) -> Iterator[Row]:
    """A row a fault.

    Args:
        faults: kinds of faults.
        cases: of each; None for as many as it asks for.
        jobs: how many at once.
    """
    from fault_lab import Lab
    from faults_of_runs import full_disk, may_mount

    with tempfile.TemporaryDirectory(prefix="faults") as name:
        folder = Path(name)
        os.environ["FSS_BENCH_CACHE"] = str(folder / "cache")
        lab = Lab(folder)
        for fault in faults:
            if fault.inject is full_disk and not may_mount(folder / "disk"):
                raise SystemExit(f"{fault.name}: needs a user who may mount a small disk")
            numbers, start = range(cases or fault.cases), time.perf_counter()
            with ThreadPoolExecutor(jobs) as pool:
                outcomes = list(pool.map(partial(_case, fault, lab, folder), numbers))
            row = {
                "fault": fault.name,
                "promised": fault.promise,
                "cases": str(len(outcomes)),
                "injected": str(sum(outcome.times for outcome in outcomes)),
                "findings": str(sum(bool(outcome.found) for outcome in outcomes)),
                "seconds": f"{time.perf_counter() - start:.0f}",
            }
            print(" ".join(f"{k}={v}" for k, v in row.items() if k != "promised"), flush=True)
            yield row


def _case(fault: "Fault", lab: "Lab", folder: Path, number: int) -> "Outcome":
    with tempfile.TemporaryDirectory(dir=folder) as name:
        outcome = fault.inject(lab, number, Path(name))
    if outcome.found:
        print(f"{fault.name} {number}: {outcome.found}", flush=True)
    return outcome


def main() -> None:
    """Inject faults of one kind; writes no table."""
    from faults import FAULTS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", required=True, choices=[fault.name for fault in FAULTS])
    parser.add_argument("--cases", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    a = parser.parse_args()
    for _ in campaign([f for f in FAULTS if f.name == a.only], a.cases, a.jobs):
        pass


if __name__ == "__main__":
    main()
