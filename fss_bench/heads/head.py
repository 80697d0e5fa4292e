"""What a head is: maps of a backbone in, logits out, made anew for every episode."""

import re
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fss_bench.backbone import Backbone, Level
from fss_bench.errors import FssBenchError


class Head(nn.Module):
    """A head; subclasses take `levels` and `classes`, and define `forward`.

    Attributes:
        lr: the learning rate it is fitted with unless told otherwise.
        balanced: whether pixels are weighted by the median frequency of their class: with few
            pixels of a class, decoders that start blank are slow to say anything but background.
        informed: whether it says something before the first step.
    """

    lr: ClassVar[float] = 1e-3
    balanced: ClassVar[bool] = True
    informed: ClassVar[bool] = False

    @classmethod
    def choose(cls, backbone: Backbone) -> list[str]:
        """Names of the levels it uses by default, finest first."""
        return pyramid(backbone)

    def begin(self, maps: Sequence[Tensor], labels: Tensor) -> None:
        """Set what the supports tell before the first step; see `Supports` for the arguments."""

    def check(self, maps: Sequence[Tensor]) -> None:
        """Raise FssBenchError where batch norm has one value a channel and can tell nothing."""
        if maps[-1].shape[-2:].numel() < 2:
            raise FssBenchError(
                "this head needs 2 cells or more in its deepest maps, which have 1: use a larger "
                "--option input_size, or --option head=cosine"
            )


def pyramid(backbone: Backbone) -> list[str]:
    """The deepest level of every stride, finest first; maps inside a stage are left out."""
    by_stride = {
        size.stride: name for name, size in backbone.levels.items() if re.fullmatch(r"c\d+", name)
    }
    return [by_stride[stride] for stride in sorted(by_stride)] or [backbone.default_level]


def blank_classifier(width: int, classes: int, kernel: int) -> nn.Conv2d:
    """A last convolution that starts at zero: no class is preferred for its place."""
    layer = nn.Conv2d(width, classes, kernel, padding=kernel // 2)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def stride_list(levels: Sequence[Level]) -> str:
    """Strides as text, for messages."""
    return ", ".join(str(level.stride) for level in levels)
