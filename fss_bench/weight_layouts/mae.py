"""MAE, with or without its decoder, pretrained or fine-tuned. He et al., CVPR 2022.

https://arxiv.org/abs/2111.06377. A fine-tuned file has its last norm after pooling, where feature
maps have none.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import is_fixed, is_small
from fss_bench.weight_layout import HEAD, QUERY, Encoder, State, WeightLayout


def _is_mae(names: State) -> bool:
    """No ViT-S is published; a classifier without `fc_norm` is DeiT's or timm's.

    A bare file is MAE's only where its positions are fixed: DINO's are learned.
    """
    if "model/pos_embed" not in names:
        table = names["/pos_embed"]
        return is_fixed(table) and not is_small(table) and "/head.weight" not in names
    decoder, tuned = "model/decoder_pred.weight" in names, "model/fc_norm.weight" in names
    headless = "model/head.weight" not in names and not is_small(names["model/pos_embed"])
    return decoder or tuned or headless


LAYOUT = WeightLayout(
    "MAE",
    "https://github.com/facebookresearch/mae",
    encoders=(Encoder(QUERY, "model/"), Encoder(QUERY, "/")),
    marks=(r"(model)?/pos_embed", r"(model)?/cls_token"),
    lacks=(r"(model)?/register_tokens", r"(model)?/blocks\.0\.ls1\..*"),
    where=_is_mae,
    heads={
        r"decoder_.*|mask_token": "the decoder",
        r"fc_norm\..*|head\..*": HEAD,
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
)
