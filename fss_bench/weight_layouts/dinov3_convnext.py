"""DINOv3's ConvNeXt, whose last norm has two names. Siméoni et al., 2025, arXiv 2508.10104."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.convnext_files import FIRST, PLACES
from fss_bench.weight_layout import MOMENTUM, WeightLayout, at_places

LAYOUT = WeightLayout(
    "DINOv3's ConvNeXt",
    "https://github.com/facebookresearch/dinov3",
    encoders=at_places(MOMENTUM, PLACES),
    marks=(
        FIRST,
        r"(model|state_dict)?/stages\.0\.0\.gamma",
        r"(model|state_dict)?/norms\.3\.weight",
    ),
    heads={r"norms\.3\..*": "the last norm's second name"},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
