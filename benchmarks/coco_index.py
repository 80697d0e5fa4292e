"""Start-up at the size of COCO: our warm index beside pycocotools' own index, in one run.

    python benchmarks/coco_index.py --folder coco-sized

Makes a COCO 2017 tree of the real numbers of images and annotations (polygons of random shapes; the
image files are empty, but for those of the first episode), then measures each in a process of its
own. Memory is the largest resident set beyond that of the imports.
"""

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = {"train": (118287, 860001), "val": (5000, 36781)}
"""Images and annotations of COCO 2017."""
SIZE = (480, 640)
CROWD = 0.01
"""Share of annotations that are crowd regions, with run-length codes."""

PRELUDE = """
import resource, sys, time
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
root = sys.argv[1]
"""
TASKS = {
    "pycocotools": """
        from pycocotools.coco import COCO
        before, start = peak(), time.perf_counter()
        files = [COCO(f"{root}/annotations/instances_{s}2017.json") for s in ("train", "val")]
        coco = files[1]
        first = coco.getImgIds(catIds=[1])[0]
        masks = [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(first))]
    """,
    "cold": """
        import fss_bench
        before, start = peak(), time.perf_counter()
        fss_bench.create_dataset("coco20i", root).index.fingerprint
    """,
    "warm": """
        import fss_bench, pandas, pyarrow.parquet, cv2
        from pathlib import Path
        from fss_bench.loading import EpisodeLoader, Step
        from fss_bench.setting import create_setting
        before, start = peak(), time.perf_counter()
        dataset = fss_bench.create_dataset("coco20i", Path(root))
        setting = create_setting(dataset, fold=0, shots=1, episodes=1)
        EpisodeLoader(dataset, setting.protocol, [], 417).episode(setting.specs[0])
    """,
    "20,000 five-shot specs": """
        import fss_bench, pandas, pyarrow.parquet
        from pathlib import Path
        from fss_bench.setting import create_setting
        dataset = fss_bench.create_dataset("coco20i", Path(root))
        dataset.index.fingerprint
        before, start = peak(), time.perf_counter()
        create_setting(dataset, fold=0, shots=5, episodes=20000).sha256
    """,
}
FIRST_IMAGES = """
from pathlib import Path
import fss_bench, cv2, numpy, sys
from fss_bench.setting import create_setting
dataset = fss_bench.create_dataset("coco20i", Path(sys.argv[1]))
for image in create_setting(dataset, fold=0, shots=1, episodes=1).specs[0].images:
    path = dataset.files_of(image)[0]
    cv2.imwrite(str(path), numpy.zeros((480, 640, 3), dtype=numpy.uint8))
"""


def make(root: Path, scale: float) -> None:
    """The tree, once; `scale` is its share of COCO's size."""
    done = root / f"made-{scale:g}"
    if done.exists():
        return
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, counts in SPLITS.items():
        images, annotations = (max(200, round(scale * n)) for n in counts)
        (root / f"{split}2017").mkdir(exist_ok=True)
        ids = np.sort(rng.choice(581929, images, replace=False)).tolist()
        for image in ids:
            (root / f"{split}2017" / f"{image:012d}.jpg").touch()
        content = {
            "info": {},
            "licenses": [],
            "categories": categories(),
            "images": [
                {
                    "id": i,
                    "file_name": f"{i:012d}.jpg",
                    "height": SIZE[0],
                    "width": SIZE[1],
                    "license": 1,
                    "coco_url": f"http://images.example/{i:012d}.jpg",
                    "date_captured": "2013-11-14 17:02:52",
                }
                for i in ids
            ],
            "annotations": [annotation(rng, n, ids) for n in range(annotations)],
        }
        text = json.dumps(content)
        (root / "annotations" / f"instances_{split}2017.json").write_text(text, encoding="utf-8")
    done.touch()


def categories() -> list[dict[str, Any]]:
    """COCO's names with consecutive ids; the real ones have gaps, which costs nobody anything."""
    from fss_bench.datasets.coco20i import CLASSES

    return [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(CLASSES, start=1)]


def annotation(rng: np.random.Generator, number: int, ids: list[int]) -> dict[str, Any]:
    """A blob of 20 to 60 corners, or a crowd region."""
    image = ids[int(rng.integers(len(ids)))]
    x, y = rng.uniform(0, SIZE[1]), rng.uniform(0, SIZE[0])
    radius = float(np.exp(rng.uniform(2, 5)))
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(20, 60)), endpoint=False)
    lengths = radius * rng.uniform(0.6, 1, len(angles))
    corners = np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], axis=1)
    corners = np.clip(corners, 0, [SIZE[1], SIZE[0]]).round(2)
    crowd = rng.random() < CROWD
    top = int(np.clip(y, 0, SIZE[0] - 20)) * SIZE[1]
    counts = [top, 5000, SIZE[0] * SIZE[1] - top - 5000]
    return {
        "id": number,
        "image_id": image,
        "category_id": int(rng.integers(1, 81)),
        "iscrowd": int(crowd),
        "area": radius**2,
        "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
        "segmentation": {"size": list(SIZE), "counts": counts}
        if crowd
        else [corners.flatten().tolist()],
    }


def measure(name: str, root: Path) -> tuple[float, float]:
    """Seconds and MB of a task, in a process of its own."""
    code = PRELUDE + textwrap.dedent(TASKS[name])
    code += "\nprint(time.perf_counter() - start, peak() - before)\n"
    words = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    return seconds, megabytes


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("coco-sized"))
    parser.add_argument("--scale", type=float, default=1.0, help="share of COCO's size")
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    make(a.folder, a.scale)
    cold = measure("cold", a.folder)
    print(f"{'index built, or found':<28}{cold[0]:>10.2f} s{cold[1]:>10.0f} MB")
    subprocess.run([sys.executable, "-c", FIRST_IMAGES, str(a.folder)], check=True)
    found = {name: [] for name in TASKS if name != "cold"}
    for _ in range(a.repeats):
        for name, figures in found.items():
            figures.append(measure(name, a.folder))
    for name, figures in found.items():
        seconds, megabytes = (np.median([f[i] for f in figures]) for i in (0, 1))
        spread = max(f[0] for f in figures) - min(f[0] for f in figures)
        print(f"{name:<28}{seconds:>10.2f} s{megabytes:>10.0f} MB   (spread {spread:.2f} s)")
    ours, theirs = (np.median(found[name], axis=0) for name in ("warm", "pycocotools"))
    print(f"first episode, warm: {theirs[0] / ours[0]:.0f} times quicker than pycocotools' index,")
    print(f"with {ours[1] / theirs[1]:.1%} of its memory")


if __name__ == "__main__":
    main()
