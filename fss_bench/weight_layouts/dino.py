"""DINO, a whole training's file; the paper evaluates the teacher. Caron et al., ICCV 2021.

https://arxiv.org/abs/2104.14294
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINO",
    "https://github.com/facebookresearch/dino",
    encoders=(Encoder(MOMENTUM, "teacher/backbone."), Encoder(QUERY, "student/backbone.")),
    marks=(r"teacher/backbone\..*", r"student/backbone\..*"),
    others={r"(teacher|student)/head\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    positions="offset",
)
