"""VICRegL, a whole training's file: ResNet or ConvNeXt. Bardes et al., NeurIPS 2022.

https://arxiv.org/abs/2210.01571. Its code divides the red channel by 0.228, and its ConvNeXt has no
layer scale: timm's is set to one. What tells it from VICReg is the
classifier that it trains beside.
"""

from fss_bench.backbone import IMAGENET_MEAN
from fss_bench.convnext_files import with_layer_scale
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "VICRegL",
    "https://github.com/facebookresearch/VICRegL",
    encoders=(Encoder(QUERY, "model/backbone."),),
    marks=(
        r"model/backbone\..*",
        r"model/(maps_)?projector\..*",
        r"model/(maps_projector\..*|classifier\.weight)",
    ),
    heads={r"(head|fc)\..*": HEAD},
    others={r"model/(maps_)?projector\..*|model/classifier\..*": HEAD},
    trunk=with_layer_scale,
    mean=IMAGENET_MEAN,
    std=(0.228, 0.224, 0.225),
)
