"""Peak memory of whole processes: what is kept of images stays within --cache-gb."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc"),
]

CHILD = """
import json, sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, sys.argv[1])
from tiny_backbone import PixelBackbone
from fss_bench import Compute, create_dataset, evaluate, shelf
from fss_bench.part_method import PartMethod

FLOATS = 6_000_000  # 24 MB an image, and in parts less or more

class Split(nn.Module):
    input_size = 32
    made = 0

    def encode(self, images):
        Split.made += len(images)
        return {"x": images.mean((1, 2, 3), keepdim=True).repeat(1, FLOATS, 1, 1)}

    def segment(self, support, masks, query):
        return torch.stack([query["x"][:, :4].reshape(-1, 2, 2), masks[:, 0, 0, :2, :2]], dim=1)

    def forward(self, support, masks, query):
        return self.segment(None, masks, self.encode(query))

class Parts(PartMethod):
    def __init__(self):
        super().__init__(PixelBackbone(), ("c2",), 32)

    def encode(self, images):
        Split.made += len(images)
        return super().encode(images)

    def part(self, features, factor):
        value = features["c2"].mean()
        return {"x": value.repeat(int(FLOATS * (factor + value)))}

    def support_part(self, features, mask):
        return self.part(features, 0.1)

    def query_part(self, features):
        return self.part(features, 0.4)

    def compare(self, supports, query, size):
        shown = [part["x"][:4].reshape(2, 2) for part in (query, supports[0][0])]
        return torch.stack(shown)[None]

shelf.DISK_RATE = 1e15  # these features are sooner made than stored
kind, cache, disk, workers = sys.argv[2:]
compute = Compute("cpu", cache_gb=float(cache), disk_gb=float(disk), workers=int(workers))
torch.set_num_threads(1)
run = evaluate({"split": Split, "parts": Parts}[kind](), create_dataset("shapes"), fold=0,
               episodes=150, rules={"min_pixels": 1}, compute=compute)
status = Path("/proc/self/status").read_text()  # not getrusage, which counts the parent's in
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
images = {i for row in run.episodes.itertuples() for i in (row.query, *row.supports[0])}
counts = run.episodes[["inter_fg", "union_fg"]].sum().tolist()
print(json.dumps({"peak": peak, "encoded": Split.made, "images": len(images), "counts": counts}))
"""
MB = 2**20
CONSTANT = 60 * MB
"""An image at hand, and what differs from run to run."""
ALLOCATION = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}
"""What is freed goes back to the system: glibc alone keeps up to some 500 MB, more or less."""


@pytest.fixture(scope="module")
def measured() -> Callable[..., dict[str, int]]:
    """Peak bytes and images encoded of an evaluation in a process of its own; each once."""
    known: dict[tuple[object, ...], dict[str, int]] = {}

    def measure(kind: str, cache: float, disk: float = 0, workers: int = 0) -> dict[str, int]:
        key = kind, cache, disk, workers
        if key not in known:
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(Path(__file__).parent), *map(str, key)],
                env={**os.environ, **ALLOCATION},
                check=True,
                capture_output=True,
                text=True,
            )
            known[key] = json.loads(done.stdout.splitlines()[-1])
        return known[key]

    return measure


@pytest.mark.parametrize(
    ("cache", "disk", "workers"), [(0.05, 0, 0), (0.05, 4, 1), (0.2, 0, 1), (0.2, 4, 0)]
)
@pytest.mark.parametrize("kind", ["split", "parts"])
def test_peak_memory_is_the_cache_and_a_constant(
    measured: Callable[..., dict[str, int]], kind: str, cache: float, disk: float, workers: int
) -> None:
    nothing, ample = measured(kind, 0), measured(kind, 8)
    found = measured(kind, cache, disk, workers)
    # what could be kept is much more than what may be: a cache without bounds would show
    assert ample["peak"] > nothing["peak"] + 0.2 * 2**30 + 2 * CONSTANT
    assert found["peak"] < nothing["peak"] + cache * 2**30 + CONSTANT
    assert found["counts"] == ample["counts"]
    counting = 2  # images of zeros, on which FLOPs are counted
    if disk:  # each is encoded once
        assert found["encoded"] <= found["images"] + counting
    else:
        assert found["images"] + counting < found["encoded"] < nothing["encoded"]
    assert ample["encoded"] <= ample["images"] + counting


def test_more_cache_is_used(measured: Callable[..., dict[str, int]]) -> None:
    peaks = [measured("split", cache)["peak"] for cache in (0.05, 0.2, 8)]
    assert peaks[0] + 100 * MB < peaks[1] < peaks[2] - 100 * MB
