"""MoCo v3's ViT-S alone: written for DeiT by `convert_to_deit.py`, or with a linear classifier.

It has 12 heads, and nothing in the file tells. Chen et al., ICCV 2021, arXiv 2104.02057.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import is_fixed, is_small, no_conv_stem, twelve_heads
from fss_bench.weight_layout import HEAD, QUERY, Encoder, State, WeightLayout

PLACES = ("model", "state_dict", "")


def _is_small_and_fixed(names: State) -> bool:
    table = next(names[f"{p}/pos_embed"] for p in PLACES if f"{p}/pos_embed" in names)
    return is_small(table) and is_fixed(table)


LAYOUT = WeightLayout(
    "MoCo v3's ViT-S of 12 heads",
    "https://github.com/facebookresearch/moco-v3",
    encoders=tuple(Encoder(QUERY, f"{place}/") for place in PLACES),
    marks=(r"(model|state_dict)?/pos_embed", r"(model|state_dict)?/cls_token"),
    lacks=(r"[^/]*/(fc_norm|decoder|mask_token).*",),
    where=_is_small_and_fixed,
    heads={r"head\..*": HEAD},
    options=twelve_heads,
    refuses=no_conv_stem,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
    rivals=("timm",),
)
