"""DINOv3's ConvNeXt, whose last norm has two names. Siméoni et al., 2025, arXiv 2508.10104."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DINOv3's ConvNeXt",
    "https://github.com/facebookresearch/dinov3",
    encoders=(Encoder(QUERY, "/"),),
    marks=(r"/downsample_layers\.0\.0\.weight", r"/stages\.0\.0\.gamma", r"/norms\.3\.weight"),
    heads={r"norms\.3\..*": "the last norm's second name"},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
