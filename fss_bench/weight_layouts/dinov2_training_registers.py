"""DINOv2's training code's teacher with registers, blocks in chunks or not. Darcet et al., 2024."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import DINOV2_HEADS, MASKED, from_dinov2
from fss_bench.weight_layout import HEAD, MOMENTUM, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINOv2's teacher with registers",
    "https://github.com/facebookresearch/dinov2",
    encoders=(Encoder(MOMENTUM, "teacher/backbone."),),
    marks=(r"teacher/backbone\.register_tokens", DINOV2_HEADS),
    heads=MASKED,
    others={DINOV2_HEADS: HEAD},
    trunk=from_dinov2,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
