"""VICReg, a whole training's file. Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906.

Its published `resnet50.pth` has torchvision's names and no head: layout `timm`.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "VICReg",
    "https://github.com/facebookresearch/vicreg",
    encoders=(Encoder(QUERY, "model/backbone."),),
    marks=(r"model/backbone\.conv1\.weight", r"model/projector\..*"),
    lacks=(r"model/(bn|maps_projector|classifier)\..*",),
    others={r"model/projector\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
