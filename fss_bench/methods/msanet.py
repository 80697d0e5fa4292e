"""MSANet: prototype, cosine maps of all blocks and a gate, corrected by a learner of base classes.

Iqbal, Safarov & Bang, "MSANet: Multi-Similarity and Attention Guidance for Boosting Few-Shot
Segmentation", 2022, https://arxiv.org/abs/2206.09667; published code:
https://github.com/AIVResearch/MSANet. It builds on BAM, Lang et al., CVPR 2022,
https://arxiv.org/abs/2203.07615, and on PFENet's prior, https://arxiv.org/abs/2008.01449.

Differs from the paper: its code was followed where they disagree. The prior multiplies the mask
with the last map, where BAM masks the input of the last stage. The code has no training loop that
runs: as in BAM, backbone and base learner are frozen and no batch norm is updated in training.

Differs from the published code: any backbone with the levels c2 to c5. Batches are run episode by
episode. With `official=False` two faults are corrected that published numbers depend on: the
weights of shots go by the rank of their distance but are given to them in input order; with
VGG-16 the first group of similarity maps is the last shot's alone. A model made for K shots
weighs other numbers of shots equally, where the code stops.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.bam import WIDTH, Ensemble, MetaLearner, ShotWeights
from fss_bench.errors import FssBenchError
from fss_bench.method import methods
from fss_bench.one_way import OneWayMethod
from fss_bench.ops import cross_entropy, foreground, resize_corners
from fss_bench.pspnet import psp_head
from fss_bench.similarity import (
    chained_masks,
    gram_distances,
    masked_means,
    prior_masks,
    similarity_map,
)
from fss_bench.training_batch import TrainingBatch

CARD = {
    "paper": ("MSANet: Multi-Similarity and Attention Guidance for Boosting Few-Shot Segmentation"),
    "year": 2022,
    "venue": "arXiv",
    "backbones": {
        "resnet50_deepstem": 5131782,
        "resnet101_deepstem": 5132870,
        "vgg16_bn_msanet": 4738182,
    },
    "input_size": 473,
}
STAGES = ("c2", "c3", "c4", "c5")
SIMILARITIES = 64
"""Channels that the meta learner takes from the similarity maps."""


class Scores(NamedTuple):
    """One class of one query, at the size of `c4`.

    Attributes:
        final: [1, 2, h, w] about 0 to 1.5, what is predicted from.
        meta: [1, 2, h, w] logits of the meta learner alone.
        base: [1, 1 + base classes, h, w] logits of the base learner.
    """

    final: Tensor
    meta: Tensor
    base: Tensor


@methods.register("msanet")
class MSANet(OneWayMethod):
    """Meta learner, base learner and ensemble.

    The base learner is frozen, and random until a checkpoint is loaded.

    Maps are joined at the size of `c4`; others are resized to it. Similarity maps come from all
    blocks of `c3`, `c4` and `c5`, and the support mask is resized along `c2` and these (ResNets);
    or, where the blocks of `c4` are finer than `c4` because a pool ends the stage (VGG), from the
    blocks of `c4`, those of `c5`, and `c5`.

    Args:
        backbone: the feature extractor.
        input_size: side of the input square; by default the backbone's, else 473, or 641 with 60
            base classes.
        shots: the number of shots that the weights of shots are made for; 1 is without them.
            Any other number of shots is weighed equally.
        base_classes: classes of the base learner, beside background.
        official: reproduce the faults of the published code (see above); the order of the shots
            then matters.
    """

    needs_base_masks = True
    weighs_foreground = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "base": {
            "items": "images",
            "steps": 50000,  # 100 epochs of the 5,953 images of PASCAL
            "batch_size": 12,
            "lr": 2.5e-4,
            "weight_decay": 1e-4,
            "rates": (("learner_base.*", 10.0),),
            "schedule": "poly",
            "train_backbone": True,
            "frozen_bn": False,
            "crop": 417,
            "place": "crop",
            "scale": (0.5, 2.0),
            "rotate": 10.0,
            "blur": 0.5,
        },
        "meta": {
            "steps": 95000,  # 200 epochs of the 3,800 images that are left of PASCAL on average
            "batch_size": 8,
            "lr": 0.05,  # 0.005, times 10 for every group
            "weight_decay": 1e-4,
            "schedule": "poly",
            "place": "crop",
            "scale": (0.9, 1.1),
            "rotate": 10.0,
            "blur": 0.5,
        },
    }  # BAM's published code; MSANet's has no training

    def __init__(
        self,
        backbone: Backbone,
        input_size: int | None = None,
        shots: int = 1,
        base_classes: int = 15,
        official: bool = True,
    ) -> None:
        backbone.need_levels(STAGES, "msanet")
        if shots < 1 or base_classes < 1:
            raise FssBenchError(
                f"msanet shots={shots}, base_classes={base_classes}: both must be 1 or more"
            )
        pooled, groups = similarity_groups(backbone)
        levels = dict.fromkeys([*STAGES, *(name for group in groups for name in group)])
        super().__init__(backbone, list(levels), input_size, 641 if base_classes == 60 else 473)
        self.pooled, self.groups = pooled, groups
        self.shots, self.official, self.learns_base = shots, official, False
        self.shots_commute = not (official and (shots > 1 or self.pooled))
        self._build(base_classes)

    def _build(self, base_classes: int) -> None:
        sizes = self.backbone.levels
        joined = sizes["c4"].channels + sizes["c3"].channels
        self.down_query, self.down_supp = _reduction(joined), _reduction(joined)
        self.hyper_final = nn.Sequential(
            nn.Conv2d(sum(map(len, self.groups)), SIMILARITIES, 1),
            nn.BatchNorm2d(SIMILARITIES),
            nn.ReLU(),
        )
        self.gate = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 1),
            nn.Dropout(0.5),
            nn.Sigmoid(),
        )
        self.shot_weights = ShotWeights(self.shots, by_input_order=self.official)
        self.meta = MetaLearner(3 * WIDTH + SIMILARITIES + 1)
        self.ensemble = Ensemble()
        self.learner_base = psp_head(sizes["c5"].channels, base_classes + 1)
        self.learner_base.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; base learner and batch norms stay in eval mode."""
        super().train(mode)
        self.hyper_final[1].eval()
        if not self.learns_base:
            self.learner_base.eval()
        return self

    def start_stage(self, stage: str) -> None:
        """Stage `base`: backbone and base learner alone learn; `meta`: all but these."""
        self.learns_base = stage == "base"
        self.requires_grad_(not self.learns_base)
        self.learner_base.requires_grad_(self.learns_base)
        self.backbone.freeze()

    def stage_terms(self, stage: str, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy of the base learner, or the terms of `loss_terms`."""
        if stage == "meta":
            return self.loss_terms(
                batch.support_images,
                batch.support_masks,
                batch.query_images,
                batch.query_masks,
                batch.base_masks,
                batch.base_classes,
            )
        assert batch.base_masks is not None  # the recipe's items are images
        features = self.backbone(batch.query_images, ("c5",))
        return {"base": _loss([self.learner_base(features["c5"])], batch.base_masks)}

    def encode(self, images: Tensor) -> Features:
        """Features of images [B, 3, H, W]; of `c2`, whose size alone is used, one channel."""
        features = super().encode(images)
        return {**features, "c2": features["c2"][:, :1].clone()}

    def segment_one(self, support: Features, masks: Tensor, query: Features) -> Tensor:
        """Scores [1, 2, H, W] of one class, background first, at the masks' size."""
        scores = self.score(support, masks, query)
        return resize_corners(scores.final, (masks.shape[-2], masks.shape[-1]))

    def score(
        self, support: Features, masks: Tensor, query: Features, base_class: int | None = None
    ) -> Scores:
        """What the three parts say of one class.

        Args:
            support, masks, query: see `segment_one`.
            base_class: in training, which of the base classes, from 0, the class is: the base
                learner then does not count it as background.
        """
        size = (query["c4"].shape[-2], query["c4"].shape[-1])
        on = foreground(masks)[:, None]
        distances = gram_distances(query["c3"], support["c3"])
        weights = self.shot_weights(distances)
        reduced = self.down_supp(_join(support, size))
        prototypes = masked_means(reduced, resize_corners(on, size))
        priors = resize_corners(prior_masks(query["c5"], support["c5"], on), size)
        parts = [
            self.down_query(_join(query, size)),
            _weighted(weights, prototypes).expand(-1, -1, *size),
            self.hyper_final(self.similarities(support, on, query)),
            _weighted(weights, priors),
            self._gated(reduced, on),
        ]
        meta = self.meta(torch.cat([part.float() for part in parts], dim=1))
        base = resize_corners(self.learner_base(query["c5"]), size)
        final = self.ensemble(meta, base, (weights * distances).sum(), base_class)
        return Scores(final, meta, base)

    def similarities(self, support: Features, masks: Tensor, query: Features) -> Tensor:
        """Similarity maps [1, M, h, w] in [0, 1] of M blocks at the size of `c4`.

        Args:
            support, query: see `segment_one`.
            masks: [K, 1, H, W] in [0, 1].
        """
        names = [name for group in self.groups for name in group]
        first = [] if self.pooled else ["c2"]
        sizes = [(query[n].shape[-2], query[n].shape[-1]) for n in (*first, *names)]
        resized = chained_masks(masks, sizes)[len(first) :]
        size = (query["c4"].shape[-2], query["c4"].shape[-1])
        maps = []
        for name, weights in zip(names, resized, strict=True):
            found = similarity_map(query[name], support[name], weights)
            last_alone = self.official and self.pooled and name in self.groups[0]
            found = found[-1:] if last_alone else found.mean(dim=0, keepdim=True)
            maps.append(resize_corners(found, size))
        return torch.cat(maps, dim=1)

    def _gated(self, reduced: Tensor, masks: Tensor) -> Tensor:
        """Support maps [K, C, h, w], their channels scaled by a gate, averaged: [1, C, h, w]."""
        near = F.interpolate(masks, size=reduced.shape[-2:], mode="nearest")
        gates = self.gate((reduced * near).mean(dim=(2, 3), keepdim=True))
        gated: Tensor = (gates * reduced).mean(dim=0, keepdim=True)
        return gated

    def loss_terms(
        self,
        support_images: Tensor,
        support_masks: Tensor,
        query_images: Tensor,
        query_masks: Tensor,
        base_masks: Tensor | None = None,
        base_class: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Cross entropy of the final scores, the meta learner and the base learner.

        Args:
            support_images, support_masks, query_images, query_masks: see `Method`.
            base_masks: [B, H, W] base class numbers from 1, 0 elsewhere, 255 ignore; without them
                there is no third term, which has no gradient anyway.
            base_class: which of the base classes, from 0, the class is: one, or [B], or [B, N].
        """
        shape = support_images.shape[:3]
        features = self.encode(support_images.flatten(0, 2))
        support = {k: v.reshape(*shape, *v.shape[1:]) for k, v in features.items()}
        query = self.encode(query_images)
        classes = _classes(base_class, shape[0], shape[1])
        scores, labels = [], []
        for b, w in ((b, w) for b in range(shape[0]) for w in range(shape[1])):
            own = {level: maps[b : b + 1] for level, maps in query.items()}
            supports = {level: maps[b, w] for level, maps in support.items()}
            scores.append(self.score(supports, support_masks[b, w], own, classes[b][w]))
            ignored = query_masks[b] == 255
            labels.append((query_masks[b] == w + 1).long().masked_fill(ignored, 255))
        truth = torch.stack(labels)
        terms = {
            "main": _loss([s.final for s in scores], truth, self.foreground_weight),
            "meta": _loss([s.meta for s in scores], truth, self.foreground_weight),
        }
        if base_masks is not None:
            terms["base"] = _loss([s.base for s in scores[:: shape[1]]], base_masks)
        return terms


def similarity_groups(backbone: Backbone) -> tuple[bool, tuple[tuple[str, ...], ...]]:
    """Whether pools end a backbone's stages, and the names of the maps compared, by group."""
    finest = min(backbone.size_of(name).stride for name in backbone.blocks["c4"])
    pooled = finest < backbone.levels["c4"].stride
    blocks = backbone.blocks
    if pooled:
        return True, (blocks["c4"], blocks["c5"], ("c5",))
    return False, (blocks["c3"], blocks["c4"], blocks["c5"])


def _weighted(weights: Tensor, maps: Tensor) -> Tensor:
    """Sum [1, C, h, w] of maps [K, C, h, w] by weights [K]."""
    return (weights[:, None, None, None] * maps).sum(dim=0, keepdim=True)


def _join(features: Features, size: tuple[int, int]) -> Tensor:
    """`c4` and `c3` at one size, joined."""
    return torch.cat([features["c4"], resize_corners(features["c3"], size)], dim=1)


def _loss(logits: Sequence[Tensor], masks: Tensor, foreground_weight: float = 1.0) -> Tensor:
    joined = torch.cat(list(logits)).float()
    sized = resize_corners(joined, (masks.shape[-2], masks.shape[-1]))
    return cross_entropy(sized, masks, foreground_weight=foreground_weight)


def _classes(base_class: Tensor | int | None, batch: int, ways: int) -> list[list[Any]]:
    if base_class is None:
        return [[None] * ways] * batch
    given = torch.as_tensor(base_class)
    listed: list[list[Any]] = torch.broadcast_to(
        given[:, None] if given.dim() == 1 else given, (batch, ways)
    ).tolist()
    return listed


def _reduction(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
