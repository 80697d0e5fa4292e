"""tiny_means: pixels go to the class with the nearest mean; how sharply is learnt."""

import torch
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.method import Method
from fss_bench.ops import cosine_to_prototypes, masked_average_pool

CARD = {"paper": "A tiny paper", "venue": "Tiny", "year": 2026}


class TinyMeans(Method):
    def __init__(self, backbone: Backbone, input_size: int = 64) -> None:
        super().__init__(backbone, [backbone.default_level], input_size)
        self.scale = nn.Parameter(torch.tensor(10.0))

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        (level,) = self.levels
        on, off = (masked_average_pool(support[level], support_masks == v) for v in (1, 0))
        means = torch.cat([off.mean(dim=(1, 2))[:, None], on.mean(dim=2)], dim=1)
        return self.scale * cosine_to_prototypes(query[level], means)
