"""ResNet-101, 7x7 stem. He et al., CVPR 2016. `imagenet` is timm's a1h_in1k."""

from fss_bench.backbone import backbones
from fss_bench.timm_backbone import TimmBackbone
from fss_bench.weights import Weights


@backbones.register("resnet101")
class ResNet101(TimmBackbone):
    """See `TimmBackbone` for the arguments."""

    def __init__(
        self,
        weights: Weights = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__("resnet101", weights, seed, output_stride, frozen)
