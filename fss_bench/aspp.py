"""Atrous spatial pyramid pooling. Chen et al., https://arxiv.org/abs/1706.05587."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ASPP(nn.Module):
    """A global mean, a 1x1 and dilated 3x3 convolutions side by side, each with bias and ReLU.

    Args:
        channels: in, and out of every branch.
        dilations: of the 3x3 convolutions.
    """

    def __init__(self, channels: int, dilations: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 1) for _ in range(2)]
        convolutions += [
            nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate) for rate in dilations
        ]
        self.branches = nn.ModuleList(nn.Sequential(c, nn.ReLU()) for c in convolutions)

    def forward(self, maps: Tensor) -> Tensor:
        """Branches of [B, C, h, w] joined, the global one first: [B, C * (2 + dilations), h, w]."""
        means = maps.mean(dim=(2, 3), keepdim=True)
        whole = self.branches[0](means).expand(-1, -1, *maps.shape[-2:])
        return torch.cat([whole, *(branch(maps) for branch in self.branches[1:])], dim=1)
