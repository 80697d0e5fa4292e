"""A cosine classifier that starts at the class means of the supports."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Level
from fss_bench.errors import FssBenchError
from fss_bench.heads.head import Head
from fss_bench.ops import cosine_to_prototypes, transposed_resize


class CosineHead(Head):
    """Logits are `scale` times the cosine of a cell with the vector of a class.

    As in RePRI (Boudiaf et al., CVPR 2021), without its bias. Only directions count, so the vectors
    start with a root mean square of 1: a learning rate means the same on any backbone.

    Args:
        levels: one.
        classes: background and ways.
        scale: factor on the cosine.

    Raises:
        FssBenchError: several levels.
    """

    lr, balanced, informed = 0.025, False, True

    def __init__(self, levels: Sequence[Level], classes: int, scale: float = 20.0) -> None:
        super().__init__()
        if len(levels) != 1:
            raise FssBenchError(f"head=cosine takes one level, got {len(levels)}: name one")
        self.scale = scale
        self.vectors = nn.Parameter(torch.zeros(classes, levels[0].channels))

    @classmethod
    def choose(cls, backbone: Backbone) -> list[str]:
        return [backbone.default_level]

    def check(self, maps: Sequence[Tensor]) -> None:
        """It takes maps of any size."""

    def begin(self, maps: Sequence[Tensor], labels: Tensor) -> None:
        """Start at class means; a class without a pixel starts at zero, at cosine 0 with all."""
        means = class_means(maps[0], labels, len(self.vectors))
        self.vectors.data = F.normalize(means, dim=1) * means.shape[1] ** 0.5

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [S, P, h, w] of maps [S, C, h, w]."""
        vectors = self.vectors.expand(len(maps[0]), *self.vectors.shape)
        return self.scale * cosine_to_prototypes(maps[0], vectors)


def class_means(maps: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean feature of a class over its pixels in all supports together: [P, C].

    Pooling is at the resolution of the features, by the transpose of upsampling; see
    `transposed_resize`.

    Args:
        maps: [S, C, h, w].
        labels: [S, H, W] long, 255 ignore.
        classes: P.
    """
    means = []
    for label in range(classes):
        inside = (labels == label).to(maps.dtype)
        cells = transposed_resize(inside, (maps.shape[-2], maps.shape[-1]))
        total = torch.einsum("schw,shw->c", maps, cells)
        means.append(total / inside.sum().clamp(min=1))
    return torch.stack(means)
