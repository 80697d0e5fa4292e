"""SG-One: a similarity map of the query with the object's vector guides its segmentation.

Zhang, Wei, Yang, Huang, IEEE TCYB 2020, https://arxiv.org/abs/1810.09091. Published code:
https://github.com/xiaomengyc/SG-One.

Differs from the paper: any backbone; levels of other sizes are resized to the finest.
Differs from the published code: any number of shots (there 1 or 5); an empty mask gives a zero
vector (there not a number); the same image size for query and supports. The padded last layer,
which shifts the answer by a ring of one cell, is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.errors import UnknownNameError
from fss_bench.method import EPISODES, methods
from fss_bench.one_way import OneWayMethod
from fss_bench.ops import extent, masked_average_pool, resize_logits
from fss_bench.part_method import Size

CARD = {
    "paper": "SG-One: Similarity Guidance Network for One-Shot Semantic Segmentation",
    "year": 2020,
    "venue": "TCYB",
    "backbones": {"vgg16_sgone": 18992194},
    "input_size": 417,
    "paper_input": "native",
}
KSHOT, CHANNEL_ORDERS = ("mean", "or"), ("rgb", "bgr")


@methods.register("sgone")
class SGOne(OneWayMethod):
    """Masked average pooling guidance (section III-B), similarity maps and fusion (III-C).

    Args:
        backbone: the feature extractor; levels c3, c4 and c5 are used.
        kshot: `mean` averages the shots' vectors; `or` segments with every shot and takes the union
            (section III-D).
        channel_order: `bgr` swaps the channels, as the published training did without swapping the
            statistics; the published test and the default do not.
        input_size: side of the input square; the paper used images as they are.
    """

    void = 1  # as published: ignored pixels of the query are foreground in training
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        EPISODES: {
            "steps": 100000,
            "lr": 1e-5,
            "momentum": 0.99,
            "rates": (("guidance.bias", 20.0), ("guidance.*", 10.0), ("*.bias", 2.0)),
            "train_backbone": True,
            "flip": 0.0,
        }
    }  # published code; batch 1, weight decay 5e-4, constant rate, no augmentation

    def __init__(
        self,
        backbone: Backbone,
        kshot: str = "mean",
        channel_order: str = "rgb",
        input_size: int | None = None,
    ) -> None:
        backbone.need_levels(("c3", "c4", "c5"), "sgone")
        super().__init__(backbone, ("c3", "c4", "c5"), input_size)
        if kshot not in KSHOT:
            raise UnknownNameError("kshot", kshot, KSHOT)
        if channel_order not in CHANNEL_ORDERS:
            raise UnknownNameError("channel_order", channel_order, CHANNEL_ORDERS)
        self.kshot, self.channel_order = kshot, channel_order
        c3, c4, c5 = (backbone.size_of(level).channels for level in self.levels)
        self.guidance = nn.Conv2d(c5, 512, 3, padding=1)
        self.side3 = nn.Conv2d(c3, 128, 3, padding=1)
        self.side4 = nn.Conv2d(128 + c4, 128, 3, padding=1)
        self.side5 = nn.Conv2d(128 + c5, 128, 3, padding=1)
        self.classifier = nn.Conv2d(128, 128, 3, padding=1)
        self.exit = nn.Conv2d(128, 2, 1, padding=1)

    def encode(self, images: Tensor) -> Features:
        """`guidance` [B, 512, h, w], `side` [B, 128, h, w] and the size of images [B, 3, H, W]."""
        maps = super().encode(images.flip(1) if self.channel_order == "bgr" else images)
        size = (maps["c3"].shape[-2], maps["c3"].shape[-1])
        c3, c4, c5 = (resize_logits(maps[level], size) for level in self.levels)
        side = F.relu(self.side3(c3))
        side = F.relu(self.side4(torch.cat([side, c4], dim=1)))
        side = self.side5(torch.cat([side, c5], dim=1))
        return {"guidance": self.guidance(c5), "side": side, "extent": extent(images)}

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """The object's `vector` [1, 512]."""
        return {"vector": self.vectors(features["guidance"], mask[None])}

    def compare_one(self, supports: Sequence[Features], query: Features, size: Size) -> Tensor:
        """Logits [1, 2, h + 2, w + 2]; with `kshot=or` at the query image's size."""
        vectors = torch.cat([part["vector"] for part in supports])
        if self.kshot == "mean" or len(vectors) == 1:
            return self.answer(query, vectors.mean(dim=0, keepdim=True))
        size = (query["extent"].shape[-2], query["extent"].shape[-1])
        return union([resize_logits(self.answer(query, v[None]), size) for v in vectors])

    def vectors(self, guidance: Tensor, masks: Tensor) -> Tensor:
        """The object's vector of every shot, [K, 512], from [K, 512, h, w] and [K, H, W]."""
        return masked_average_pool(guidance, masks == 1)

    def similarity(self, query: Features, vector: Tensor) -> Tensor:
        """Cosine [1, h, w] of every cell of the query with a vector [1, 512]."""
        return F.cosine_similarity(query["guidance"].float(), vector[..., None, None].float())

    def answer(self, query: Features, vector: Tensor) -> Tensor:
        """Logits [1, 2, h + 2, w + 2] of a query for a vector [1, 512]."""
        guided = query["side"] * self.similarity(query, vector)[:, None]
        logits: Tensor = self.exit(F.relu(self.classifier(guided)))
        return logits


def union(logits: list[Tensor]) -> Tensor:
    """Logits [1, 2, H, W] that are foreground where any of the given ones is."""
    stacked = torch.cat(logits)
    odds = (stacked[:, 1] - stacked[:, 0]).amax(dim=0)
    return torch.stack([torch.zeros_like(odds), odds])[None]
