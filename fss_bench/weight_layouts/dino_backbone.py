"""DINO's published vision transformers: the teacher's backbone alone. Caron et al., ICCV 2021.

Other transformers without a head have the same names; `layout=timm` reads a file as timm's own.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import is_fixed
from fss_bench.weight_layout import MOMENTUM, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINO's ViT",
    "https://github.com/facebookresearch/dino",
    encoders=(Encoder(MOMENTUM, "/"),),
    marks=("/cls_token", "/pos_embed", r"/blocks\.0\.attn\.qkv\.weight", "/norm.weight"),
    lacks=(
        r"/(head|fc_norm|decoder|norm_pre|dist_token).*",
        r"/(mask_token|register_tokens|reg_token|storage_tokens)",
        r"/blocks\.0\.(ls1|gamma).*",
    ),
    where=lambda names: not is_fixed(names["/pos_embed"]),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="offset",
)
