"""DeiT without distillation, and others of its code. Touvron et al., ICML 2021, arXiv 2012.12877.

Names are those of every plain vision transformer with a classifier, of which timm's own `vit_` want
other statistics.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import NOT_PLAIN, PLACES, PLAIN, fixed_in, has, is_plain
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, State, WeightLayout, at_places


def _is_classifier(names: State) -> bool:
    return has(names, "head.weight") and is_plain(names) and not fixed_in(names)


def _rivals(_: State) -> tuple[str, ...]:
    return ("timm",)


LAYOUT = WeightLayout(
    "DeiT",
    "https://github.com/facebookresearch/deit",
    encoders=(*at_places(QUERY, PLACES), *at_places(MOMENTUM, ("model_ema",))),
    marks=PLAIN,
    lacks=(*NOT_PLAIN, r"[^/]*/(fc_norm|mask_token).*"),
    where=_is_classifier,
    heads={r"head\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
    rivals=_rivals,
)
