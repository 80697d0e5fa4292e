"""VGG-16 of PANet: stride 8, dilated block 5, no last ReLU. Wang et al., ICCV 2019."""

from fss_bench.backbone import Level, backbones
from fss_bench.vgg_backbone import Pool, VggBackbone
from fss_bench.weights import Weights


@backbones.register("vgg16_panet")
class PANetVGG16(VggBackbone):
    """Trained with the method; its one level c5 is the last convolution, signed.

    See `create_backbone` for the arguments.
    """

    def __init__(self, weights: Weights = "imagenet", seed: int = 0, frozen: bool = False) -> None:
        super().__init__(
            "vgg16_panet",
            weights,
            seed,
            frozen,
            pools=[Pool(3, 2, 1), Pool(3, 2, 1), Pool(3, 2, 1), Pool(3, 1, 1), None],
            levels={"c5": (28, Level(512, 8))},
            dilation=2,
        )
