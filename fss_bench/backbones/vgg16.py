"""VGG-16 without batch norm. Simonyan & Zisserman, ICLR 2015. `imagenet` is torchvision's."""

from fss_bench.backbone import backbones
from fss_bench.timm_backbone import TimmBackbone
from fss_bench.weights import Weights


@backbones.register("vgg16")
class VGG16(TimmBackbone):
    """See `TimmBackbone` for the arguments."""

    def __init__(
        self,
        weights: Weights = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__("vgg16", weights, seed, output_stride, frozen)
