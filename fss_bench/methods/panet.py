"""PANet: one prototype per class by masked average pooling, pixels by cosine similarity.

Wang, Liew, Zou, Zhou, Feng, ICCV 2019, https://arxiv.org/abs/1908.06391. Published code:
https://github.com/kaixin96/PANet.

Differs from the paper: any backbone; the scores of several levels may be averaged (the paper uses
one, the last of VGG-16).
Differs from the published code: features are not upsampled to the mask's size to be pooled; the
mask goes through the transpose of that interpolation instead, which gives the same prototypes.
Whether void pixels of a support and other classes of the episode are background is the protocol's
rule (`support_ignore`, `support_others`); protocol `panet` has them as there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, cat, stack

from fss_bench.backbone import Backbone, Features
from fss_bench.method import EPISODES, methods
from fss_bench.ops import cosine_to_prototypes, cross_entropy, masked_average_pool, resize_logits
from fss_bench.part_method import PartMethod, Size

CARD = {
    "paper": "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment",
    "year": 2019,
    "venue": "ICCV",
    "backbones": {"vgg16_panet": 14714688},
    "input_size": 417,
}


@methods.register("panet")
class PANet(PartMethod):
    """Prototypes by masked average pooling (section 3.2), cosine scores (section 3.3, equation 3).

    Args:
        backbone: the feature extractor.
        level: a level, or several joined by `+`, whose scores are averaged at the finest of them;
            by default the backbone's.
        scale: factor on the cosine before the softmax.
        align: whether training adds the alignment loss (section 3.4).
        input_size: side of the input square; by default the backbone's (417 as in the paper, or
            what it needs).
    """

    weighs_foreground = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        EPISODES: {
            "steps": 30000,
            "lr": 1e-3,
            "schedule": "steps",
            "decay_at": (1 / 3, 2 / 3),  # 10,000 and 20,000
            "train_backbone": True,
        }
    }  # published code; batch 1, SGD with momentum 0.9, weight decay 5e-4, flips

    def __init__(
        self,
        backbone: Backbone,
        level: str | None = None,
        scale: float = 20.0,
        align: bool = True,
        input_size: int | None = None,
    ) -> None:
        super().__init__(backbone, (level or backbone.default_level).split("+"), input_size)
        self.scale, self.align = scale, align

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """A level's prototypes [2, C]: of the pixels off the class, and of those on it."""
        masks = stack([mask == 0, mask == 1])
        return {at: masked_average_pool(features[at], masks) for at in self.levels}

    def compare(
        self, supports: Sequence[Sequence[Features]], query: Features, size: Size
    ) -> Tensor:
        """Logits [1, 1 + N, h, w] at the finest level's size."""
        scores = []
        for at in self.levels:
            shots = stack([stack([part[at] for part in way]) for way in supports])  # [N, K, 2, C]
            means = shots.mean(dim=1)
            prototypes = cat([means[:, 0].mean(dim=0)[None], means[:, 1]])  # [1 + N, C]
            scores.append(cosine_to_prototypes(query[at], prototypes[None]))
        cells = max((tuple(s.shape[-2:]) for s in scores), key=lambda hw: hw[0])
        resized = [resize_logits(s, (cells[0], cells[1])) for s in scores]
        return self.scale * stack(resized).mean(dim=0)

    def loss_terms(
        self,
        support_images: Tensor,
        support_masks: Tensor,
        query_images: Tensor,
        query_masks: Tensor,
    ) -> dict[str, Tensor]:
        """Cross entropy of the query, and the alignment loss where `align` is on.

        See `Method.loss_terms` for the arguments.
        """
        batch, ways, shots = support_masks.shape[:3]
        support = self.encode(support_images.flatten(0, 2))
        support = {k: v.reshape(batch, ways, shots, *v.shape[1:]) for k, v in support.items()}
        query = self.encode(query_images)
        logits = self.segment(support, support_masks, query)
        weight = self.foreground_weight
        terms = {"query": cross_entropy(logits, query_masks, foreground_weight=weight)}
        if self.align:
            terms["alignment"] = self.alignment(support, support_masks, query, logits)
        return terms

    def alignment(
        self, support: Features, support_masks: Tensor, query: Features, logits: Tensor
    ) -> Tensor:
        """Prototype alignment: supports segmented by prototypes of the predicted query.

        The query's prediction is hard, at feature resolution. A way that is predicted nowhere adds
        nothing, and still counts in the mean over ways.

        Args:
            support, support_masks, query: see `segment`.
            logits: [B, 1 + N, h, w] of the query.

        Returns:
            A scalar, the mean over batch, ways and shots.
        """
        ways = logits.shape[1] - 1
        chosen = F.one_hot(logits.argmax(dim=1), 1 + ways).movedim(-1, 1)  # [B, 1 + N, h, w]
        labels = support_masks.long()
        losses = [logits.new_zeros(())]
        for b, way in (chosen[:, 1:].flatten(2).sum(dim=-1) > 0).nonzero().tolist():
            masks = chosen[b, [0, way + 1]]
            scores = [self._aligned(support[at][b, way], masks, query[at][b]) for at in self.levels]
            size = support_masks.shape[-2:]
            mean = stack([resize_logits(s, (size[0], size[1])) for s in scores]).mean(dim=0)
            each = F.cross_entropy(
                self.scale * mean, labels[b, way], ignore_index=255, reduction="none"
            )
            valid = (labels[b, way] != 255).sum(dim=(1, 2)).clamp(min=1)
            losses.append((each.sum(dim=(1, 2)) / valid).mean())
        return stack(losses).sum() / (ways * len(logits))

    def _aligned(self, support: Tensor, chosen: Tensor, query: Tensor) -> Tensor:
        """Cosines [K, 2, h, w] of supports with prototypes of the query's predicted regions.

        The regions [2, h, w] have the finest level's size; at that size nothing is upsampled.
        """
        prototypes = masked_average_pool(query[None].expand(2, *query.shape), chosen)  # [2, C]
        return cosine_to_prototypes(support, prototypes.expand(len(support), *prototypes.shape))
