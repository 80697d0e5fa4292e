"""MoCo v3's transformers, but the ViT-S, with a linear classifier. Chen et al., ICCV 2021.

arXiv 2104.02057. Nothing but the classifier was trained by it: positions are still fixed.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import (
    NOT_PLAIN,
    PLACES,
    PLAIN,
    fixed_in,
    has,
    no_conv_stem,
    small_in,
)
from fss_bench.weight_layout import HEAD, QUERY, State, WeightLayout, at_places


def _is_classifier(names: State) -> bool:
    return has(names, "head.weight") and fixed_in(names) and not small_in(names)


LAYOUT = WeightLayout(
    "MoCo v3's transformer with a linear classifier",
    "https://github.com/facebookresearch/moco-v3",
    encoders=at_places(QUERY, PLACES),
    marks=PLAIN[:2],
    lacks=(*NOT_PLAIN, r"[^/]*/(fc_norm|mask_token).*"),
    where=_is_classifier,
    heads={r"head\..*": HEAD},
    refuses=no_conv_stem,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
)
