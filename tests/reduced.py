"""Cases of the reduced golden files in `tests/golden`: what they were made from, on any checkout.

Weights come from the recipe over published names, inputs from a formula; neither needs a file.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import recipe_tensor
from torch import Tensor, nn

from fss_bench import create_backbone, create_method
from fss_bench.checkpoint import layouts

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """One reduced golden file: logits of a method at a small size.

    Attributes:
        name: of the file.
        method, backbone, options: what is built.
        layout: whose names the weights are made from.
        size: side of the images.
        shots: supports.
        stride: every so many pixels of the logits are kept, in both directions.
    """

    name: str
    method: str
    backbone: str
    layout: str
    size: int
    shots: int
    stride: int
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case("panet", "panet", "vgg16_panet", "panet", 161, 2, 1),
    Case("sgone", "sgone", "vgg16_sgone", "sgone", 161, 2, 1),
    Case("cofcn_early", "cofcn", "vgg16_fcn32s", "cofcn", 161, 2, 4),
    Case("cofcn_late", "cofcn", "vgg16_fcn32s", "cofcn", 161, 2, 4, {"fusion": "late"}),
    Case("guided", "guided", "vgg16_fcn32s", "guided", 161, 2, 4),
    Case("hsnet", "hsnet", "resnet50", "hsnet", 200, 1, 4),
    Case("dcama", "dcama", "resnet50", "dcama", 192, 2, 4),
    Case("msanet", "msanet", "resnet50_deepstem", "msanet", 185, 2, 4, {"shots": 2}),
)


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Support images [1, 1, K, 3, S, S] and masks [1, 1, K, S, S], query images [1, 3, S, S]."""
    images = torch.stack([_image(case.size, f"image {i}") for i in range(case.shots + 1)])
    masks = torch.stack([_disc(case.size, f"mask {i}") for i in range(case.shots)])
    return images[None, None, 1:], masks[None, None], images[:1]


def build(case: Case) -> nn.Module:
    """The method with the recipe's weights."""
    method = create_method(
        case.method, create_backbone(case.backbone, weights="none"), **case.options
    )
    layout = layouts()[case.layout]
    state = {
        name: tensor
        if name.endswith("num_batches_tracked")
        else recipe_tensor(layout.published(name), tensor.shape)
        for name, tensor in method.state_dict().items()
    }
    method.load_state_dict(state, strict=True)
    return method


def answer(case: Case) -> Tensor:
    """The logits that a file keeps."""
    with torch.no_grad():
        logits: Tensor = build(case)(*inputs(case))
    return logits[..., :: case.stride, :: case.stride].contiguous()


def _image(size: int, name: str) -> Tensor:
    """Smooth colours: a coarse random grid, enlarged; [3, S, S] in [0, 1]."""
    coarse = np.random.RandomState(zlib.crc32(name.encode())).random_sample((1, 3, 9, 9))
    grid = torch.from_numpy(coarse.astype(np.float32))
    shown = nn.functional.interpolate(grid, size=(size, size), mode="bicubic").clamp(0, 1)
    return (shown[0] * 255).round() / 255


def _disc(size: int, name: str) -> Tensor:
    """A disc of 1 in 0, [S, S] uint8."""
    draw: Sequence[float] = np.random.RandomState(zlib.crc32(name.encode())).random_sample(3)
    y, x, r = (0.3 + 0.4 * draw[0]) * size, (0.3 + 0.4 * draw[1]) * size, (0.15 + 0.1 * draw[2])
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (((rows - y) ** 2 + (columns - x) ** 2) < (r * size) ** 2).to(torch.uint8)
