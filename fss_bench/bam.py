"""BAM's parts that MSANet keeps: shot weights, meta learner, ensemble with a base learner.

Lang et al., "Learning What Not to Segment", CVPR 2022, https://arxiv.org/abs/2203.07615.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.aspp import ASPP
from fss_bench.similarity import in_fp32

WIDTH = 256
"""Channels of the meta learner."""


class ShotWeights(nn.Module):
    """Weights of K shots from how unlike the query they are.

    Args:
        shots: K, of which the layers are made; 1 has none.
        by_input_order: give the weights to the shots in the order they come, not to those of their
            rank: a fault of MSANet's code.
    """

    def __init__(self, shots: int, by_input_order: bool) -> None:
        super().__init__()
        self.shots, self.by_input_order = shots, by_input_order
        if shots > 1:
            self.kshot_rw = nn.Sequential(nn.Conv2d(shots, 2, 1), nn.ReLU(), nn.Conv2d(2, shots, 1))

    @in_fp32
    def forward(self, distances: Tensor) -> Tensor:
        """Distances [K] to weights [K] of sum 1; equal ones for another number of shots."""
        if self.shots == 1 or len(distances) != self.shots:
            return torch.full_like(distances, 1 / len(distances))
        ordered, order = distances.sort()
        by_rank: Tensor = self.kshot_rw(ordered[None, :, None, None])[0, :, 0, 0].softmax(dim=0)
        return by_rank if self.by_input_order else by_rank[order.argsort()]


class MetaLearner(nn.Module):
    """From everything known of query and class to foreground and background.

    Its first layer is linear: what each image brings to it is found on its own (`share`), and the
    shares are added up, where published code joins the images' maps.

    Args:
        parts: name -> channels of what is joined, in order.
    """

    def __init__(self, parts: Mapping[str, int]) -> None:
        super().__init__()
        self.parts = dict(parts)
        channels = sum(self.parts.values())
        self.init_merge = nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), nn.ReLU())
        self.aspp = ASPP(WIDTH)
        self.res1 = nn.Sequential(nn.Conv2d(5 * WIDTH, WIDTH, 1, bias=False), nn.ReLU())
        self.res2 = nn.Sequential(_conv3(), nn.ReLU(), _conv3(), nn.ReLU())
        self.cls = nn.Sequential(_conv3(), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(WIDTH, 2, 1))

    def share(self, part: str, maps: Tensor) -> Tensor:
        """What maps [1, C, h, w] of a part bring to the first layer: [1, 256, h, w]."""
        first: Any = self.init_merge[0]
        weights = torch.split(first.weight, list(self.parts.values()), dim=1)
        found = F.conv2d(maps, weights[list(self.parts).index(part)])
        return found.float()  # sums of shares are fp32

    def forward(self, merged: Tensor) -> Tensor:
        """Sums [1, 256, h, w] of shares to logits [1, 2, h, w]."""
        if merged.device.type == "cpu":  # where dilated convolutions are faster so
            merged = merged.contiguous(memory_format=torch.channels_last)
        maps = self._pyramid(self.init_merge[1](merged))
        logits: Tensor = self.cls(self.res2(maps) + maps)
        return logits

    def _pyramid(self, maps: Tensor) -> Tensor:
        """`res1` of `aspp`, whose first branch is one cell for all: it is not spread."""
        first: Any = self.res1[0]
        whole, *branches = self.aspp.branches
        of_whole, weight = first.weight[:, :WIDTH], first.weight[:, WIDTH:]
        joined = torch.cat([branch(maps) for branch in branches], dim=1)
        constant = F.conv2d(whole(maps.mean(dim=(2, 3), keepdim=True)), of_whole)
        found: Tensor = self.res1[1](F.conv2d(joined, weight) + constant)
        return found


class Ensemble(nn.Module):
    """Base classes are background, and all scores depend on how unlike the images are."""

    def __init__(self) -> None:
        super().__init__()
        self.gram_merge, self.cls_merge = _blend(), _blend()

    @in_fp32
    def forward(
        self, meta: Tensor, base: Tensor, unlike: Tensor, base_class: int | None = None
    ) -> Tensor:
        """Scores [1, 2, h, w], background first, about 0 to 1.5.

        Args:
            meta: [1, 2, h, w] logits of the meta learner.
            base: [1, 1 + base classes, h, w] logits of the base learner.
            unlike: scalar, the distance of query and supports.
            base_class: in training, which of the base classes, from 0, is the class in question:
                it does not count as background.
        """
        meta, base = meta.float().softmax(dim=1), base.float().softmax(dim=1)
        counted = [c for c in range(1, base.shape[1]) if c - 1 != base_class]
        others = base[:, counted].sum(dim=1, keepdim=True)
        level = unlike.float().expand_as(others)
        background = self.gram_merge(torch.cat([meta[:, :1], level], dim=1))
        foreground = self.gram_merge(torch.cat([meta[:, 1:], level], dim=1))
        background = self.cls_merge(torch.cat([background, others], dim=1))
        return torch.cat([background, foreground], dim=1)


def _conv3() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)


def _blend() -> nn.Conv2d:
    """Two maps to one; at first the first of them."""
    blend = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        blend.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    return blend
