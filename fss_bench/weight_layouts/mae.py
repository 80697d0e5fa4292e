"""MAE, with or without its decoder, pretrained or fine-tuned. He et al., CVPR 2022.

https://arxiv.org/abs/2111.06377. A fine-tuned file has its last norm after pooling, where feature
maps have none.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import (
    NOT_PLAIN,
    PLACES,
    PLAIN,
    fixed_in,
    has,
    is_headless,
    is_plain,
    small_in,
)
from fss_bench.weight_layout import HEAD, QUERY, State, WeightLayout, at_places


def _is_mae(names: State) -> bool:
    """Positions are fixed until a network is fine-tuned, as a whole, with a norm after pooling."""
    if has(names, "decoder_pred.weight"):
        return True
    tuned = has(names, "fc_norm.weight") and not has(names, "norm.weight")
    return is_plain(names) and (tuned or (is_headless(names) and fixed_in(names)))


def _is_told(names: State) -> bool:
    """No ViT-S is published without its decoder: such a file may be MoCo v3's."""
    alone = is_headless(names) and not has(names, "decoder_pred.weight")
    return not (alone and small_in(names))


def _rivals(names: State) -> tuple[str, ...]:
    """A norm after pooling has timm too; MAE's own code writes under `model`."""
    return ("timm",) if has(names, "fc_norm.weight") and "model/fc_norm.weight" not in names else ()


LAYOUT = WeightLayout(
    "MAE",
    "https://github.com/facebookresearch/mae",
    encoders=at_places(QUERY, PLACES),
    marks=PLAIN[:2],
    lacks=tuple(pattern.replace("decoder|", "") for pattern in NOT_PLAIN),
    where=_is_mae,
    told=_is_told,
    heads={
        r"decoder_.*|mask_token": "the decoder",
        r"fc_norm\..*|head\..*": HEAD,
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
    rivals=_rivals,
)
