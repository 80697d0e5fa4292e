"""Does a self-supervised backbone segment novel classes better? For docs/self-supervised.md.

    python benchmarks/pretrained_weights.py --voc ../VOC2012 --moco moco-lite0/weights.safetensors

One backbone (EfficientNet-Lite0) with random weights of three seeds, the packaged ImageNet weights
and MoCo's; two methods without training (PANet, and the nearest pixel of
examples/nearest_pixel.py); two levels; 1 and 5 shots; all folds of PASCAL-5i and of shapes. Writes
the runs to `--runs`, and from them results/pretrained_weights.csv and the tables of
docs/self-supervised.md. Can be interrupted; the same command goes on.
"""

import argparse
import csv
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "pretrained_weights.csv"
PAGE = ROOT / "docs" / "self-supervised.md"
BACKBONE = "tf_efficientnet_lite0"
METHODS = ("panet", "nearest_pixel")
LEVELS = ("c4", "c5_0")
DATASETS = ("pascal5i", "shapes")
SHOTS = (1, 5)
WEIGHTS = ("random 0", "random 1", "random 2", "moco", "imagenet")
"""Random ones are called by their seed."""
PAIRS = (("random 0", "moco"), ("random 0", "imagenet"), ("moco", "imagenet"))
"""What is tested: the second against the first."""
COLUMNS = (
    "dataset,method,level,shots,weights,sha256,episodes,fold0,fold1,fold2,fold3,miou,ci_low,ci_high,"
    "minus_random,minus_random_low,minus_random_high,p_random,"
    "minus_moco,minus_moco_low,minus_moco_high,p_moco"
).split(",")
"""Percent and points; p-values of paired permutation tests, Holm's correction over all of them."""
Row = dict[str, str]
Cell = tuple[str, str, str, int]
"""Dataset, method, level, shots."""


def evaluate(dataset: str, method: str, level: str, weights: str, a: argparse.Namespace) -> None:
    """All folds, 1 and 5 shots of one dataset, method, level and kind of weights."""
    kind, _, seed = weights.partition(" ")
    source = {"random": "none", "moco": str(a.moco), "imagenet": "packaged"}[kind]
    words = [
        *(sys.executable, "-m", "fss_bench", "evaluate", method),
        *("--plugin", ROOT / "examples" / "nearest_pixel.py", "--dataset", dataset),
        *(("--data-root", a.voc) if dataset == "pascal5i" else ()),
        *("--fold", "all", "--shots", ",".join(map(str, SHOTS)), "--episodes", a.episodes),
        *("--backbone", BACKBONE, "--weights", source, "--option", f"level={level}"),
        *(("--backbone-option", f"seed={seed}") if seed else ()),
        *("--output", a.runs / weights.replace(" ", "-"), "--workers", a.workers, "--json"),
    ]
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def publish(runs: Path) -> None:
    """The table and the page from the runs."""
    from fss_bench.results import write_text

    rows = list(measure(runs))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(TABLE, text.getvalue())
    head = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    write_text(PAGE, f"{head.rstrip()}\n\n{tables(rows)}")


def measure(runs: Path) -> Iterator[Row]:
    """A row a setting and kind of weights."""
    from fss_bench.comparison import Difference, compare_folds
    from fss_bench.statistics import holm

    found = {weights: _by_cell(runs / weights.replace(" ", "-")) for weights in WEIGHTS}
    cells = list(product(DATASETS, METHODS, LEVELS, SHOTS))
    tested: dict[tuple[Cell, str, str], Difference] = {
        (cell, first, second): compare_folds(found[first][cell], found[second][cell], p_value=True)
        for cell in cells
        for first, second in PAIRS
    }
    corrected = dict(zip(tested, holm([d.p or 0.0 for d in tested.values()]), strict=True))
    for cell, weights in product(cells, WEIGHTS):
        row = _row(cell, weights, found[weights][cell])
        for base in ("random 0", "moco"):
            if d := tested.get((cell, base, weights)):
                name = base.partition(" ")[0]
                low, high = d.ci95
                difference = d.second - d.first
                row |= {
                    f"minus_{name}": _percent(difference),
                    f"minus_{name}_low": _percent(low),
                    f"minus_{name}_high": _percent(high),
                    f"p_{name}": f"{corrected[cell, base, weights]:.4f}",
                }
        yield row


def _by_cell(folder: Path) -> dict[Cell, list[Any]]:
    """Runs of a results folder, in the order of their folds."""
    from fss_bench.results import ResultStore

    cells: dict[Cell, list[Any]] = {}
    for run in sorted(ResultStore(folder).runs(), key=lambda run: run.record["fold"]):
        r = run.record
        cell = (r["dataset"]["name"], r["method"], r["method_options"]["level"], r["shots"])
        cells.setdefault(cell, []).append(run)
    return cells


def _row(cell: Cell, weights: str, runs: Sequence[Any]) -> Row:
    from fss_bench.metrics import class_counts
    from fss_bench.statistics import bootstrap_mean_iou

    low, high = bootstrap_mean_iou([class_counts(run.episodes) for run in runs])
    folds = [run.metrics.miou for run in runs]
    values = {
        "weights": weights,
        "sha256": str(runs[0].record["weights"]["sha256"])[:12],
        "episodes": str(sum(len(run.episodes) for run in runs)),
        **{f"fold{i}": _percent(value) for i, value in enumerate(folds)},
        "miou": _percent(sum(folds) / len(folds)),
        "ci_low": _percent(low),
        "ci_high": _percent(high),
    }
    named = dict(zip(("dataset", "method", "level", "shots"), map(str, cell), strict=True))
    return {**dict.fromkeys(COLUMNS, ""), **named, **values}


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def tables(rows: Sequence[Row]) -> str:
    """The part of docs/self-supervised.md from its first table on."""
    found = []
    for dataset, shots in product(DATASETS, map(str, SHOTS)):
        own = [row for row in rows if (row["dataset"], row["shots"]) == (dataset, shots)]
        found.append(f"## {dataset}, {shots}-shot\n\n{table(own)}\n")
    return "\n".join(found)


def table(rows: Sequence[Row]) -> str:
    """A row a method and level."""
    lines = [
        "| method, level | random | MoCo | ImageNet | MoCo - random | ImageNet - MoCo |",
        "|---|---|---|---|---|---|",
    ]
    for method, level in product(METHODS, LEVELS):
        own = {r["weights"]: r for r in rows if (r["method"], r["level"]) == (method, level)}
        seeds = [float(own[name]["miou"]) for name in WEIGHTS if name.startswith("random")]
        moco, imagenet = own["moco"], own["imagenet"]
        cells = (
            f"{sum(seeds) / len(seeds):.2f} ({min(seeds):.2f} to {max(seeds):.2f})",
            *(f"{r['miou']} ({r['ci_low']} to {r['ci_high']})" for r in (moco, imagenet)),
            difference(moco, "random"),
            difference(imagenet, "moco"),
        )
        lines.append(f"| {method}, {level} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference(row: Row, base: str) -> str:
    """Points and interval; bold where the corrected p-value is below 0.05."""
    value, low, high, p = (
        float(row[name])
        for name in (f"minus_{base}", f"minus_{base}_low", f"minus_{base}_high", f"p_{base}")
    )
    text = f"{value:+.2f}"
    text = f"**{text}**" if p < 0.05 else text
    return f"{text} ({low:+.2f} to {high:+.2f}), p {p:.3f}"


def read_rows(file: Path) -> list[Row]:
    """The published table."""
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def main() -> None:
    """Evaluate, then write what is published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voc", type=Path, required=True, help="a VOC 2012 tree")
    parser.add_argument("--moco", type=Path, required=True, help="weights of fss-bench pretrain")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("pretrained-weights-runs"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="", help="one kind of weights; publishes nothing")
    arguments = parser.parse_args()
    for dataset, method, level, weights in product(DATASETS, METHODS, LEVELS, WEIGHTS):
        if weights.startswith(arguments.only):
            evaluate(dataset, method, level, weights, arguments)
    if not arguments.only:
        publish(arguments.runs)


if __name__ == "__main__":
    main()
