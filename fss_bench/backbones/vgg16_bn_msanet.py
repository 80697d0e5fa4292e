"""VGG-16 with batch norm as in PFENet, BAM and MSANet: pools round up, the fifth is left out.

Simonyan & Zisserman, ICLR 2015. Strides 2, 4, 8, 16, 16. The maps of `blocks` are what MSANet
compares: raw convolution outputs, before batch norm; those of `c4` are finer than `c4`, whose pool
comes after them. `imagenet` is torchvision's.
"""

from fss_bench.backbone import Level, backbones
from fss_bench.vgg_backbone import Pool, VggBackbone
from fss_bench.weights import Weights

HALVE = Pool(2, 2, ceil=True)
LEVELS = {
    "c1": (6, Level(64, 2)),
    "c2": (13, Level(128, 4)),
    "c3": (23, Level(256, 8)),
    "c4": (33, Level(512, 16)),
    "c5": (42, Level(512, 16)),
}
BLOCKS = {
    "c3": {f"c3.{i}": (layer, Level(256, 4)) for i, layer in enumerate((14, 17, 20))},
    "c4": {f"c4.{i}": (layer, Level(512, 8)) for i, layer in enumerate((24, 27, 30))},
    "c5": {f"c5.{i}": (layer, Level(512, 16)) for i, layer in enumerate((34, 37, 40))},
}


@backbones.register("vgg16_bn_msanet")
class VGG16BNMSANet(VggBackbone):
    """See `VggBackbone` for the arguments."""

    def __init__(self, weights: Weights = "imagenet", seed: int = 0, frozen: bool = True) -> None:
        super().__init__(
            "vgg16_bn_msanet",
            weights,
            seed,
            frozen,
            pools=(HALVE, HALVE, HALVE, HALVE, None),
            levels=LEVELS,
            blocks=BLOCKS,
            architecture="vgg16_bn",
            default_level="c4",
        )
