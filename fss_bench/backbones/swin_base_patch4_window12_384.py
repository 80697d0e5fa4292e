"""Swin-B for 384x384 images. Liu et al., ICCV 2021. `imagenet` is 22k, tuned on 1k."""

from fss_bench.backbone import backbones
from fss_bench.timm_backbone import TimmBackbone
from fss_bench.weights import Weights


@backbones.register("swin_base_patch4_window12_384")
class SwinBase384(TimmBackbone):
    """See `TimmBackbone` for the arguments."""

    def __init__(
        self,
        weights: Weights = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__("swin_base_patch4_window12_384", weights, seed, output_stride, frozen)
