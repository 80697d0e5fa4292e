"""Guided networks: a few annotated pixels become a vector a class that guides a shared head.

Rakelly, Shelhamer, Darrell, Efros, Levine, "Few-Shot Segmentation Propagation with Guided
Networks", 2018, https://arxiv.org/abs/1806.07373. Published code:
https://github.com/shelhamer/revolver (models cofeat-late and cofeat-late-lite).

Differs from the paper: any backbone; images are warped to a square by the evaluator.
Differs from the published code: the head's first layer is split into its query and guide parts, so
that nothing is tiled; the guide is a value, not a buffer of the network. Published: a support
without any annotation ends the guide, later shots are not used (`official`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.fcn import annotation_grid, decode, is_aligned, seven_by_seven, two_annotations
from fss_bench.method import EPISODES, methods
from fss_bench.ops import extent
from fss_bench.part_method import MASK, PartMethod, Size

CARD = {
    "paper": "Few-Shot Segmentation Propagation with Guided Networks",
    "year": 2018,
    "venue": "arXiv",
    "backbones": {"vgg16_fcn32s": 21400641},
    "input_size": 417,
    "paper_input": "native",
}


@dataclass(frozen=True)
class Guide:
    """What supports say of every class, background first.

    Attributes:
        vectors: [P, C], the mean over the supports that show the class.
        counts: [P], how many did.
    """

    vectors: Tensor
    counts: Tensor


@methods.register("guided")
class GuidedNetwork(PartMethod):
    """Task representation by pooling features over annotations (section 3), any shots and ways.

    Args:
        backbone: the feature extractor; level c5 is used.
        width: channels of the features that guide and are guided: 256 (`lite`) or 4096.
        official: end a way's guide at a support without annotation, as published; else skip it. The
            order of such shots then matters.
        input_size: side of the input square; the paper used images as they are.
    """

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        EPISODES: {
            "steps": 100000,
            "lr": 1e-6,
            "momentum": 0.99,
            "train_backbone": True,
            "flip": 0.0,
        }
    }  # published script; batch 1, weight decay 5e-4, constant rate, no augmentation

    def __init__(
        self,
        backbone: Backbone,
        width: int = 256,
        official: bool = True,
        input_size: int | None = None,
    ) -> None:
        backbone.need_levels(("c5",), "guided")
        super().__init__(backbone, ("c5",), input_size)
        self.shots_commute = not official
        self.width, self.official, self.aligned = width, official, is_aligned(backbone)
        self.fc6 = seven_by_seven(backbone, width)
        self.fc7 = nn.Conv2d(2 * width, 2 * width, 1)
        self.score = nn.Conv2d(2 * width, 1, 1)
        self.drop: nn.Module = nn.Dropout2d(0.5) if width < 4096 else nn.Dropout(0.5)

    def encode(self, images: Tensor) -> Features:
        """`fc6` [B, width, h, w] and the size of images [B, 3, H, W] in [0, 1]."""
        features = self.drop(F.relu(self.fc6(super().encode(images)["c5"])))
        return {"fc6": features, "extent": extent(images)}

    def compare(
        self, supports: Sequence[Sequence[Features]], query: Features, size: Size
    ) -> Tensor:
        """Logits [1, 1 + N, H, W], or at feature size on a backbone that is not FCN-32s's."""
        guide = self.guide(
            [[part["fc6"][0] for part in way] for way in supports],
            [[part[MASK] for part in way] for way in supports],
        )
        return self.answer(query, guide, (query["extent"].shape[-2], query["extent"].shape[-1]))

    def empty_guide(self, ways: int = 1) -> Guide:
        """The guide before any support."""
        like = self.fc7.weight
        return Guide(like.new_zeros(1 + ways, self.width), like.new_zeros(1 + ways))

    def update(self, guide: Guide, features: Tensor, annotations: Tensor) -> Guide:
        """A guide that knows one more support; the given one stays as it is.

        Args:
            guide: what is known already.
            features: [C, h, w] of the support.
            annotations: [P, H, W] with 1 where a class is annotated, background first.
        """
        cells = (features.shape[-2], features.shape[-1])
        grid = annotation_grid(annotations[None], cells, self.aligned)[0]
        pooled = torch.einsum("chw,phw->pc", features.float(), grid)
        seen = (annotations.flatten(1).sum(dim=1) > 0).to(pooled)
        counts = guide.counts + seen
        step = (seen / counts.clamp(min=1))[:, None]
        return Guide(guide.vectors + step * (pooled - guide.vectors), counts)

    def guide(
        self,
        support: Tensor | Sequence[Sequence[Tensor]],
        masks: Tensor | Sequence[Sequence[Tensor]],
    ) -> Guide:
        """The guide of an episode.

        Args:
            support: features [N, K, C, h, w], or N lists of K, each of its own size.
            masks: [N, K, H, W], or N lists of K: 1 on the way's class, 0 off it, 255 unlabelled.
        """
        ways = len(masks)
        guide = self.empty_guide(ways)
        for way in range(ways):
            for features, mask in zip(support[way], masks[way], strict=True):
                two = two_annotations(mask)
                if self.official and not two.any():
                    break
                annotations = two.new_zeros(1 + ways, *two.shape[1:])
                annotations[0], annotations[1 + way] = two[0], two[1]
                guide = self.update(guide, features, annotations)
        return guide

    def answer(self, query: Features, guide: Guide, size: tuple[int, int]) -> Tensor:
        """Logits [1, P, H, W] of a query [1, C, h, w] of an image of `size`, a class a vector."""
        on_query, on_guide = torch.split(self.fc7.weight, self.width, dim=1)
        shared = F.conv2d(query["fc6"], on_query)
        vectors = F.linear(guide.vectors, on_guide.flatten(1), self.fc7.bias)  # [P, 2 C]
        scores = [
            self.score(self.drop(F.relu(shared + vector[None, :, None, None])))
            for vector in vectors
        ]
        return decode(torch.cat(scores, dim=1), size, self.aligned)
