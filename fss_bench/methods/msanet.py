"""MSANet: prototype, cosine maps of all blocks and a gate, corrected by a learner of base classes.

Iqbal, Safarov & Bang, "MSANet: Multi-Similarity and Attention Guidance for Boosting Few-Shot
Segmentation", 2022, https://arxiv.org/abs/2206.09667; published code:
https://github.com/AIVResearch/MSANet. It builds on BAM, Lang et al., CVPR 2022,
https://arxiv.org/abs/2203.07615, and on PFENet's prior, https://arxiv.org/abs/2008.01449.

Differs from the paper: its code was followed where they disagree. The prior multiplies the mask
with the last map, where BAM masks the input of the last stage. The code has no training loop that
runs: as in BAM, backbone and base learner are frozen and no batch norm is updated in training.

Differs from the published code: any backbone with the levels c2 to c5. Batches are run episode by
episode, and what depends on one image alone is found for it alone, equal to rounding. With
`official=False` two faults are corrected that published numbers depend on: the
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
from fss_bench.ops import cross_entropy, extent, foreground, resize_corners
from fss_bench.part_method import Size
from fss_bench.pspnet import psp_head
from fss_bench.similarity import (
    cells_under,
    chained_masks,
    gram,
    gram_distance,
    grouped,
    highest_cosines,
    masked_means,
    mean_cosines,
    unit_cells,
    unit_cells_inside,
)
from fss_bench.stages import similarity_groups, stacks
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
MERGED = {"query": WIDTH, "prototype": WIDTH, "maps": SIMILARITIES + 1, "support": WIDTH}
"""What the meta learner takes, in the published order of channels; `maps` ends with the prior."""


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
        self.stacks = tuple(stack for group in groups for stack in stacks(backbone, group))
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
        self.meta = MetaLearner(MERGED)
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
        """Features of images [B, 3, H, W]; of `c2` the size alone."""
        features = super().encode(images)
        return {**features, "c2": extent(features["c2"])}

    def query_part(self, features: Features) -> Features:
        """Its cells as unit vectors, its share of the first layer, what the base learner says."""
        size, deep = _size(features["c4"]), features["c5"][0].float().permute(1, 2, 0)
        return {
            **{
                f"cells{s}": unit_cells([features[name] for name in stack])
                for s, stack in enumerate(self.stacks)
            },
            "deep": grouped(deep),
            "lengths": deep.norm(dim=-1),
            "gram": gram(features["c3"]),
            "merged": self.meta.share("query", self.down_query(_join(features, size))),
            "base": resize_corners(self.learner_base(features["c5"]), size),
        }

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """Its cells inside the mask, its prototype, its share of the first layer."""
        size, on = _size(features["c4"]), foreground(mask)[None, None]
        reduced = self.down_supp(_join(features, size))
        deep = cells_under(features["c5"], resize_corners(on, _size(features["c5"]))[0, 0])
        return {
            **self._inside(features, on),
            "deep": grouped(deep),
            "lengths": deep.norm(dim=-1),
            "gram": gram(features["c3"]),
            "prototype": masked_means(reduced, resize_corners(on, size)),
            "merged": self.meta.share("support", self._gated(reduced, on)),
        }

    def _inside(self, features: Features, mask: Tensor) -> Features:
        """Unit vectors of the cells of every stack inside a mask [1, 1, H, W]."""
        first = [] if self.pooled else ["c2"]
        sizes = [_size(features[name]) for name in (*first, *(stack[0] for stack in self.stacks))]
        resized = chained_masks(mask, sizes)[len(first) :]
        return {
            f"cells{s}": unit_cells_inside([features[name] for name in stack], weights[0, 0])
            for s, (stack, weights) in enumerate(zip(self.stacks, resized, strict=True))
        }

    def _gated(self, reduced: Tensor, mask: Tensor) -> Tensor:
        """A support's maps [1, C, h, w], their channels scaled by a gate."""
        near = F.interpolate(mask, size=reduced.shape[-2:], mode="nearest")
        gated: Tensor = self.gate((reduced * near).mean(dim=(2, 3), keepdim=True)) * reduced
        return gated

    def compare_one(self, supports: Sequence[Features], query: Features, size: Size) -> Tensor:
        """Scores [1, 2, H, W] of one class, background first, at the input's size."""
        return resize_corners(self.score(supports, query).final, size)

    def score(
        self, supports: Sequence[Features], query: Features, base_class: int | None = None
    ) -> Scores:
        """What the three learners say of one class.

        Args:
            supports, query: parts.
            base_class: in training, which of the base classes, from 0, the class is: the base
                learner then does not count it as background.
        """
        distances = torch.stack([gram_distance(query["gram"], one["gram"]) for one in supports])
        weights = self.shot_weights(distances)
        prototype = _weighted(weights, [one["prototype"] for one in supports])
        prior = resize_corners(self.prior(supports, query, weights), _size(query["merged"]))
        maps = self.hyper_final(self.similarities(supports, query))
        merged = (
            query["merged"]
            + self.meta.share("prototype", prototype)
            + self.meta.share("maps", torch.cat([maps.float(), prior], dim=1))
            + torch.stack([one["merged"] for one in supports]).mean(dim=0)
        )
        meta = self.meta(merged)
        final = self.ensemble(meta, query["base"], (weights * distances).sum(), base_class)
        return Scores(final, meta, query["base"])

    def similarities(self, supports: Sequence[Features], query: Features) -> Tensor:
        """Similarity maps [1, M, h, w] in [0, 1] of M blocks at the size of `c4`, of parts."""
        maps = []
        for s, stack in enumerate(self.stacks):
            last_alone = self.official and self.pooled and stack[0] in self.groups[0]
            found = [
                mean_cosines(query[f"cells{s}"], one[f"cells{s}"])
                for one in supports[-1 if last_alone else 0 :]
            ]
            mean = torch.stack(found).mean(dim=0, keepdim=True)
            maps.append(resize_corners(mean, _size(query["merged"])))
        return torch.cat(maps, dim=1)

    def prior(self, supports: Sequence[Features], query: Features, weights: Tensor) -> Tensor:
        """Priors [1, 1, h, w] in [0, 1] at the size of `c5`, of parts by weights [K]."""
        found = [
            highest_cosines(query["deep"], one["deep"], query["lengths"], one["lengths"])
            for one in supports
        ]
        return _weighted(weights, found)[None, None]

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
        for b in range(shape[0]):
            own = self.query_part(_cut(query, (b,)))
            for w in range(shape[1]):
                parts = [
                    self.support_part(_cut(support, (b, w, k)), support_masks[b, w, k])
                    for k in range(shape[2])
                ]
                scores.append(self.score(parts, own, classes[b][w]))
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


def _weighted(weights: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Sum of K maps of one shape by weights [K]."""
    return torch.stack([weight * one for weight, one in zip(weights, maps, strict=True)]).sum(dim=0)


def _cut(features: Features, place: tuple[int, ...]) -> Features:
    """Features [1, C, h, w] a level of the image at a place."""
    return {level: maps[place][None] for level, maps in features.items()}


def _size(maps: Tensor) -> Size:
    return maps.shape[-2], maps.shape[-1]


def _join(features: Features, size: Size) -> Tensor:
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
