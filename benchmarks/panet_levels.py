"""Which level and input size serve PANet best: the tables of docs/panet-levels.md.

    python benchmarks/panet_levels.py --voc ../VOC2012 -o docs/panet-levels.csv

Training-free PANet on EfficientNet-Lite0 with the packaged ImageNet weights, standard protocol, all
folds. A level or a size changes at a time.
"""

import argparse
import csv
import itertools
import sys
from pathlib import Path

import numpy as np

from fss_bench import Compute, create_backbone, create_dataset, create_method, evaluate

LEVELS = ("c3", "c4", "c5", "c5_0", "c4+c5", "c4+c5_0+c5")
SIZES = (320, 384, 417, 448)
BEST_LEVEL, BEST_SIZE = "c5_0", 384


def configurations() -> list[tuple[str, int]]:
    """(level, size): all levels at one size, all sizes at one level."""
    levels = [(level, BEST_SIZE) for level in LEVELS]
    return levels + [(BEST_LEVEL, size) for size in SIZES if size != BEST_SIZE]


def main() -> None:
    """Evaluate every configuration and write a CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voc", type=Path, required=True, help="a VOC 2012 tree")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    compute = Compute(device=arguments.device, workers=arguments.workers)
    dataset = create_dataset("pascal5i", arguments.voc)
    backbone = create_backbone("tf_efficientnet_lite0", weights="packaged")
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["level", "input_size", "shots", "fold0", "fold1", "fold2", "fold3", "miou"]
        )
        for (level, size), shots in itertools.product(configurations(), (1, 5)):
            method = create_method("panet", backbone, level=level, input_size=size)
            ious = [
                100
                * evaluate(
                    method,
                    dataset,
                    fold=fold,
                    shots=shots,
                    episodes=arguments.episodes,
                    compute=compute,
                ).metrics.miou
                for fold in range(4)
            ]
            writer.writerow(
                [level, size, shots, *(f"{v:.2f}" for v in ious), f"{np.mean(ious):.2f}"]
            )
            file.flush()
            print(level, size, shots, f"{np.mean(ious):.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
