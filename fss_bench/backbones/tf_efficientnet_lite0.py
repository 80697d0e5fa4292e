"""EfficientNet-Lite0, small and quick; has `--weights packaged`. Tan & Le, ICML 2019."""

from fss_bench.backbone import backbones
from fss_bench.timm_backbone import TimmBackbone
from fss_bench.timm_blocks import Tap
from fss_bench.weights import Weights


@backbones.register("tf_efficientnet_lite0")
class EfficientNetLite0(TimmBackbone):
    """See `TimmBackbone` for the arguments.

    Two stages have stride 32: `c5_0` is the first of them (192 channels), `c5` the second (320).
    The default level and size are the best of those measured in docs/panet-levels.md. Sizes that
    are no multiple of 32 shift the deep features by about a cell, because of its padding.
    """

    def __init__(
        self,
        weights: Weights = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__(
            "tf_efficientnet_lite0",
            weights,
            seed,
            output_stride,
            frozen,
            taps={"c5_0": Tap("blocks.5", "c5", 192)},
            default_size=384,
            default_level="c5_0",
        )
