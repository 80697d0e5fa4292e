"""Which timm model a state dict is of, from its names and shapes, for messages and reports."""

import re
from collections.abc import Iterable

from fss_bench.weight_layout import State

RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "resnet50",
    (3, 4, 23, 3): "resnet101",
    (3, 8, 36, 3): "resnet152",
}
BASIC_RESNETS: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2): "resnet18",
    (3, 4, 6, 3): "resnet34",
}
"""Blocks of two 3x3 convolutions."""
VITS = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1536, 40): "giant",
}
"""Width and depth -> timm's word."""
CONVNEXTS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (3, 3, 9, 3)): "convnext_tiny",
    (96, (3, 3, 27, 3)): "convnext_small",
    (128, (3, 3, 27, 3)): "convnext_base",
    (192, (3, 3, 27, 3)): "convnext_large",
    (256, (3, 3, 27, 3)): "convnext_xlarge",
}


def architecture_of(state: State) -> str | None:
    """The timm name that tensors under torchvision's, timm's or Facebook's names fit, if known."""
    if "layer1.0.conv1.weight" in state and "bn1.weight" in state:
        return _resnet(state)
    if "blocks.0.attn.qkv.weight" in state and "patch_embed.proj.weight" in state:
        return _vit(state)
    if "downsample_layers.0.0.weight" in state:
        width = state["downsample_layers.0.0.weight"].shape[0]
        return CONVNEXTS.get((width, _depths(state, r"stages\.{}\.(\d+)\.", range(4))))
    return None


def architecture_hint(state: State) -> str:
    """An end for a message that asks for the right backbone."""
    name = architecture_of(state)
    return f", {name}" if name else ""


def _resnet(state: State) -> str | None:
    depths = _depths(state, r"layer{}\.(\d+)\.", range(1, 5))
    width, inner = (state[f"{n}.weight"].shape[0] for n in ("bn1", "layer1.0.conv1"))
    if width != 64 or inner not in (64, 128):
        return None
    if "layer1.0.conv3.weight" not in state:
        return BASIC_RESNETS.get(depths)
    name = RESNETS.get(depths)
    return f"wide_{name}_2" if name and inner == 128 else name


def _vit(state: State) -> str | None:
    width, patch = (state["patch_embed.proj.weight"].shape[i] for i in (0, 3))
    (depth,) = _depths(state, r"blocks{}\.(\d+)\.", ("",))
    size = VITS.get((width, depth))
    if size is None:
        return None
    if "storage_tokens" in state:
        plus = "_plus" if "blocks.0.mlp.w1.weight" in state else ""
        return f"vit_{size}{plus}_patch{patch}_dinov3_qkvb"
    if "blocks.0.ls1.gamma" in state:
        registers = "_reg4" if {"register_tokens", "reg_token"} & set(state) else ""
        return f"vit_{size}_patch{patch}{registers}_dinov2"
    return f"vit_{size}_patch{patch}_224"


def _depths(state: State, pattern: str, stages: Iterable[object]) -> tuple[int, ...]:
    """Number of blocks of each stage."""
    found = []
    for stage in stages:
        numbers = [re.match(pattern.format(stage), name) for name in state]
        found.append(1 + max((int(n[1]) for n in numbers if n), default=-1))
    return tuple(found)
