"""MoCo v3. Chen et al., ICCV 2021, https://arxiv.org/abs/2104.02057. Its ViT-S has 12 heads."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import no_conv_stem, twelve_heads
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "MoCo v3",
    "https://github.com/facebookresearch/moco-v3",
    encoders=(
        Encoder(QUERY, "state_dict/base_encoder."),
        Encoder(MOMENTUM, "state_dict/momentum_encoder."),
    ),
    marks=(r"state_dict/base_encoder\..+",),
    heads={r"(fc|head)\..*": HEAD},
    others={r"state_dict/predictor\..*": HEAD},
    options=twelve_heads,
    refuses=no_conv_stem,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="bicubic",
)
