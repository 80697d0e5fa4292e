"""MoCo v3's ViT-S alone: written for DeiT by `convert_to_deit.py`, or with a linear classifier.

It has 12 heads, and nothing in the file tells. Chen et al., ICCV 2021, arXiv 2104.02057.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import (
    NOT_PLAIN,
    PLACES,
    PLAIN,
    fixed_in,
    is_headless,
    no_conv_stem,
    small_in,
    twelve_heads,
)
from fss_bench.weight_layout import HEAD, QUERY, State, WeightLayout, at_places


def _is_small_and_fixed(names: State) -> bool:
    return small_in(names) and fixed_in(names)


def _rivals(names: State) -> tuple[str, ...]:
    return ("mae", "timm") if is_headless(names) else ("timm",)


LAYOUT = WeightLayout(
    "MoCo v3's ViT-S of 12 heads",
    "https://github.com/facebookresearch/moco-v3",
    encoders=at_places(QUERY, PLACES),
    marks=PLAIN[:2],
    lacks=(*NOT_PLAIN, r"[^/]*/(fc_norm|mask_token).*"),
    where=_is_small_and_fixed,
    heads={r"head\..*": HEAD},
    options=twelve_heads,
    refuses=no_conv_stem,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
    rivals=_rivals,
)
