"""Methods that reduce each image on its own to what the comparison needs of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fss_bench.backbone import Features
from fss_bench.method import Method

Size = tuple[int, int]


class PartMethod(Method):
    """A method in three steps: of a support and its mask, of a query, and of an episode.

    The first two know nothing of the episode: evaluation takes them once for every image and mask,
    however often these come up, and keeps nothing else of an image. A part holds tensors of any
    shapes by name. `segment` and `forward` are the composition.
    """

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """What is needed of a support; by default its features and its mask.

        Args:
            features: [1, C, h, w] a level, as `encode` gives them.
            mask: [H, W] with 1 on the way's class, 0 off it, 255 ignore.
        """
        return {**features, MASK: mask}

    def query_part(self, features: Features) -> Features:
        """What is needed of a query, of features [1, C, h, w] a level; by default all."""
        return features

    def compare(
        self, supports: Sequence[Sequence[Features]], query: Features, size: Size
    ) -> Tensor:
        """Logits [1, 1 + N, h, w] of an episode; what such a method implements.

        Args:
            supports: parts of N ways with K supports each.
            query: the query's part.
            size: (H, W) of the input.
        """
        raise NotImplementedError(f"{type(self).__name__} must define compare")

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        """Logits [B, 1 + N, h, w], an episode at a time: none depends on what else is given."""
        batch, ways, shots = support_masks.shape[:3]
        size = (support_masks.shape[-2], support_masks.shape[-1])
        answers = []
        for b in range(batch):
            parts = [
                [
                    self.support_part(
                        {level: maps[b, w, k : k + 1] for level, maps in support.items()},
                        support_masks[b, w, k],
                    )
                    for k in range(shots)
                ]
                for w in range(ways)
            ]
            own = {level: maps[b : b + 1] for level, maps in query.items()}
            answers.append(self.compare(parts, self.query_part(own), size))
        return torch.cat(answers)


MASK = "mask"
"""Name of the mask in a support's part that holds it."""


class Stacked(NamedTuple):
    """Supports' parts of one way, put together: features [K, C, h, w] and masks [K, H, W]."""

    features: Features
    masks: Tensor


def stacked(parts: Sequence[Features]) -> Stacked:
    """The default parts of supports together again."""
    names = [name for name in parts[0] if name != MASK]
    return Stacked(
        {name: torch.cat([part[name] for part in parts]) for name in names},
        torch.stack([part[MASK] for part in parts]),
    )


def in_parts(method: nn.Module) -> bool:
    """Whether a method's images are kept as parts: its `segment` is the composition of them."""
    return (
        isinstance(method, PartMethod)
        and type(method).segment is PartMethod.segment
        and type(method).forward is Method.forward
    )
