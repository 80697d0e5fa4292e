"""Fixtures for all tests: an index cache of their own, the shared material, small trees."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(os.environ.get("FSS_BENCH_SHARED", Path(__file__).parents[2] / "shared"))


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


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a `folder` dataset of random 64 x 48 images, each with one class on its left half."""

    def make(classes: int = 4, per_class: int = 3, root: Path | None = None) -> Path:
        root = root or tmp_path / "own"
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

    return make
