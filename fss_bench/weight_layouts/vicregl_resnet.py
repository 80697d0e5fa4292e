"""VICRegL's published ResNet-50, as other codes publish theirs too. Bardes et al., NeurIPS 2022.

https://arxiv.org/abs/2210.01571. Read so by name alone; its code divides the red channel by 0.228,
layout `timm` by 0.229.
"""

from fss_bench.backbone import IMAGENET_MEAN
from fss_bench.resnet_files import BARE_RESNET, PLACES, never_told
from fss_bench.weight_layout import QUERY, WeightLayout, at_places

LAYOUT = WeightLayout(
    "VICRegL's ResNet",
    "https://github.com/facebookresearch/VICRegL",
    encoders=at_places(QUERY, PLACES),
    marks=BARE_RESNET,
    told=never_told,
    mean=IMAGENET_MEAN,
    std=(0.228, 0.224, 0.225),
)
