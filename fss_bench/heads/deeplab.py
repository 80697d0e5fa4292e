"""DeepLabV3+'s decoder, from segmentation_models_pytorch, on two levels of any backbone."""

from collections.abc import Sequence

from segmentation_models_pytorch.base.initialization import (  # type: ignore[import-untyped]
    initialize_decoder,
)
from segmentation_models_pytorch.decoders.deeplabv3.decoder import (  # type: ignore[import-untyped]
    DeepLabV3PlusDecoder,
)
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Level
from fss_bench.errors import FssBenchError
from fss_bench.heads.head import Head, blank_classifier, pyramid, stride_list
from fss_bench.ops import resize_logits


class DeepLabHead(Head):
    """Chen et al., ECCV 2018: parallel dilated convolutions, then the maps of a finer level.

    Deep maps are those of stride 16, or the deepest below, fine ones those of stride 4. Dilations
    are 6, 12 and 18 at stride 16 and twice that below it. No dropout. The branch of the whole
    image has one value a channel and image, of which batch norm cannot tell a deviation: it has
    group norm (32 groups).

    Args:
        levels: two, finest first, whose strides differ by 2 or 4.
        classes: background and ways.

    Raises:
        FssBenchError: other levels.
    """

    def __init__(self, levels: Sequence[Level], classes: int) -> None:
        super().__init__()
        ratio = levels[-1].stride / levels[0].stride
        if len(levels) != 2 or ratio not in (2, 4):
            raise FssBenchError(
                f"head=deeplabv3plus takes two levels whose strides differ by 2 or 4, got strides "
                f"{stride_list(levels)}: choose a --backbone that has them, such as resnet50, or "
                "--option level=c2+c4"
            )
        rates = (6, 12, 18) if levels[-1].stride >= 16 else (12, 24, 36)
        self.ratio = int(ratio)
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=[0, 0, levels[0].channels, levels[1].channels],
            encoder_depth=4,
            out_channels=256,
            atrous_rates=rates,
            output_stride=16 if ratio == 4 else 8,  # which decides by how much it upsamples
            aspp_separable=True,
            aspp_dropout=0.0,
        )
        initialize_decoder(self.decoder)
        self.decoder.aspp[0].convs[-1][2] = nn.GroupNorm(32, 256)
        self.classifier = blank_classifier(256, classes, 1)

    @classmethod
    def choose(cls, backbone: Backbone) -> list[str]:
        names = pyramid(backbone)
        deep = [name for name in names if backbone.levels[name].stride <= 16][-1:] or names[-1:]
        fine = [
            n for n in names if 4 <= backbone.levels[n].stride < backbone.levels[deep[0]].stride
        ]
        return [*fine[:1], *deep]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [S, P, h, w] at `ratio` times the side of the deep maps.

        Fine maps are resized to that where an odd side was rounded on the way down.
        """
        fine, deep = maps
        size = (self.ratio * deep.shape[-2], self.ratio * deep.shape[-1])
        features = [None, None, resize_logits(fine, size), deep]
        return self.classifier(self.decoder(features))  # type: ignore[no-any-return]
