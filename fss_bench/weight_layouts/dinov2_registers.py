"""DINOv2 with registers. Darcet et al., ICLR 2024, https://arxiv.org/abs/2309.16588."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import from_dinov2
from fss_bench.weight_layout import MOMENTUM, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINOv2 with registers",
    "https://github.com/facebookresearch/dinov2",
    encoders=(Encoder(MOMENTUM, "/"),),
    marks=("/register_tokens", "/pos_embed", r"/blocks\.0\.ls1\.gamma"),
    heads={"mask_token": "the token of masked patches, used in training alone"},
    trunk=from_dinov2,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
