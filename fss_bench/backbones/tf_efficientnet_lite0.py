"""EfficientNet-Lite0, small and quick; has `--weights packaged`. Tan & Le, ICML 2019."""

from fss_bench.backbone import backbones
from fss_bench.timm_backbone import TimmBackbone


@backbones.register("tf_efficientnet_lite0")
class EfficientNetLite0(TimmBackbone):
    """See `TimmBackbone` for the arguments."""

    def __init__(
        self,
        weights: str = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__("tf_efficientnet_lite0", weights, seed, output_stride, frozen)
