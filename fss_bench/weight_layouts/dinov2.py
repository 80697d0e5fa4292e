"""DINOv2 without registers. Oquab et al., TMLR 2024, https://arxiv.org/abs/2304.07193."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import from_dinov2
from fss_bench.weight_layout import MOMENTUM, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINOv2",
    "https://github.com/facebookresearch/dinov2",
    encoders=(Encoder(MOMENTUM, "/"),),
    marks=("/mask_token", "/pos_embed", r"/blocks\.0\.ls1\.gamma"),
    lacks=("/register_tokens",),
    heads={"mask_token": "the token of masked patches, used in training alone"},
    trunk=from_dinov2,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="offset",
)
