"""Methods that tell one class from background; several ways are as many questions."""

import torch
from torch import Tensor

from fss_bench.backbone import Features
from fss_bench.method import Method
from fss_bench.shots import merge_ways


class OneWayMethod(Method):
    """A method whose network answers for one class at a time.

    Every episode and way goes through `segment_one` on its own, so answers do not depend on what
    else is in the batch.
    """

    def segment_one(self, support: Features, masks: Tensor, query: Features) -> Tensor:
        """Logits [1, 2, h, w] of one class: background, foreground; what such a method implements.

        Args:
            support: [K, C, h, w] a level.
            masks: [K, H, W] with 1 on the class, 0 off it, 255 ignore.
            query: [1, C, h, w] a level.
        """
        raise NotImplementedError(f"{type(self).__name__} must define segment_one")

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        """Logits [B, 1 + N, h, w]; see `merge_ways`."""
        batch, ways = support_masks.shape[:2]
        episodes = []
        for b in range(batch):
            own = {level: maps[b : b + 1] for level, maps in query.items()}
            answers = [
                self.segment_one(
                    {level: maps[b, w] for level, maps in support.items()}, support_masks[b, w], own
                )
                for w in range(ways)
            ]
            episodes.append(merge_ways(torch.cat(answers)))
        return torch.stack(episodes)
