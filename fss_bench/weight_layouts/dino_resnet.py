"""DINO's published ResNet-50: the teacher's, as other codes publish theirs too. ICCV 2021.

Caron et al., arXiv 2104.14294. Read so by name alone; layout `timm` gives the same numbers.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.resnet_files import BARE_RESNET, PLACES, never_told
from fss_bench.weight_layout import MOMENTUM, WeightLayout, at_places

LAYOUT = WeightLayout(
    "DINO's ResNet",
    "https://github.com/facebookresearch/dino",
    encoders=at_places(MOMENTUM, PLACES),
    marks=BARE_RESNET,
    told=never_told,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
