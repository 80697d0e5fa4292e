"""Small good trees of every dataset, to be damaged: two classes of three images, 12 x 16 px."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_data import Arguments, Attempt
from numpy.typing import NDArray
from PIL import Image

from fss_bench import create_dataset
from fss_bench.dataset import check_size
from fss_bench.datasets.coco20i import CLASSES as COCO_CLASSES

HEIGHT, WIDTH = 12, 16
NAMES = [f"c{class_id}_{i}" for class_id in (1, 2) for i in range(3)]
FIRST = NAMES[0]


def photograph(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def labels(class_id: int) -> NDArray[np.uint8]:
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[:, : WIDTH // 2] = class_id
    return found


def class_of(name: str) -> int:
    return int(name[1])


def voc(root: Path) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(photograph()).save(root / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(labels(class_of(name))).save(root / "SegmentationClass" / f"{name}.png")
    for split in ("train", "val"):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(NAMES) + "\n")
    return root


def own(root: Path) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("cat\ndog\n")
    for name in NAMES:
        Image.fromarray(photograph()).save(root / "images" / f"{name}.png")
        Image.fromarray(labels(class_of(name))).save(root / "masks" / f"{name}.png")
    return root


def fss(root: Path) -> Path:
    (root / "splits").mkdir(parents=True)
    for name, file in (("c1", "trn"), ("c2", "test")):
        (root / name).mkdir()
        (root / "splits" / f"{file}.txt").write_text(f"{name}\n")
        for i in range(3):
            Image.fromarray(photograph()).save(root / name / f"{i}.jpg")
            Image.fromarray(labels(1) * 255).save(root / name / f"{i}.png")
    return root


def box(left: float = 0, right: float = WIDTH / 2) -> list[list[float]]:
    return [[left, 0, right, 0, right, HEIGHT, left, HEIGHT]]


def coco_content(names: list[str], categories: list[str], suffix: str) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"{name}{suffix}", "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 10 * class_of(name), "segmentation": box()}
            for i, name in enumerate(names, start=1)
        ],
        "categories": [{"id": 10 * c, "name": name} for c, name in enumerate(categories, start=1)],
    }


def own_coco(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(photograph()).save(root / "images" / f"{name}.png")
    content = coco_content(NAMES, ["cat", "dog"], ".png")
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for prefix in ("train", "val"):
        (root / f"{prefix}2017").mkdir()
        content = coco_content(NAMES, list(COCO_CLASSES), ".jpg")
        if prefix == "val":
            for entry in content["images"]:
                entry["id"] += 100
            for entry in content["annotations"]:
                entry["image_id"] += 100
        for entry in content["images"]:
            entry["file_name"] = f"{entry['id']:012d}.jpg"
            Image.fromarray(photograph()).save(root / f"{prefix}2017" / entry["file_name"])
        file = root / "annotations" / f"instances_{prefix}2017.json"
        file.write_text(json.dumps(content))
    return root


MAKERS: dict[str, Callable[[Path], Path]] = {
    "pascal5i": voc,
    "coco20i": coco,
    "fss1000": fss,
    "folder": own,
    "folder (COCO)": own_coco,
}
PHOTOGRAPHS = {
    "pascal5i": f"JPEGImages/{FIRST}.jpg",
    "coco20i": "val2017/000000000101.jpg",
    "fss1000": "c2/0.jpg",
    "folder": f"images/{FIRST}.png",
    "folder (COCO)": f"images/{FIRST}.png",
}
MASKS = {
    "pascal5i": f"SegmentationClass/{FIRST}.png",
    "fss1000": "c2/0.png",
    "folder": f"masks/{FIRST}.png",
}


def attempt(
    kind: str, root: Path, check: Callable[[Any], None] | None = None, show: bool = True
) -> Attempt:
    """Read a whole tree.

    Args:
        kind: of `MAKERS`.
        root: the tree.
        check: looks at the dataset when all is read.
        show: whether a command that draws from all of its images is a part of it.
    """
    name = kind.split()[0]

    def read() -> None:
        dataset = create_dataset(name, root)
        for split in ("train", "test"):
            for image in dataset.images(split):
                pixels = dataset.load_image(image)
                mask = dataset.load_mask(image, 1)
                check_size(image, mask.shape, pixels.shape)
        if check:
            check(dataset)

    where = ("--dataset", name, "--data-root", root)
    rules = ("--rule", "min_pixels=1", "--rule", "short_classes=skip")
    sheet: Arguments = ("-o", root.parent / "sheet.png", "--tile", 16, "--episodes", 12)
    sheet = (*sheet, "--fold", 0)
    command = ("data", "show", *where, *rules, *sheet)
    if kind == "fss1000":
        command = ("data", "show", *where, *sheet)
    return Attempt(read, command if show else (), (*where, "--quiet"))
