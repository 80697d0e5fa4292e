"""What the layouts of revolver's checkpoints share: VGG names and fixed kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fss_bench.fcn import KERNEL, STRIDE, bilinear_kernel
from fss_bench.vgg_backbone import CONVOLUTIONS

SOURCE = "https://github.com/shelhamer/revolver"


def encoder_renames(theirs: str, ours: str) -> dict[str, str]:
    """Published prefix -> ours, of one encoder: its VGG-16 and fc6."""
    names = {
        f"{theirs}conv{block}_{i}.": f"{ours}backbone.model.features.{place}."
        for block, places in CONVOLUTIONS.items()
        for i, place in enumerate(places, start=1)
    }
    return names | {f"{theirs}fc6.": f"{ours}fc6."}


def _decoder(shape: Sequence[int]) -> Tensor:
    channels = shape[0]
    return torch.eye(channels)[..., None, None] * bilinear_kernel()


def _annotations(shape: Sequence[int]) -> Tensor:
    return (bilinear_kernel() / STRIDE**2).reshape(1, 1, KERNEL, KERNEL)


FIXED = {"decoder.weight": _decoder, "anno_enc.weight": _annotations}
"""Kernels that the published files hold as parameters and that never change."""
