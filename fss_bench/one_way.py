"""Methods that tell one class from background; several ways are as many questions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fss_bench.backbone import Features
from fss_bench.part_method import PartMethod, Size, stacked
from fss_bench.shots import merge_ways


class OneWayMethod(PartMethod):
    """A method whose network answers for one class at a time.

    It defines `compare_one`, and what it needs of supports and queries (see `PartMethod`); or
    `segment_one` alone, where that is all of their features.
    """

    def compare_one(self, supports: Sequence[Features], query: Features, size: Size) -> Tensor:
        """Logits [1, 2, h, w] of one class: background, foreground.

        Args:
            supports: parts of K supports.
            query: the query's part.
            size: (H, W) of the input.
        """
        features, masks = stacked(supports)
        return self.segment_one(features, masks, query)

    def segment_one(self, support: Features, masks: Tensor, query: Features) -> Tensor:
        """Logits [1, 2, h, w] of one class: background, foreground.

        Args:
            support: [K, C, h, w] a level.
            masks: [K, H, W] with 1 on the class, 0 off it, 255 ignore.
            query: [1, C, h, w] a level.
        """
        if type(self).compare_one is OneWayMethod.compare_one:
            raise NotImplementedError(f"{type(self).__name__} must define compare_one")
        parts = [
            self.support_part({level: maps[k : k + 1] for level, maps in support.items()}, mask)
            for k, mask in enumerate(masks)
        ]
        size = (masks.shape[-2], masks.shape[-1])
        return self.compare_one(parts, self.query_part(query), size)

    def compare(
        self, supports: Sequence[Sequence[Features]], query: Features, size: Size
    ) -> Tensor:
        """Logits [1, 1 + N, h, w]; see `merge_ways`."""
        answers = [self.compare_one(way, query, size) for way in supports]
        return merge_ways(torch.cat(answers))[None]
