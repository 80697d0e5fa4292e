"""Feature maps of timm models, beside those of backbones that were loaded from files."""

import json
from pathlib import Path
from typing import Any

import torch
from published_weights import IMAGENET, Published
from safetensors.torch import save_file
from torch import Tensor

from fss_bench import create_backbone
from fss_bench.backbone import Backbone
from fss_bench.weight_files import METADATA

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


OURS = {"method": "moco", "version": 2, "layout": "timm", "mean": IMAGENET[0], "std": IMAGENET[1]}


def write(path: Path, content: Any) -> Path:
    """A torch file; ours is safetensors, and says what it is."""
    if any(str(name).startswith("query.") for name in content):
        path = path.with_suffix(".safetensors")
        save_file(content, path, {METADATA: json.dumps(OURS)})
    else:
        torch.save(content, path)
    return path


def images(side: int = 64) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def features_of(model: Any, pixels: Tensor, statistics: Statistics = IMAGENET) -> dict[str, Tensor]:
    """A timm model's maps of normalised images; of equal strides the last has the name."""
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in statistics)
    wanted = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)
    maps = model.forward_intermediates(wanted, intermediates_only=True, output_fmt="NCHW")
    strides = [info["reduction"] for info in model.feature_info]
    return {f"c{int(s).bit_length() - 1}": m for s, m in zip(strides, maps, strict=True)}


def reference(kind: Published, role: str, pixels: Tensor) -> dict[str, Tensor]:
    return features_of(kind.model(role), pixels, kind.statistics)


def load(kind: Published, path: Path, **options: Any) -> Backbone:
    asked = {"layout": kind.layout} if kind.asks else {}
    return create_backbone(kind.backbone, path, **{**kind.options, **asked, **options})


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[level], wanted[level]) for level in wanted)


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert all(value.isfinite().all() and value.std() > 0.01 for value in wanted.values())
    assert same(found, wanted)
