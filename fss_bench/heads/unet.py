"""U-Net's decoder, from segmentation_models_pytorch, on the levels of any backbone."""

from collections.abc import Sequence

from segmentation_models_pytorch.base.initialization import (  # type: ignore[import-untyped]
    initialize_decoder,
)
from segmentation_models_pytorch.decoders.unet.decoder import (  # type: ignore[import-untyped]
    UnetDecoder,
)
from torch import Tensor

from fss_bench.backbone import Backbone, Level
from fss_bench.errors import FssBenchError
from fss_bench.heads.head import Head, blank_classifier, pyramid

WIDTHS = (256, 128, 64, 32, 16, 16)


class UNetHead(Head):
    """Ronneberger, Fischer and Brox, MICCAI 2015: upsample, join with the finer level, convolve.

    The last block has no finer level to join and doubles the side once more. By default levels
    finer than stride 4 are not used, so that logits are at half the input's side; a backbone with
    one level gives a decoder without skips.

    Args:
        levels: finest first, at most 6.
        classes: background and ways.

    Raises:
        FssBenchError: too many levels.
    """

    def __init__(self, levels: Sequence[Level], classes: int) -> None:
        super().__init__()
        if len(levels) > len(WIDTHS):
            raise FssBenchError(f"head=unet takes {len(WIDTHS)} levels at most, got {len(levels)}")
        widths = WIDTHS[: len(levels)]
        self.grow = min(2, levels[0].stride)
        channels = [0, *(level.channels for level in levels)]  # the first is only asked its size
        self.decoder = UnetDecoder(channels, widths, n_blocks=len(widths))
        initialize_decoder(self.decoder)
        self.classifier = blank_classifier(widths[-1], classes, 3)

    @classmethod
    def choose(cls, backbone: Backbone) -> list[str]:
        names = pyramid(backbone)
        return [name for name in names if backbone.levels[name].stride >= 4] or names

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [S, P, H, W] of maps [S, C, h, w], at twice the side of the finest."""
        height, width = maps[0].shape[-2:]
        outer = maps[0].new_empty(0, 0, self.grow * height, self.grow * width)
        return self.classifier(self.decoder([outer, *maps]))  # type: ignore[no-any-return]
