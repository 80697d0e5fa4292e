"""DINOv2's training code's teacher with registers, blocks in chunks or not. Darcet et al., 2024."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import from_dinov2
from fss_bench.weight_layout import HEAD, MOMENTUM, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINOv2's teacher with registers",
    "https://github.com/facebookresearch/dinov2",
    encoders=(Encoder(MOMENTUM, "teacher/backbone."),),
    marks=(r"teacher/backbone\.register_tokens", r"teacher/(dino_head|ibot_head)\..*"),
    heads={"mask_token": "the token of masked patches, used in training alone"},
    others={r"teacher/(dino_head|ibot_head)\..*": HEAD},
    trunk=from_dinov2,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
