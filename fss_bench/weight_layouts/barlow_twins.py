"""Barlow Twins, a whole training's file. Zbontar et al., ICML 2021, arXiv 2103.03230.

Its published `resnet50.pth` has torchvision's names and no head: layout `timm`.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "Barlow Twins",
    "https://github.com/facebookresearch/barlowtwins",
    encoders=(Encoder(QUERY, "model/backbone."),),
    marks=(r"model/backbone\.conv1\.weight", r"model/bn\.running_mean"),
    others={r"model/(projector|bn)\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
