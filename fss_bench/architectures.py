"""Which timm model a state dict is of, from its names and shapes, for messages and reports."""

import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import timm
import torch

from fss_bench.weight_layout import State

RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "50",
    (3, 4, 23, 3): "101",
    (3, 8, 36, 3): "152",
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
HEADS = ("fc.", "head.", "classifier.")
OPTIONAL = {"norm.weight", "norm.bias"}
"""What a transformer that was fine-tuned by mean pooling lacks."""


def architecture_of(state: State, layout: str) -> str | None:
    """The timm name of the network whose names and shapes tensors have, all of them.

    Networks that differ in what has no tensors, such as `resnet50` and `resnetblur50`, get the
    plainest one's name. A plain transformer of layout `timm` gets none: timm has several, of other
    statistics.

    Args:
        state: tensors under torchvision's, timm's or Facebook's names.
        layout: of the file.
    """
    name = _likely(state, layout)
    return name if name is not None and timm.is_model(name) and _is_of(name, state) else None


def other_backbone(state: State, layout: str) -> str:
    """An end for a message: to take the right backbone, and which, where it is known."""
    name = architecture_of(state, layout)
    return f"choose the --backbone that the file was made for{f', {name}' if name else ''}"


def is_network(state: State) -> bool:
    """Whether a convolution's weight has the name of the first one of some timm model."""
    found = (state[f"{name}.weight"] for name in _firsts() if f"{name}.weight" in state)
    return any(weight.ndim == 4 for weight in found)


@lru_cache
def _firsts() -> frozenset[str]:
    """Names of first convolutions."""
    configs = (timm.get_pretrained_cfg(name) for name in timm.list_models())
    found = (config.first_conv for config in configs if config is not None)
    return frozenset(name for names in found for name in _words(names))


def _words(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _likely(state: State, layout: str) -> str | None:
    """The only name that it may have."""
    try:
        if "layer1.0.conv1.weight" in state and "bn1.weight" in state:
            return _resnet(state)
        if "blocks.0.attn.qkv.weight" in state and "patch_embed.proj.weight" in state:
            return _vit(state, layout)
        if "downsample_layers.0.0.weight" in state:
            width = state["downsample_layers.0.0.weight"].shape[0]
            return CONVNEXTS.get((width, _depths(state, r"stages\.{}\.(\d{{1,3}})\.", range(4))))
    except (KeyError, IndexError):  # tensors are missing, or of fewer dimensions
        pass
    return None


def _resnet(state: State) -> str | None:
    depths = _depths(state, r"layer{}\.(\d{{1,3}})\.", range(1, 5))
    if "layer1.0.conv3.weight" not in state:
        return BASIC_RESNETS.get(depths)
    depth = RESNETS.get(depths)
    inner, grouped = state["layer1.0.conv2.weight"].shape[:2]
    if depth is None or inner == 64:
        return depth and f"resnet{depth}"
    if grouped == inner:
        return f"wide_resnet{depth}_2"
    return f"resnext{depth}_{inner // grouped}x{grouped}d"


def _vit(state: State, layout: str) -> str | None:
    width, patch = (state["patch_embed.proj.weight"].shape[i] for i in (0, 3))
    (depth,) = _depths(state, r"blocks{}\.(\d{{1,3}})\.", ("",))
    size = VITS.get((width, depth))
    if size is None:
        return None
    if "storage_tokens" in state:
        plus = "_plus" if "blocks.0.mlp.w1.weight" in state else ""
        return f"vit_{size}{plus}_patch{patch}_dinov3_qkvb"
    if "blocks.0.ls1.gamma" in state:
        registers = "_reg4" if {"register_tokens", "reg_token"} & set(state) else ""
        return f"vit_{size}_patch{patch}{registers}_dinov2"
    if layout == "deit":
        cells = round((state["pos_embed"].shape[1] - 1) ** 0.5)
        return f"deit_{size}_patch{patch}_{cells * patch}"
    return None if layout == "timm" else f"vit_{size}_patch{patch}_224"


def _depths(state: State, pattern: str, stages: Iterable[object]) -> tuple[int, ...]:
    """Number of blocks of each stage."""
    found = []
    for stage in stages:
        numbers = [re.match(pattern.format(stage), name) for name in state]
        found.append(1 + max((int(n[1]) for n in numbers if n), default=-1))
    return tuple(found)


def _is_of(name: str, state: State) -> bool:
    """Whether timm's own converter of files gives exactly a model's tensors; without data."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0)
    own = model.state_dict()
    given = {key: value.to("meta") for key, value in state.items()}
    if "pos_embed" in given and "pos_embed" in own:  # of any number of cells
        given["pos_embed"] = own["pos_embed"]
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        found = given if convert is None else dict(convert(given, model))
    except Exception:  # whatever a converter does with tensors that are not its own
        return False
    wanted, shapes = _shapes(own, own), _shapes(found, own)
    return shapes == wanted or shapes == {k: v for k, v in wanted.items() if k not in OPTIONAL}


def _shapes(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of what a model must have."""
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked") and (name in own or not name.startswith(HEADS))
    }
