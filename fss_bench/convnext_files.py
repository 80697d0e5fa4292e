"""What published files of ConvNeXts have in common."""

import re

import torch
from torch import Tensor

from fss_bench.weight_layout import State

PLACES = ("model", "state_dict", "")
FIRST = r"(model|state_dict)?/downsample_layers\.0\.0\.weight"
"""The first convolution under its original name, wherever files have it."""


def with_layer_scale(state: State) -> dict[str, Tensor]:
    """A ConvNeXt's tensors, with a layer scale of one in blocks that have none."""
    scales = {}
    for name, value in state.items():
        block = re.fullmatch(r"(stages\.\d+\.\d+\.)dwconv\.weight", name)
        if block and f"{block[1]}gamma" not in state:
            scales[f"{block[1]}gamma"] = torch.ones(value.shape[0])
    return {**state, **scales}
