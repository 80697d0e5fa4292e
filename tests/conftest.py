"""Fixtures for all tests: an index cache of their own, the shared material, small trees."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, settings
from PIL import Image

from fss_bench.errors import DatasetError

if TYPE_CHECKING:
    from fss_bench.protocols import EvaluationProtocol
    from fss_bench.results import Run

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores: threads would fight for them
    os.environ["OMP_NUM_THREADS"] = "1"

SHARED = Path(os.environ.get("FSS_BENCH_SHARED", Path(__file__).parents[2] / "shared"))

settings.register_profile("no deadline", deadline=None)  # machines are shared: times vary
settings.register_profile(  # of `make mutants`: any failing case will do, not the smallest
    "mutants", deadline=None, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "no deadline"))


@pytest.fixture(scope="session", autouse=True)
def index_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session, shared by the processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    os.environ["FSS_BENCH_CACHE"] = str(base / "fss-bench-cache")
    return base / "fss-bench-cache"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared lists, golden files and photographs; not part of this repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared material in {SHARED} (set FSS_BENCH_SHARED)")
    return SHARED


def write_folder(root: Path, classes: int = 4, per_class: int = 3) -> Path:
    """A `folder` dataset of random 64 x 48 images, each with one class on its left half."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    names = [f"class{c}" for c in range(1, classes + 1)]
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    rng = np.random.RandomState(0)
    for class_id in range(1, classes + 1):
        for i in range(per_class):
            pixels = rng.randint(0, 256, (48, 64, 3), dtype=np.uint8)
            labels = np.zeros((48, 64), np.uint8)
            labels[:, :32] = class_id
            Image.fromarray(pixels).save(root / "images" / f"c{class_id}_{i}.jpg")
            Image.fromarray(labels).save(root / "masks" / f"c{class_id}_{i}.png")
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """See `write_folder`."""

    def make(classes: int = 4, per_class: int = 3, root: Path | None = None) -> Path:
        return write_folder(root or tmp_path / "own", classes, per_class)

    return make


@pytest.fixture
def make_coco_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a `folder` dataset in COCO's format: the images of `make_folder`, a box each."""

    def make(classes: int = 4, per_class: int = 3, root: Path | None = None) -> Path:
        root = root or tmp_path / "own-coco"
        (root / "images").mkdir(parents=True)
        rng = np.random.RandomState(0)
        images, annotations = [], []
        for i in range(classes * per_class):
            name = f"{i:03d}.jpg"
            pixels = rng.randint(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name)
            images.append({"id": i, "file_name": name, "height": 48, "width": 64})
            box = [[0, 0, 32, 0, 32, 48, 0, 48]]
            category = 10 * (1 + i % classes)
            annotations.append(
                {"id": i, "image_id": i, "category_id": category, "segmentation": box, "iscrowd": 0}
            )
        categories = [{"id": 10 * c, "name": f"class{c}"} for c in range(1, classes + 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations.json").write_text(json.dumps(content))
        return root

    return make


def made_run(
    iou: float = 0.5, protocol: "EvaluationProtocol | None" = None, **changes: Any
) -> "Run":
    """A Run of 4 episodes of 2 classes, all of one IoU, without evaluating anything."""
    from fss_bench.protocols import PROTOCOLS
    from fss_bench.results import ClassScore, Metrics, Run

    inter = round(1000 * iou)
    counts = {
        "inter_fg": inter,
        "union_fg": 1000,
        "inter_bg": 3000,
        "union_bg": 4000,
        "inter_ways": [inter],
        "union_ways": [1000],
    }
    rows = [
        {
            "index": i,
            "class_ids": [1 + i % 2],
            "query": f"q{i}",
            "supports": [[f"s{i}"]],
            **counts,
            **{f"{name}_255bg": value for name, value in counts.items()},
            "iou_fg": inter / 1000,
            "ms": 2.5,
        }
        for i in range(4)
    ]
    scores = {
        name: ClassScore(class_id, inter / 1000, 2 * inter, 2000, 2)
        for class_id, name in ((1, "cat"), (2, "dog"))
    }
    iou = inter / 1000
    metrics = Metrics(iou, (iou, iou), (iou + 0.75) / 2, iou, scores)
    record: dict[str, Any] = {
        "schema_version": 1,
        "run_id": "0123456789ab",
        "method": "panet",
        "method_options": {},
        "backbone": "resnet50",
        "backbone_options": {},
        "weights": {"source": "imagenet", "sha256": "ab" * 32},
        "checkpoint": None,
        "dataset": {
            "name": "own@3-abcdef",
            "fingerprint": "f",
            "classes_sha256": "c",
            "folds": 2,
            "test_images": 3,
            **changes.pop("dataset", {}),
        },
        "protocol": (protocol or PROTOCOLS["standard"]).record,
        "fold": 0,
        "ways": 1,
        "shots": 1,
        "seed": 0,
        "precision": "fp32",
        "device_type": "cpu",
        "code_sha256": "d" * 64,
        "episodes": 4,
        "episodes_sha256": "0" * 64,
        "skipped_classes": [],
        "cost": {
            "params_m": 23.5,
            "gflops_per_episode": 12.25,
            "ms_per_episode": 2.5,
            "episodes_per_s": 400.0,
            "peak_mb": 512.0,
            "device": "a CPU",
        },
        "environment": {"python": "3.11"},
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
    }
    return Run({**record, **changes}, metrics, pd.DataFrame(rows))


@pytest.fixture
def make_run() -> Callable[..., "Run"]:
    """See `made_run`."""
    return made_run


@pytest.fixture(scope="session")
def refusal() -> Callable[[Callable[[], object]], str]:
    """Calls something that must raise DatasetError with a message of one line; returns that."""

    def message(call: Callable[[], object]) -> str:
        with pytest.raises(DatasetError) as caught:
            call()
        text = str(caught.value)
        assert text.strip()
        assert "\n" not in text
        return text

    return message
