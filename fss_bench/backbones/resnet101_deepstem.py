"""ResNet-101 with PSPNet's deep stem, dilated to stride 8: the network of PFENet, BAM and MSANet.

Zhao et al., CVPR 2017, https://arxiv.org/abs/1612.01105. Weights come from a file, such as
`resnet101_v2.pth` of PFENet, or from a method's checkpoint; timm has none.
"""

from fss_bench.backbone import backbones
from fss_bench.deep_stem import DeepStemBackbone
from fss_bench.weights import Weights


@backbones.register("resnet101_deepstem")
class ResNet101DeepStem(DeepStemBackbone):
    """See `TimmBackbone` for the arguments."""

    def __init__(self, weights: Weights = "imagenet", seed: int = 0, frozen: bool = True) -> None:
        super().__init__("resnet101_deepstem", (3, 4, 23, 3), weights, seed, frozen)
