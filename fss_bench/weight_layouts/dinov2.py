"""DINOv2 without registers. Oquab et al., TMLR 2024, https://arxiv.org/abs/2304.07193."""

from math import isqrt

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import MASKED, PLACES, from_dinov2, has, tensor_in
from fss_bench.weight_layout import MOMENTUM, State, WeightLayout, at_places


def _has_class_position(names: State) -> bool:
    """DeiT III, of the same blocks, has positions of patches alone: their number is a square."""
    cells: int = tensor_in(names, "pos_embed").shape[1] - 1
    return isqrt(cells) ** 2 == cells


def _rivals(names: State) -> tuple[str, ...]:
    """The library timm saves its own without the token of masked patches."""
    return () if has(names, "mask_token") else ("timm",)


LAYOUT = WeightLayout(
    "DINOv2",
    "https://github.com/facebookresearch/dinov2",
    encoders=at_places(MOMENTUM, PLACES),
    marks=(
        r"(model|state_dict)?/cls_token",
        r"(model|state_dict)?/pos_embed",
        r"(model|state_dict)?/blocks\.0\.ls1\.gamma",
    ),
    lacks=(r"[^/]*/(register_tokens|reg_token|norm_pre|rope).*",),
    where=_has_class_position,
    heads=MASKED,
    trunk=from_dinov2,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="offset",
    rivals=_rivals,
)
