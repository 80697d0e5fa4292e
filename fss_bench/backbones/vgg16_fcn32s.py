"""VGG-16 of FCN-32s: padded by 81, pixels 0..255 in BGR. Shelhamer et al., TPAMI 2017."""

from fss_bench.backbone import Level, backbones
from fss_bench.vgg_backbone import Pool, VggBackbone
from fss_bench.weights import Weights

MEAN = (0.48109378172549, 0.45752457890196, 0.40787054090196)
"""RGB, of the Caffe weights; they take 0..255 without a division by a deviation."""


@backbones.register("vgg16_fcn32s")
class FCN32sVGG16(VggBackbone):
    """Trained with the method. c5 is the last pool, 6 cells larger than the 7x7 layer's output.

    There are no `imagenet` weights to download: torchvision's take other pixels. See
    `create_backbone` for the arguments.
    """

    def __init__(self, weights: Weights = "imagenet", seed: int = 0, frozen: bool = False) -> None:
        super().__init__(
            "vgg16_fcn32s",
            weights,
            seed,
            frozen,
            pools=5 * [Pool(2, 2, ceil=True)],
            levels={"c5": (30, Level(512, 32))},
            padding=81,
            mean=MEAN,
            std=3 * (1 / 255,),
            bgr=True,
        )
