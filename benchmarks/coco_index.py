"""Start-up at the size of COCO: our warm index beside pycocotools' own index, in one run.

    python benchmarks/coco_index.py --folder coco-sized --output figures.json

Makes a COCO 2017 tree with the real numbers of images and annotations and files of about the real
size (polygons of random shapes, classes by chance; the image files are empty, but for those of the
first episode). Then measures each task in a process of its own, without its imports: seconds, those
of all cores, and memory beyond that before the task, at its peak and what is held at the end. Needs
Linux.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = {"train": (118287, 860001), "val": (5000, 36781)}
"""Images and annotations of COCO 2017."""
FEWEST = 200
"""Images and annotations of a split, whatever its scale."""
SIZE = (480, 640)
CORNERS = (8, 37)
"""Fewest of a polygon, and one above the most. COCO 2017 val has 22 in the mean, 494 bytes each."""
CROWD = 0.01
"""Share of annotations that are crowd regions, with run-length codes."""
LIBRARIES = ("numpy", "pandas", "pyarrow", "pycocotools", "torch")

Figures = dict[str, Any]
"""Of one task: `seconds`, `cpu_seconds`, `peak_mb`, `held_mb`; `process_seconds` with imports; a
`digest`."""


# --- tasks: each imports what it needs and returns what is measured


def pycocotools_index(root: Path) -> Callable[[], object]:
    """Both files, and the masks of one image."""
    from pycocotools.coco import COCO

    def run() -> object:
        files = [COCO(root / "annotations" / f"instances_{s}2017.json") for s in ("train", "val")]
        coco = files[1]
        first = coco.getImgIds(catIds=[1])[0]
        return files, [coco.annToMask(a) for a in coco.loadAnns(coco.getAnnIds(first))]

    return run


def cold_index(root: Path) -> Callable[[], object]:
    """The index, whether or not it is cached. Memory is that of the main process."""
    from fss_bench import create_dataset

    return lambda: create_dataset("coco20i", root).build_index(rebuild=True)


def first_episode(root: Path) -> Callable[[], object]:
    """From the folder's name to the tensors of an episode."""
    import cv2  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    import fss_bench.datasets.coco20i  # noqa: F401
    from fss_bench import create_dataset
    from fss_bench.loading import EpisodeLoader
    from fss_bench.setting import create_setting

    def run() -> object:
        dataset = create_dataset("coco20i", root)
        setting = create_setting(dataset, fold=0, shots=1, episodes=1)
        return dataset, EpisodeLoader(dataset, setting.protocol, [], 417).episode(setting.specs[0])

    return run


def specs(root: Path) -> Callable[[], object]:
    """From the folder's name to 20,000 five-shot specs and their digest."""
    import pandas  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    import fss_bench.datasets.coco20i  # noqa: F401
    from fss_bench import create_dataset
    from fss_bench.setting import create_setting

    def run() -> object:
        dataset = create_dataset("coco20i", root)
        setting = create_setting(dataset, fold=0, shots=5, episodes=20000)
        print("digest", setting.sha256)
        return dataset, setting

    return run


TASKS = {
    "pycocotools": ("index of pycocotools", pycocotools_index),
    "cold": ("cold index", cold_index),
    "warm": ("warm index, first episode", first_episode),
    "specs": ("20,000 five-shot specs", specs),
}
REPEATED = ("pycocotools", "warm", "specs")


# --- the tree


def make(root: Path, scale: float) -> None:
    """The tree, once; `scale` is its share of COCO's size."""
    done = root / f"made-{scale:g}"
    if done.exists():
        return
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, counts in SPLITS.items():
        images, annotations = (max(FEWEST, round(scale * n)) for n in counts)
        (root / f"{split}2017").mkdir(exist_ok=True)
        ids = np.sort(rng.choice(581929, images, replace=False)).tolist()
        for image in ids:
            (root / f"{split}2017" / f"{image:012d}.jpg").touch()
        write_annotations(
            root / "annotations" / f"instances_{split}2017.json",
            {"categories": categories(), "images": [image_object(split, i) for i in ids]},
            (annotation(rng, n, ids) for n in range(annotations)),
        )
    done.touch()


def write_annotations(file: Path, head: dict[str, Any], rows: Iterable[dict[str, Any]]) -> None:
    """A file of COCO's form; its annotations are never all in memory."""
    with file.open("w", encoding="utf-8") as out:
        out.write(json.dumps(head)[:-1] + ', "annotations": [')
        for n, row in enumerate(rows):
            out.write((", " if n else "") + json.dumps(row))
        out.write("]}")


def categories() -> list[dict[str, Any]]:
    """COCO's names with consecutive ids; the real ones have gaps, which costs nobody anything."""
    from fss_bench.datasets.coco20i import CLASSES

    return [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(CLASSES, start=1)]


def image_object(split: str, image: int) -> dict[str, Any]:
    """What COCO's files tell of an image, at their length."""
    return {
        "license": 1,
        "file_name": f"{image:012d}.jpg",
        "coco_url": f"http://images.example.org/{split}2017/{image:012d}.jpg",
        "height": SIZE[0],
        "width": SIZE[1],
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": "http://farm7.example.com/6116/6255196340_da26cf2c9e_z.jpg",
        "id": image,
    }


def annotation(rng: np.random.Generator, number: int, ids: Sequence[int]) -> dict[str, Any]:
    """A blob, or a crowd region."""
    image = ids[int(rng.integers(len(ids)))]
    x, y = rng.uniform(0, SIZE[1]), rng.uniform(0, SIZE[0])
    radius = float(np.exp(rng.uniform(2, 5)))
    crowd = rng.random() < CROWD
    return {
        "segmentation": crowd_region(y) if crowd else [blob(rng, x, y, radius)],
        "area": radius**2,
        "iscrowd": int(crowd),
        "image_id": image,
        "bbox": [round(v, 2) for v in (x - radius, y - radius, 2 * radius, 2 * radius)],
        "category_id": int(rng.integers(1, 81)),
        "id": number,
    }


def blob(rng: np.random.Generator, x: float, y: float, radius: float) -> list[float]:
    """Corners around a point, within the image."""
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(*CORNERS)), endpoint=False)
    lengths = radius * rng.uniform(0.6, 1, len(angles))
    corners = np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], axis=1)
    found: list[float] = np.clip(corners, 0, [SIZE[1], SIZE[0]]).round(2).flatten().tolist()
    return found


def crowd_region(y: float) -> dict[str, Any]:
    """Some columns, as a run-length code."""
    top = int(np.clip(y, 0, SIZE[0] - 20)) * SIZE[1]
    return {"size": list(SIZE), "counts": [top, 5000, SIZE[0] * SIZE[1] - top - 5000]}


def write_first_images(root: Path) -> None:
    """Photographs for the first episode: all others are empty files."""
    import cv2

    from fss_bench import create_dataset
    from fss_bench.setting import create_setting

    dataset = create_dataset("coco20i", root)
    for image in create_setting(dataset, fold=0, shots=1, episodes=1).specs[0].images:
        noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(dataset.files_of(image)[0]), noise)


# --- measuring


def memory_mb(entry: str) -> float:
    """An entry of this process's status.

    Not `ru_maxrss`: a process takes over that of the one which started it.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")) / 1024


def cpu_seconds() -> float:
    """Of this process and of those that it started and that are done."""
    return sum(os.times()[:4])


def run_task(name: str, root: Path) -> Figures:
    """Imports, then the task itself, measured in this process."""
    run = TASKS[name][1](root)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is that of now
    before, start, cpu = memory_mb("VmRSS"), time.perf_counter(), cpu_seconds()
    kept = run()
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - cpu,
        "peak_mb": memory_mb("VmHWM") - before,
        "held_mb": memory_mb("VmRSS") - before,
    }
    del kept
    return figures


def measure(name: str, root: Path) -> Figures:
    """A task in a process of its own."""
    words = [sys.executable, __file__, "--folder", str(root), "--task", name]
    start = time.perf_counter()
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    *told, figures = done.stdout.splitlines()
    digest = next((line.split()[1] for line in told if line.startswith("digest ")), None)
    return {
        **json.loads(figures),
        "process_seconds": time.perf_counter() - start,
        "digest": digest,
    }


def measure_all(root: Path, builds: int, repeats: int) -> dict[str, list[Figures]]:
    """Every task; those that are repeated take turns."""
    found = {"cold": [measure("cold", root) for _ in range(builds)]}
    write_first_images(root)
    for _ in range(repeats):
        for name in REPEATED:
            found.setdefault(name, []).append(measure(name, root))
    return found


# --- telling


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.partition(":")[2].strip() for line in cpu.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "cpu": next(iter(names), platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "load_at_the_end": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def tree(root: Path) -> dict[str, Any]:
    """What was measured."""
    from fss_bench import create_dataset

    dataset = create_dataset("coco20i", root)
    files = [f for f in dataset.source_files() if f.is_file()]
    return {
        "splits": dataset.index.facts,
        "annotation_files_mb": round(sum(f.stat().st_size for f in files) / 1e6, 1),
        "fingerprint": dataset.index.fingerprint,
    }


def told(found: dict[str, list[Figures]]) -> Iterator[str]:
    """The table, in medians with least and most, and how the warm index compares."""
    yield f"{'':<28}{'seconds':>24}{'CPU s':>22}{'peak MB':>18}{'held MB':>9}{'+ imports, s':>14}"
    for name, rows in found.items():
        if rows:
            yield (
                f"{TASKS[name][0]:<28}{spread(rows, 'seconds', 3):>24}"
                f"{spread(rows, 'cpu_seconds', 2):>22}{spread(rows, 'peak_mb', 0):>18}"
                f"{median(rows, 'held_mb'):>9.0f}{median(rows, 'process_seconds'):>14.2f}"
            )
    theirs, ours = found["pycocotools"], found["warm"]
    yield (
        f"first episode from the warm index: {ratio(theirs, ours, 'seconds')} times as fast as the "
        f"index of pycocotools ({ratio(theirs, ours, 'cpu_seconds')} in CPU seconds), with "
        f"1/{ratio(theirs, ours, 'peak_mb')} of its memory at the peak, "
        f"1/{ratio(theirs, ours, 'held_mb')} held"
    )
    yield f"digest of the specs: {', '.join({row['digest'] for row in found['specs']})}"


def median(rows: Sequence[Figures], key: str) -> float:
    """Of all repeats."""
    return float(statistics.median(row[key] for row in rows))


def spread(rows: Sequence[Figures], key: str, digits: int) -> str:
    """Median, least and most."""
    least, most = (bound(row[key] for row in rows) for bound in (min, max))
    return f"{median(rows, key):.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def ratio(theirs: Sequence[Figures], ours: Sequence[Figures], key: str) -> str:
    """Of the medians; in brackets that of their best and our worst."""
    worst = min(row[key] for row in theirs) / max(row[key] for row in ours)
    return f"{median(theirs, key) / median(ours, key):.1f} (at least {worst:.1f})"


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("coco-sized"))
    parser.add_argument("--scale", type=float, default=1.0, help="share of COCO's size")
    parser.add_argument("--builds", type=int, default=1, help="how often the cold index is built")
    parser.add_argument("--repeats", type=int, default=5, help="of each other task")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    parser.add_argument("--task", choices=TASKS, help="measure this one in this process")
    a = parser.parse_args()
    os.environ["FSS_BENCH_CACHE"] = str(a.folder / "cache")
    if a.task:
        print(json.dumps(run_task(a.task, a.folder)))
        return
    make(a.folder, a.scale)
    found = measure_all(a.folder, a.builds, a.repeats)
    about = {"machine": machine(), "tree": tree(a.folder)}
    for part in about.values():
        print(", ".join(f"{name} {value}" for name, value in part.items()))
    print("\n".join(told(found)))
    if a.output:
        text = json.dumps({**about, "figures": found}, indent=1)
        a.output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
