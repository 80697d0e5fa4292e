"""Pretraining runs of seconds: noisy photographs, a small backbone, views of 32 pixels."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fss_bench.compute import Compute
from fss_bench.pretraining.setup import PretrainConfig

RECIPES: dict[str, dict[str, Any]] = {
    "moco-1": {"method": "moco", "version": 1, "options": {"queue_size": 16}},
    "moco-2": {"method": "moco", "version": 2, "options": {"queue_size": 16}},
    "moco-3": {
        "method": "moco",
        "version": 3,
        "backbone": "test_vit",
        "options": {"hidden": 32, "warmup_epochs": 1, "lr": 0.01},
    },
    "simclr": {"method": "simclr", "options": {"warmup_epochs": 1}},
    "npid": {"method": "npid", "options": {"negatives": 8}},
}
"""What a run of each method needs beside `SMALL`."""
SMALL = {"epochs": 2, "batch_size": 8, "image_size": 32}


def make_images(folder: Path, count: int = 24, seed: int = 0) -> Path:
    """Writes images of 40 x 36 pixels, each of a colour of its own with noise on it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    for i in range(count):
        colour = rng.randint(0, 256, 3)
        pixels = np.clip(colour + rng.normal(0, 40, (36, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.jpg")
    return folder


def tiny_config(
    method: str, images: Path, output: Path, workers: int = 0, **changes: Any
) -> PretrainConfig:
    """A run of 2 epochs of 3 steps on the 24 images of `make_images`."""
    own = RECIPES[method]
    options = {**SMALL, **own["options"], **changes.pop("options", {})}
    return PretrainConfig(
        **{
            "backbone": "test_resnet",
            "compute": Compute("cpu", workers=workers),
            **own,
            "images": (images,),
            "output": output,
            **changes,
            "options": options,
        }
    )
