"""Does a self-supervised backbone segment novel classes better? For docs/self-supervised.md.

    python benchmarks/pretrained_weights.py --voc ../VOC2012 --photographs voc-train coco

Pretrains two small backbones with MoCo v2 on the photographs, then evaluates random weights of
two seeds, MoCo's and, where there are any, packaged ImageNet weights: two methods without
training (PANet, and the nearest pixel of examples/nearest_pixel.py), two levels, 1 and 5 shots, all
folds of PASCAL-5i and of shapes. Writes results/pretrained_weights.csv and the tables of
docs/self-supervised.md. Can be interrupted; the same command goes on.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tables import Row, difference, percent, write_page, write_rows

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "pretrained_weights.csv"
PAGE = ROOT / "docs" / "self-supervised.md"
METHODS = ("panet", "nearest_pixel")
DATASETS = ("pascal5i", "shapes")
SHOTS = (1, 5)
RANDOM = ("random 0", "random 1")
"""Called by their seed."""
WEIGHTS = {
    "tf_efficientnet_lite0": (*RANDOM, "moco", "imagenet"),
    "resnet10t": (*RANDOM, "moco"),
}
"""Backbone -> what is evaluated; nobody packages ImageNet weights of the second."""
LEVELS = {"tf_efficientnet_lite0": ("c4", "c5_0"), "resnet10t": ("c4", "c5")}
SIZES = {"tf_efficientnet_lite0": 384, "resnet10t": 192}
"""Input side, px: ImageNet's weights work best at 384; MoCo's were trained on views of 96."""
MOCO = {
    "tf_efficientnet_lite0": "--batch-size 32 --epochs 90 --option optimiser=adamw "
    "--option lr=0.004 --option weight_decay=0.05 --option warmup_epochs=5 "
    "--option crop_min=0.3 --option queue_size=256",
    "resnet10t": "--batch-size 64 --epochs 120 --option lr=0.12 --option queue_size=512",
}
"""Backbone -> arguments of `fss-bench pretrain moco` beside `SMALL`."""
SMALL = "--image-size 96 --option bn_groups=2 --option momentum=0.99 --option temperature=0.1"
PAIRS = (("random 0", "moco"), ("random 0", "imagenet"), ("moco", "imagenet"))
"""What is tested: the second against the first."""
COLUMNS = (
    "backbone,dataset,method,level,shots,weights,sha256,episodes,fold0,fold1,fold2,fold3,miou,ci_low,ci_high,"
    "minus_random,minus_random_low,minus_random_high,p_random,"
    "minus_moco,minus_moco_low,minus_moco_high,p_moco"
).split(",")
"""Percent and points; p-values of paired permutation tests, Holm's correction over all of them."""
Cell = tuple[str, str, str, str, int]
"""Backbone, dataset, method, level, shots."""


def pretrain(backbone: str, a: argparse.Namespace) -> None:
    """MoCo v2 on the photographs; finished, it is not repeated."""
    folders = [word for folder in a.photographs for word in ("--images", folder)]
    words = [
        *(sys.executable, "-m", "fss_bench", "pretrain", "moco", *folders),
        *("--backbone", backbone, *SMALL.split(), *MOCO[backbone].split()),
        *("--output", a.runs / "moco" / backbone, "--workers", a.workers),
        *(("--knn", a.knn) if a.knn else ()),
    ]
    subprocess.run([str(word) for word in words], check=True)


def evaluate(
    backbone: str, dataset: str, method: str, level: str, weights: str, a: argparse.Namespace
) -> None:
    """All folds, 1 and 5 shots of one kind of weights."""
    kind, _, seed = weights.partition(" ")
    trained = a.runs / "moco" / backbone / "weights.safetensors"
    source = {"random": "none", "moco": trained, "imagenet": "packaged"}[kind]
    words = [
        *(sys.executable, "-m", "fss_bench", "evaluate", method),
        *("--plugin", ROOT / "examples" / "nearest_pixel.py", "--dataset", dataset),
        *(("--data-root", a.voc) if dataset == "pascal5i" else ()),
        *("--fold", "all", "--shots", ",".join(map(str, SHOTS)), "--episodes", a.episodes),
        *("--backbone", backbone, "--weights", source, "--option", f"level={level}"),
        *("--option", f"input_size={SIZES[backbone]}"),
        *(("--backbone-option", f"seed={seed}") if seed else ()),
        *("--output", a.runs / weights.replace(" ", "-"), "--workers", a.workers, "--json"),
    ]
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def publish(runs: Path) -> None:
    """The table and the page from the runs."""
    rows = list(measure(runs))
    write_rows(TABLE, COLUMNS, rows)
    write_page(PAGE, tables(rows))


def measure(runs: Path) -> Iterator[Row]:
    """A row a setting and kind of weights."""
    from fss_bench.comparison import Difference, compare_folds
    from fss_bench.statistics import holm

    every = dict.fromkeys(name for names in WEIGHTS.values() for name in names)
    found = {weights: _by_cell(runs / weights.replace(" ", "-")) for weights in every}
    tested: dict[tuple[Cell, str, str], Difference] = {
        (cell, first, second): compare_folds(found[first][cell], found[second][cell], p_value=True)
        for cell in cells()
        for first, second in PAIRS
        if second in WEIGHTS[cell[0]]
    }
    corrected = dict(zip(tested, holm([d.p or 0.0 for d in tested.values()]), strict=True))
    for cell, weights in ((c, w) for c in cells() for w in WEIGHTS[c[0]]):
        row = _row(cell, weights, found[weights][cell])
        for base in ("random 0", "moco"):
            if d := tested.get((cell, base, weights)):
                name = base.partition(" ")[0]
                low, high = d.ci95
                difference = d.second - d.first
                row |= {
                    f"minus_{name}": percent(difference),
                    f"minus_{name}_low": percent(low),
                    f"minus_{name}_high": percent(high),
                    f"p_{name}": f"{corrected[cell, base, weights]:.4f}",
                }
        yield row


def cells() -> Iterator[Cell]:
    """All settings of the study."""
    for backbone in WEIGHTS:
        for dataset, method in product(DATASETS, METHODS):
            for level, shots in product(LEVELS[backbone], SHOTS):
                yield backbone, dataset, method, level, shots


def _by_cell(folder: Path) -> dict[Cell, list[Any]]:
    """Runs of a results folder, in the order of their folds."""
    from fss_bench.results import ResultStore

    cells: dict[Cell, list[Any]] = {}
    for run in sorted(ResultStore(folder).runs(), key=lambda run: run.record["fold"]):
        r = run.record
        level = r["method_options"]["level"]
        dataset = r["dataset"]["name"].partition("@")[0]  # whatever part of it
        cell = (r["backbone"], dataset, r["method"], level, r["shots"])
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
        **{f"fold{i}": percent(value) for i, value in enumerate(folds)},
        "miou": percent(sum(folds) / len(folds)),
        "ci_low": percent(low),
        "ci_high": percent(high),
    }
    named = dict(zip(COLUMNS[:5], map(str, cell), strict=True))
    return {**dict.fromkeys(COLUMNS, ""), **named, **values}


def tables(rows: Sequence[Row]) -> str:
    """The part of docs/self-supervised.md from its first table on."""
    found = []
    for backbone, dataset, shots in product(WEIGHTS, DATASETS, map(str, SHOTS)):
        wanted = (backbone, dataset, shots)
        own = [row for row in rows if (row["backbone"], row["dataset"], row["shots"]) == wanted]
        found.append(f"## {backbone}, {dataset}, {shots}-shot\n\n{table(own, backbone)}\n")
    return "\n".join(found)


def table(rows: Sequence[Row], backbone: str) -> str:
    """A row a method and level."""
    kinds = [name for name in WEIGHTS[backbone] if name not in RANDOM]
    heads = ["MoCo", "MoCo - random", "ImageNet", "ImageNet - random", "ImageNet - MoCo"]
    heads = heads if "imagenet" in kinds else heads[:2]
    lines = [f"| method, level | random | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for method, level in product(METHODS, LEVELS[backbone]):
        own = {r["weights"]: r for r in rows if (r["method"], r["level"]) == (method, level)}
        seeds = [float(own[name]["miou"]) for name in RANDOM]
        cells = [f"{sum(seeds) / len(seeds):.2f} ({min(seeds):.2f} to {max(seeds):.2f})"]
        for kind in kinds:
            row = own[kind]
            cells += [f"{row['miou']} ({row['ci_low']} to {row['ci_high']})"]
            cells += [difference(row, base) for base in ("random", "moco") if row[f"p_{base}"]]
        lines.append(f"| {method}, {level} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Pretrain, evaluate, then write what is published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voc", type=Path, required=True, help="a VOC 2012 tree")
    parser.add_argument("--photographs", type=Path, nargs="+", default=[], help="for MoCo")
    parser.add_argument("--knn", type=Path, help="labelled folders to watch MoCo with")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("pretrained-weights-runs"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="", help="one kind of weights; publishes nothing")
    arguments = parser.parse_args()
    for backbone in WEIGHTS:
        if arguments.only in ("", "moco"):
            pretrain(backbone, arguments)
        for dataset, method, level in product(DATASETS, METHODS, LEVELS[backbone]):
            for weights in WEIGHTS[backbone]:
                if weights.startswith(arguments.only):
                    evaluate(backbone, dataset, method, level, weights, arguments)
    if not arguments.only:
        publish(arguments.runs)


if __name__ == "__main__":
    main()
