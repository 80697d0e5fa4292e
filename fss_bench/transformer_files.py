"""What published files of vision transformers have in common."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fss_bench.errors import WeightsError
from fss_bench.weight_layout import MASK, State

PLACES = ("model", "state_dict", "")
"""Where files have a transformer under its own names."""
SMALL = 384
"""Width of a ViT-S."""
PLAIN = tuple(
    rf"(model|state_dict)?/{name}" for name in ("cls_token", "pos_embed", r"blocks\.0\..*")
)
NOT_PLAIN = (
    r"[^/]*/(decoder|norm_pre|dist_token|register_tokens|reg_token|storage_tokens).*",
    r"[^/]*/(rope|rel_pos|stem).*",
)
"""Names that transformers of Dosovitskiy et al.'s form have, and have not."""
BLOCK = {
    *(f"{norm}.{leaf}" for norm in ("norm1", "norm2") for leaf in ("weight", "bias")),
    *(f"attn.{layer}.{leaf}" for layer in ("qkv", "proj") for leaf in ("weight", "bias")),
    *(f"mlp.{layer}.{leaf}" for layer in ("fc1", "fc2") for leaf in ("weight", "bias")),
}
MASKED = {"mask_token": MASK}
DINOV2_HEADS = r"teacher/(dino_head|ibot_head)\..*"
"""What DINOv2's training code has beside its teacher."""


def tensor_in(names: State, name: str) -> Tensor:
    """A tensor of a transformer, wherever the file has it.

    Raises:
        KeyError: it has none of this name.
    """
    for place in PLACES:
        if f"{place}/{name}" in names:
            return names[f"{place}/{name}"]
    raise KeyError(name)


def has(names: State, name: str) -> bool:
    """Whether a file has a tensor of a transformer."""
    return any(f"{place}/{name}" in names for place in PLACES)


def is_plain(names: State) -> bool:
    """Whether the first block is Dosovitskiy et al.'s: no layer scale, no norms of queries."""
    found = (re.fullmatch(r"[^/]*/blocks\.0\.(.*)", name) for name in names)
    return {match[1] for match in found if match} == BLOCK


def is_headless(names: State) -> bool:
    """Whether a file has no classifier, neither alone nor after a pooled norm."""
    return not has(names, "head.weight") and not has(names, "fc_norm.weight")


def fixed_in(names: State) -> bool:
    """Whether a file's position embeddings are sines and cosines."""
    return is_fixed(tensor_in(names, "pos_embed"))


def small_in(names: State) -> bool:
    """Whether a file is of a ViT-S."""
    return is_small(tensor_in(names, "pos_embed"))


def is_small(table: Tensor) -> bool:
    """Whether position embeddings [1, T, D] are those of a ViT-S."""
    return table.ndim == 3 and table.shape[-1] == SMALL


def is_fixed(table: Tensor) -> bool:
    """Whether position embeddings [1, T, D] are sines and cosines: nothing for the class token."""
    return table.ndim == 3 and bool((table[:, 0] == 0).all() and table.any())


def twelve_heads(state: State) -> Mapping[str, Any]:
    """MoCo v3's ViT-S has 12 heads of 32 channels, timm's 6 of 64; no tensor's shape tells."""
    if "pos_embed" in state and is_small(state["pos_embed"]):
        return {"num_heads": 12}
    return {}


def no_conv_stem(state: State) -> str | None:
    """Why a transformer with a convolutional stem cannot be loaded; None for others."""
    if "patch_embed.proj.0.weight" in state:
        return "its convolutional stem has no twin in timm: take the file with a patch projection"
    return None


def from_dinov2(state: State) -> dict[str, Tensor]:
    """DINOv2's tensors under timm's names.

    Blocks may be in chunks, `blocks.<chunk>.<i>.`, whose numbers count through. With registers, the
    class token's position goes into the token, as timm has it.
    """
    found = {}
    for name, value in state.items():
        name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)
        found[name.replace("mlp.w12.", "mlp.fc1.").replace("mlp.w3.", "mlp.fc2.")] = value
    if "register_tokens" in found and "pos_embed" in found:
        table = found["pos_embed"]
        found |= {"pos_embed": table[:, 1:], "reg_token": found.pop("register_tokens")}
        if "cls_token" in found:
            found["cls_token"] = found["cls_token"] + table[:, :1]
    return found


def fit_dinov3(state: State, model: Any) -> dict[str, Tensor]:
    """DINOv3's tensors for a timm model, which has its rotations and maybe no biases.

    Raises:
        WeightsError: rotations or biases are not those of the model.
    """
    found = dict(state)
    periods = found.pop("rope_embed.periods", None)
    own = getattr(getattr(model, "rope", None), "periods", None)
    if periods is not None and own is not None:
        same = periods.shape == own.shape and torch.allclose(periods.float(), own, rtol=0.01)
        if not same:  # files round them to bf16
            raise WeightsError("its rotary periods are not the model's: choose another --backbone")
    biases = [name for name in found if name.endswith("attn.qkv.bias")]
    for name in biases:
        mask = found.pop(f"{name}_mask", torch.ones_like(found[name]))
        if not ((mask == 0) | (mask == 1)).all():
            raise WeightsError("its masks of biases are not 0 and 1: the file is damaged")
        found[name] = torch.where(mask == 1, found[name], 0)  # keys may hold anything under 0
        if found[name].chunk(3)[1].any():
            raise WeightsError("its keys have biases, which timm's have not: choose another file")
    if getattr(model.blocks[0].attn, "q_bias", None) is not None:
        return found
    if any(found[name].any() for name in biases):
        raise WeightsError("its attention has biases: choose the --backbone that ends in _qkvb")
    return {name: value for name, value in found.items() if name not in biases}
