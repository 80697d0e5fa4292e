"""DCAMA: the query's mask as a mean of the support's mask pixels, weighted by dense attention.

Shi, Wei, Zhang, Lu, Ning, Chen, Ma and Zheng, ECCV 2022, https://arxiv.org/abs/2207.08549.
Published code: https://github.com/pawn-sxy/DCAMA.

Differs from the paper: nothing in the network; any backbone with levels c2 to c5 and any input
side are taken (the paper: ResNet-50, ResNet-101 and Swin-B at 384).

Differs from the published code: the blocks of a stage share one attention call through a fused
kernel, which is equal to rounding; the position encoding is computed, not stored, and has no
largest side; maps are resized to the size of the next finer stage, where the code doubles the
width (the same at 384); several shots are right at any batch size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn, stack

from fss_bench.attention import masked_mean_attention, sinusoids
from fss_bench.backbone import Backbone, Features
from fss_bench.errors import FssBenchError
from fss_bench.method import EPISODES, methods
from fss_bench.one_way import OneWayMethod
from fss_bench.ops import extent, foreground, resize_corners
from fss_bench.part_method import Size, stacked
from fss_bench.products import linear
from fss_bench.stages import block_stages

CARD = {
    "paper": (
        "Dense Cross-Query-and-Support Attention Weighted Mask Aggregation for Few-Shot "
        "Segmentation"
    ),
    "year": 2022,
    "venue": "ECCV",
    "backbones": {
        "resnet50": 14215394,
        "resnet101": 14222194,
        "swin_base_patch4_window12_384": 5073394,
    },
    "input_size": 384,
}

HEADS = 8
DROPOUT = 0.5
QUERY_SKIPS, SUPPORT_SKIPS = (0, 0), (1, 1)
"""Places of skips among those that the first mixer joins."""


@methods.register("dcama")
class DCAMA(OneWayMethod):
    """Attention from query to support at strides 8, 16 and 32, merged by convolutions.

    All shots are keys of one attention. Training is as published with the loss of `loss_terms` and
    SGD; the backbone is frozen.

    Args:
        backbone: the feature extractor.
        input_size: side of the input square; by default the backbone's (384 as in the paper).

    Raises:
        FssBenchError: the backbone has not the levels, or widths that 8 heads cannot share.
    """

    void = 0  # as published: ignored pixels of the query are background in training
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        EPISODES: {
            "steps": 107000,  # 500 epochs of 10,260 pairs, the mean of PASCAL's folds
            "batch_size": 48,  # 12 on each of 4 GPUs
            "lr": 1e-3,
            "nesterov": True,
            "weight_decay": 1e-4,
            "flip": 0.0,
        }
    }  # published code; constant rate, backbone frozen, no augmentation

    def __init__(self, backbone: Backbone, input_size: int | None = None) -> None:
        shallow, *stages = block_stages(backbone, ("c2", "c3", "c4", "c5"), "dcama")
        names = [shallow[-1], *(name for stage in stages for name in stage)]
        super().__init__(backbone, names, input_size, paper_size=384)
        self.stages, self.skips = tuple(stages), (stages[0][-1], shallow[-1])
        n3, n4, n5 = (len(stage) for stage in stages)
        self.attentions = nn.ModuleList(
            MaskAttention(backbone.size_of(stage[0]).channels) for stage in stages
        )
        self.conv_c5 = conv_block(n5, (16, 64, 128), (3, 3, 3))
        self.conv_c4 = conv_block(n4, (16, 64, 128), (5, 3, 3))
        self.conv_c3 = conv_block(n3, (16, 64, 128), (5, 5, 3))
        self.merge_c4 = conv_block(128, (128, 128, 128), (3, 3, 3))
        self.merge_c3 = conv_block(128, (128, 128, 128), (3, 3, 3))
        skip_width = sum(2 * backbone.size_of(name).channels for name in self.skips)
        self.mixer1 = nn.Sequential(*_mixer(128 + skip_width, 128, 64), nn.ReLU())
        self.mixer2 = nn.Sequential(*_mixer(64, 64, 16), nn.ReLU())
        self.mixer3 = nn.Sequential(*_mixer(16, 16, 2))

    def query_part(self, features: Features) -> Features:
        """Its queries of every stage, and what its skips give to the first mixer."""
        if self.training:
            return features
        skips = {name: features[name] for name in self.skips}
        return {
            **{f"q{s}": a.queries(maps) for s, a, maps in self._stages(features)},
            **_sizes(features, self.stages),
            "mixed": self._mixed(skips, QUERY_SKIPS),
        }

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """Its keys and mask of every stage; its skips, and what they give if there is one shot."""
        if self.training:
            return super().support_part(features, mask)
        weights = foreground(mask)[None, None]
        skips = {name: features[name] for name in self.skips}
        return {
            **{f"k{s}": a.keys(maps) for s, a, maps in self._stages(features)},
            **{
                f"m{s}": resize_corners(weights, (maps.shape[-2], maps.shape[-1])).flatten()
                for s, _, maps in self._stages(features)
            },
            **skips,
            "mixed": self._mixed(skips, SUPPORT_SKIPS),
        }

    def compare_one(self, supports: Sequence[Features], query: Features, size: Size) -> Tensor:
        """Logits [1, 2, H, W] at the input's size."""
        if self.training:
            return self._train(*stacked(supports), query)
        maps = []
        for s in range(len(self.stages)):
            keys = cat([part[f"k{s}"] for part in supports], dim=2)
            column = cat([part[f"m{s}"] for part in supports])[None, :, None]
            means = self.attentions[s](query[f"q{s}"], keys, column)
            maps.append(means.reshape(1, len(means), *query[f"size{s}"].shape[-2:]))
        return resize_corners(self._decode(self._merge(*maps), self._skips(supports, query)), size)

    def _stages(self, features: Features) -> Iterator[tuple[int, "MaskAttention", Tensor]]:
        """Number, attention and maps [n, C, h, w] of every stage of one image."""
        for s, (attention, stage) in enumerate(zip(self.attentions, self.stages, strict=True)):
            assert isinstance(attention, MaskAttention)
            yield s, attention, cat([features[name] for name in stage])

    def _merge(self, c3: Tensor, c4: Tensor, c5: Tensor) -> Tensor:
        """Attended masks [1, n, h, w] of three stages to [1, 128, h, w] of the finest."""
        merged = self.merge_c4(resized(self.conv_c5(c5), c4) + self.conv_c4(c4))
        return self.merge_c3(resized(merged, c3) + self.conv_c3(c3))  # type: ignore[no-any-return]

    def _skips(self, supports: Sequence[Features], query: Features) -> Tensor:
        """What the skips of query and supports, the largest of the shots, give to the mixer."""
        if len(supports) == 1:
            return query["mixed"] + supports[0]["mixed"]
        largest = {
            name: stack([part[name] for part in supports]).amax(dim=0) for name in self.skips
        }
        return query["mixed"] + self._mixed(largest, SUPPORT_SKIPS)

    def _mixed(self, skips: Features, places: tuple[int, int]) -> Tensor:
        """The first mixer's convolution of skips alone: [1, 128, h, w] at c2's size.

        Args:
            skips: [1, C, h, w] of c3 and c2.
            places: which of the two blocks of channels of c3, and of c2, they are.
        """
        coarse, fine = (skips[name] for name in self.skips)
        at = self._blocks()
        found = F.conv2d(resized(coarse, fine), at[1 + places[0]], padding=1)
        return found + F.conv2d(fine, at[3 + places[1]], padding=1)

    def _blocks(self) -> tuple[Tensor, ...]:
        """The first mixer's weights of: merged maps, c3 of query and support, c2 of both."""
        coarse, fine = (self.backbone.size_of(name).channels for name in self.skips)
        first: Any = self.mixer1[0]
        return torch.split(first.weight, [128, coarse, coarse, fine, fine], dim=1)

    def _decode(self, merged: Tensor, skips: Tensor) -> Tensor:
        """Merged maps [1, 128, h, w] and what the skips give to logits at 4 times c2's size.

        The first convolution is linear: its parts are added up, where the published code joins
        their inputs.
        """
        mixer1: Any = self.mixer1
        own = F.conv2d(resized(merged, skips), self._blocks()[0], mixer1[0].bias, padding=1)
        found = mixer1[1:](own + skips)
        merged = self.mixer2(doubled(found))
        return self.mixer3(doubled(merged))  # type: ignore[no-any-return]

    def _train(self, support: Features, masks: Tensor, query: Features) -> Tensor:
        """Logits [1, 2, H, W] with dropout, the operations in the published order."""
        weights, attentions = foreground(masks)[:, None], cast("Sequence[Any]", self.attentions)
        c3, c4, c5 = (
            attention.attend(
                cat([query[name] for name in stage]),
                stack([support[name] for name in stage]),
                weights,
            )
            for attention, stage in zip(attentions, self.stages, strict=True)
        )
        logits = self._mix(self._merge(c3, c4, c5), support, query)
        return resize_corners(logits, (masks.shape[-2], masks.shape[-1]))

    def _mix(self, merged: Tensor, support: Features, query: Features) -> Tensor:
        """Merged maps [1, 128, h, w] and the skips of c3 and c2 to logits at 4 times c2's size."""
        for name in self.skips:
            # the published skips: maps before their last activation, the largest of the shots
            skip = cat([query[name], support[name].amax(dim=0, keepdim=True)], dim=1)
            merged = cat([resized(merged, skip), skip], dim=1)
        merged = self.mixer2(doubled(self.mixer1(merged)))
        return self.mixer3(doubled(merged))  # type: ignore[no-any-return]


class MaskAttention(nn.Module):
    """Attention of a stage: its blocks share the two projections.

    Args:
        width: channels of the stage.

    Raises:
        FssBenchError: `width` is not a multiple of the heads.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % HEADS:
            raise FssBenchError(
                f"dcama has {HEADS} heads, which cannot share {width} channels: choose a backbone "
                f"whose c3, c4 and c5 have a multiple of {HEADS}, such as resnet50"
            )
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def queries(self, maps: Tensor) -> Tensor:
        """Queries [n, heads, N, d] of maps [n, C, h, w], contiguous."""
        return self._project(self.query, maps)

    def keys(self, maps: Tensor) -> Tensor:
        """Keys [n, heads, N, d] of maps [n, C, h, w], contiguous."""
        return self._project(self.key, maps)

    def _keys_of_all(self, shots: Tensor) -> Tensor:
        """Keys [1, heads, K N, d] of K supports [K, C, h, w]."""
        return cat(torch.split(self.keys(shots), 1), dim=2)

    def _project(self, projection: nn.Linear, maps: Tensor) -> Tensor:
        cells = self._placed(maps.flatten(2).mT)
        heads = _split_heads(linear(cells, projection.weight, projection.bias))
        return heads.contiguous()

    def forward(self, queries: Tensor, keys: Tensor, column: Tensor) -> Tensor:
        """The support's mask as every query cell sees it, [n, N], in eval mode in [0, 1].

        Args:
            queries: [n, heads, N, d].
            keys: [n, heads, M, d].
            column: [1, M, 1] in [0, 1].
        """
        dropout = DROPOUT if self.training else 0.0
        return masked_mean_attention(queries, keys, column, dropout).mean(dim=1)[..., 0]

    def attend(self, query: Tensor, support: Tensor, masks: Tensor) -> Tensor:
        """The same from maps, a block at a time: the order in which published dropout draws.

        Args:
            query: [n, C, h, w], the maps of a stage's n blocks.
            support: [n, K, C, h, w].
            masks: [K, 1, H, W] in [0, 1].

        Returns:
            [1, n, h, w].
        """
        size = (support.shape[-2], support.shape[-1])
        column = resize_corners(masks, size).reshape(1, -1, 1)
        means = [
            self(self.queries(q[None]), self._keys_of_all(s), column)
            for q, s in zip(query, support, strict=True)
        ]
        return cat(means).reshape(1, *query.shape[:1], *query.shape[-2:])

    def _placed(self, cells: Tensor) -> Tensor:
        """Cells [..., N, C] with their positions, which start anew for every image."""
        codes = sinusoids(cells.shape[-2], cells.shape[-1], cells.device)
        # dropout draws in the order of memory
        return F.dropout(cells.contiguous() + codes, DROPOUT, self.training)


def _split_heads(cells: Tensor) -> Tensor:
    """[n, N, C] to [n, heads, N, C / heads]."""
    return cells.reshape(*cells.shape[:2], HEADS, -1).transpose(1, 2)


def _sizes(features: Features, stages: Sequence[Sequence[str]]) -> Features:
    """The size of every stage's maps."""
    return {f"size{s}": extent(features[stage[0]]) for s, stage in enumerate(stages)}


def conv_block(inputs: int, widths: Sequence[int], kernels: Sequence[int]) -> nn.Sequential:
    """Convolutions that keep the size, each with group norm (4 groups) and ReLU."""
    layers: list[nn.Module] = []
    for width, kernel in zip(widths, kernels, strict=True):
        layers += [
            nn.Conv2d(inputs, width, kernel, padding=kernel // 2),
            nn.GroupNorm(4, width),
            nn.ReLU(),
        ]
        inputs = width
    return nn.Sequential(*layers)


def _mixer(inputs: int, middle: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, middle, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(middle, outputs, 3, padding=1),
    )


def resized(maps: Tensor, like: Tensor) -> Tensor:
    """Maps [B, C, h, w] at the size of others, bilinear with align_corners=True."""
    return resize_corners(maps, (like.shape[-2], like.shape[-1]))


def doubled(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] at twice their size, bilinear with align_corners=True."""
    return resize_corners(maps, (2 * maps.shape[-2], 2 * maps.shape[-1]))
