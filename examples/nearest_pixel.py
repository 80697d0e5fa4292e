"""Nearest pixel: every query cell takes the label of the most similar support cell."""

import torch.nn.functional as F
from torch import Tensor, stack

from fss_bench.backbone import Backbone, Features
from fss_bench.method import Method, methods


@methods.register("nearest_pixel")
class NearestPixel(Method):
    def __init__(
        self, backbone: Backbone, level: str | None = None, input_size: int | None = None
    ) -> None:
        super().__init__(backbone, [level or backbone.default_level], input_size)

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        (level,) = self.levels
        keys = F.normalize(support[level], dim=3).movedim(3, -1)  # [B, N, K, h, w, C]
        cells = F.normalize(query[level], dim=1)  # [B, C, h, w]
        masks = F.interpolate(support_masks.flatten(1, 2).float(), keys.shape[3:5])
        masks = masks.reshape(*support_masks.shape[:3], *keys.shape[3:5])
        similarity = (keys.flatten(3, 4) @ cells.flatten(2)[:, None, None]).flatten(2, 3)
        best = [
            similarity.masked_fill(masks.flatten(2)[..., None] != value, -1).amax(dim=2)
            for value in (1, 0)
        ]  # [B, N, hw] each
        logits = stack([best[1].amax(dim=1), *best[0].unbind(dim=1)], dim=1)
        return logits.unflatten(2, cells.shape[2:])
