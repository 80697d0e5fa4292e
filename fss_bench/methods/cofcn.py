"""co-FCN: a conditioning branch reads annotated supports, its vector joins the query's features.

Rakelly, Shelhamer, Darrell, Efros, Levine, "Conditional Networks for Few-Shot Semantic
Segmentation", ICLR workshop 2018, https://openreview.net/forum?id=SkMjFKJwG. Published code:
https://github.com/shelhamer/revolver (models cofeat-early and cofeat-late-lite-unshared).

Differs from the paper: the vector has 256 channels as in the published code, which holds no model
of the paper's width; any backbone; images are warped to a square by the evaluator.
Differs from the published code: nothing is tiled. Its 11-pixel widening of sparse points is the
option `dilate`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.fcn import annotation_grid, decode, is_aligned, seven_by_seven, two_annotations
from fss_bench.method import EPISODES, methods
from fss_bench.one_way import OneWayMethod
from fss_bench.ops import extent
from fss_bench.part_method import Size

CARD = {
    "paper": "Conditional Networks for Few-Shot Semantic Segmentation",
    "year": 2018,
    "venue": "ICLR workshop",
    "backbones": {"vgg16_fcn32s": 42407938},
    "input_size": 417,
    "paper_input": "native",
}
FUSIONS = ("early", "late")


@methods.register("cofcn")
class CoFCN(OneWayMethod):
    """Conditioning branch with early or late fusion of image and annotation.

    Early: a second encoder takes the support's image and annotation as five channels; the vector is
    the mean over all cells of all supports. Late: one encoder; features are pooled over background
    and foreground, which gives two vectors, each the mean over supports.

    Args:
        backbone: the feature extractor; level c5 is used.
        fusion: `early` or `late`.
        width: channels of the vectors.
        dilate: side, odd, of the square to which early fusion widens an annotated pixel; 1 for
            dense masks, 11 for points.
        input_size: side of the input square; the paper used images as they are.
    """

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        EPISODES: {
            "steps": 100000,
            "lr": 1e-5,
            "momentum": 0.99,
            "train_backbone": True,
            "flip": 0.0,
        }
    }  # published code's default; batch 1, weight decay 5e-4, constant rate, no augmentation

    def __init__(
        self,
        backbone: Backbone,
        fusion: str = "early",
        width: int = 256,
        dilate: int = 1,
        input_size: int | None = None,
    ) -> None:
        backbone.need_levels(("c5",), "cofcn")
        super().__init__(backbone, ("c5",), input_size)
        if fusion not in FUSIONS:
            raise UnknownNameError("fusion", fusion, FUSIONS)
        if dilate < 1 or dilate % 2 == 0:
            raise FssBenchError(f"option dilate={dilate}: it must be odd and at least 1")
        self.fusion, self.dilate, self.aligned = fusion, dilate, is_aligned(backbone)
        self.fc6 = seven_by_seven(backbone, width)
        joined = (2 if fusion == "early" else 3) * width
        hidden = width if fusion == "early" else joined
        self.fc7, self.score = nn.Conv2d(joined, hidden, 1), nn.Conv2d(hidden, 2, 1)
        self.drop = nn.Dropout2d(0.5)
        if fusion == "early":
            self.support_backbone = widened(backbone, 2)
            self.support_fc6 = seven_by_seven(backbone, width)

    def encode(self, images: Tensor) -> Features:
        """`fc6` [B, width, h, w] of images; with early fusion the images, for masks to join."""
        if self.fusion == "early":
            return {"image": images}
        return {"fc6": self.query_features(images), "extent": extent(images)}

    def query_features(self, images: Tensor) -> Tensor:
        """[B, width, h, w] of images [B, 3, H, W] in [0, 1]."""
        return self._finish(self.fc6, self.backbone(images, ("c5",))["c5"])

    def support_features(self, images: Tensor, masks: Tensor) -> Tensor:
        """[K, width, h, w] of images [K, 3, H, W] in [0, 1] with masks [K, H, W], fused early."""
        annotations = F.max_pool2d(two_annotations(masks), self.dilate, 1, self.dilate // 2)
        span = 128 / 255 / self.backbone.std.mean()  # 128 grey levels, in the images' new unit
        normalised = (images - self.backbone.mean) / self.backbone.std
        joined = torch.cat([normalised, (2 * annotations - 1) * span], dim=1)
        maps = self.support_backbone.extract(joined, ("c5",))["c5"]
        return self._finish(self.support_fc6, maps)

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """`cells` [C, h, w] of image and mask fused early, or `pooled` vectors [1, 2, C]."""
        if self.fusion == "early":
            return {"cells": self.support_features(features["image"], mask[None])[0]}
        return {"pooled": self.pooled(features["fc6"], mask[None])}

    def query_part(self, features: Features) -> Features:
        """`fc6` [1, width, h, w] and the image's size."""
        if self.fusion == "late":
            return features
        image = features["image"]
        return {"fc6": self.query_features(image), "extent": extent(image)}

    def compare_one(self, supports: Sequence[Features], query: Features, size: Size) -> Tensor:
        """Logits [1, 2, H, W], or at feature size on a backbone that is not FCN-32s's."""
        if self.fusion == "early":
            vector = self.mean_cell([part["cells"] for part in supports])
        else:
            vector = self.joined_halves([part["pooled"] for part in supports])
        own = (query["extent"].shape[-2], query["extent"].shape[-1])
        return self.answer(query["fc6"], vector, own)

    def joined_vector(self, supports: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """What joins the query's features, [C] with early fusion, [2 C] with late.

        Args:
            supports: images [K, 3, H, W] with masks [K, H, W]; supports of several sizes are
                several pairs.
        """
        if self.fusion == "early":
            return self.mean_cell(
                [cells for pair in supports for cells in self.support_features(*pair)]
            )
        maps = [self.query_features(images) for images, _ in supports]
        return self.late_vector(maps, [masks for _, masks in supports])

    def late_vector(self, features: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Foreground's vector, then background's, [2 C]; each the mean over supports.

        A support without a pixel of one of them counts there as zeros, as published.
        """
        pairs = zip(features, masks, strict=True)
        return self.joined_halves([self.pooled(f, m) for f, m in pairs])

    @staticmethod
    def joined_halves(pooled: Sequence[Tensor]) -> Tensor:
        """Mean of pooled vectors [K', 2, C] over all supports: foreground, then background."""
        vectors = torch.cat(list(pooled)).mean(dim=0)
        return torch.cat([vectors[1], vectors[0]])

    @staticmethod
    def mean_cell(maps: Sequence[Tensor]) -> Tensor:
        """Mean [C] over all cells of all supports' maps [C, h, w]."""
        return torch.cat([cells.flatten(1) for cells in maps], dim=1).mean(dim=1)

    def pooled(self, features: Tensor, masks: Tensor) -> Tensor:
        """Background and foreground vectors [K, 2, C] of features [K, C, h, w]."""
        cells = (features.shape[-2], features.shape[-1])
        grid = annotation_grid(two_annotations(masks), cells, self.aligned)
        return torch.einsum("kchw,kphw->kpc", features.float(), grid)

    def answer(self, query: Tensor, vector: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits [1, 2, H, W] of a query [1, C, h, w] of an image of `size`, given what is joined.

        Early fusion joins its vector before the query's features, late fusion after them.
        """
        on_query = query.shape[1]
        if self.fusion == "early":
            on_vector, weight = torch.split(self.fc7.weight, [len(vector), on_query], dim=1)
        else:
            weight, on_vector = torch.split(self.fc7.weight, [on_query, len(vector)], dim=1)
        constant = F.linear(vector, on_vector.flatten(1), self.fc7.bias)
        hidden = F.relu(F.conv2d(query, weight) + constant[None, :, None, None])
        return decode(self.score(self.drop(hidden)), size, self.aligned)

    def _finish(self, layer: nn.Module, maps: Tensor) -> Tensor:
        features: Tensor = self.drop(F.relu(layer(maps)))
        return features


def widened(backbone: Backbone, channels: int) -> Backbone:
    """A copy whose first convolution takes further input channels.

    Their kernels are the mean of the image's. The first convolution is trained even where the
    backbone is frozen: its new channels mean nothing before.
    """
    twin = copy.deepcopy(backbone)
    path = next(
        name
        for name, module in twin.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3
    )
    first = twin.get_submodule(path)
    assert isinstance(first, nn.Conv2d)
    mean = first.weight.detach().mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    first.weight = nn.Parameter(torch.cat([first.weight.detach(), mean], dim=1))
    first.in_channels += channels
    return twin
