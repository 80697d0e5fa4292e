"""VGG-16 of SG-One: stride 8 by pools of stride 1, not dilated. Zhang et al., TCYB 2020."""

from fss_bench.backbone import Level, backbones
from fss_bench.vgg_backbone import Pool, VggBackbone
from fss_bench.weights import Weights


@backbones.register("vgg16_sgone")
class SGOneVGG16(VggBackbone):
    """Trained with the method. All levels have stride 8, each after its block's pool.

    See `create_backbone` for the arguments.
    """

    def __init__(self, weights: Weights = "imagenet", seed: int = 0, frozen: bool = False) -> None:
        super().__init__(
            "vgg16_sgone",
            weights,
            seed,
            frozen,
            pools=[*3 * [Pool(3, 2, 1)], *2 * [Pool(3, 1, 1)]],
            levels={
                "c3": (16, Level(256, 8)),
                "c4": (23, Level(512, 8)),
                "c5": (30, Level(512, 8)),
            },
        )
