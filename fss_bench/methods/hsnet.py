"""HSNet: similarities of all pairs of cells at three strides, squeezed by 4D convolutions.

Min, Kang and Cho, ICCV 2021, https://arxiv.org/abs/2104.01538.
Published code: https://github.com/juhongm999/hsnet.

Differs from the paper: any backbone with levels c3 to c5 and any input side are taken (the paper:
VGG-16, ResNet-50 and ResNet-101 at 400); training with several shots, which the paper does not do,
takes the mean of their logits.

Differs from the published code: the query is encoded once for all shots; support cells outside the
mask, which correlate with nothing, are left out; the pivots of a 4D convolution are found anew for
every input size, where the code keeps those of the first; where the support sides of two stages
differ, which they do not at 400, the coarser one is resized.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, cat, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.correlation import (
    Pairs,
    SqueezeBlock,
    correlation,
    query_cells,
    resize_pairs,
    support_cells,
)
from fss_bench.method import EPISODES, methods
from fss_bench.one_way import OneWayMethod
from fss_bench.ops import foreground, resize_corners
from fss_bench.part_method import Size
from fss_bench.shots import vote_logits
from fss_bench.stages import block_stages

CARD = {
    "paper": "Hypercorrelation Squeeze for Few-Shot Segmentation",
    "year": 2021,
    "venue": "ICCV",
    "backbones": {"vgg16": 2570018, "resnet50": 2573794, "resnet101": 2587394},
    "input_size": 400,
}


@methods.register("hsnet")
class HSNet(OneWayMethod):
    """Hypercorrelations of the blocks of c3, c4 and c5, squeezed to one map and decoded.

    Several shots are independent questions whose answers vote. Training is as published with the
    loss of `loss_terms` and Adam; the backbone is frozen.

    Args:
        backbone: the feature extractor.
        input_size: side of the input square; by default the backbone's (400 as in the paper).
        official: with several shots, a pixel is foreground with half as many votes as the pixel
            that has most, as published; else with half the shots.

    Raises:
        FssBenchError: the backbone has not the levels.
    """

    void = 0  # as published: ignored pixels of the query are background in training
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        EPISODES: {
            "steps": 180000,  # 350 epochs, which its author says are needed, of 10,260 pairs
            "batch_size": 20,  # 40 on COCO
            "optimiser": "adam",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "flip": 0.0,
        }
    }  # published code; constant rate, backbone frozen, no augmentation

    def __init__(
        self, backbone: Backbone, input_size: int | None = None, official: bool = True
    ) -> None:
        stages = block_stages(backbone, ("c3", "c4", "c5"), "hsnet")
        names = [name for stage in stages for name in stage]
        super().__init__(backbone, names, input_size, paper_size=400)
        self.stages, self.official = stages, official
        n3, n4, n5 = (len(stage) for stage in stages)
        self.encoder_c5 = SqueezeBlock(n5, (16, 64, 128), (3, 3, 3), (2, 2, 2))
        self.encoder_c4 = SqueezeBlock(n4, (16, 64, 128), (5, 3, 3), (4, 2, 2))
        self.encoder_c3 = SqueezeBlock(n3, (16, 64, 128), (5, 5, 3), (4, 4, 2))
        self.merge_c4 = SqueezeBlock(128, (128, 128, 128), (3, 3, 3), (1, 1, 1))
        self.merge_c3 = SqueezeBlock(128, (128, 128, 128), (3, 3, 3), (1, 1, 1))
        self.decoder1 = nn.Sequential(
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.decoder2 = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1)
        )

    def query_part(self, features: Features) -> Features:
        """Unit vectors [n, h, w, C] of the cells of every stage's blocks."""
        return {
            f"cells{s}": query_cells(cat([features[name] for name in stage]))
            for s, stage in enumerate(self.stages)
        }

    def support_part(self, features: Features, mask: Tensor) -> Features:
        """Unit vectors [n, m, C] of every stage's cells under the mask, and where they are.

        Those outside it correlate with nothing.
        """
        part, shown = {}, foreground(mask)[None, None]
        for s, stage in enumerate(self.stages):
            maps = cat([features[name] for name in stage])
            weights = resize_corners(shown, _size(maps))[0, 0]
            part[f"cells{s}"], part[f"where{s}"] = support_cells(maps, weights)
        return part

    def compare_one(self, supports: Sequence[Features], query: Features, size: Size) -> Tensor:
        """Logits [1, 2, H, W] at the input's size; of several shots see `vote_logits`.

        In training mode they are the mean of the shots' logits, since a vote has no gradient.
        """
        logits = cat([self.shot_logits(support, query, size) for support in supports])
        if len(logits) == 1 or self.training:
            return logits.mean(dim=0, keepdim=True)
        return vote_logits(logits, self.official)

    def shot_logits(self, support: Features, query: Features, size: Size) -> Tensor:
        """Logits [1, 2, H, W] of one shot; arguments as in `compare_one`."""
        pairs = [
            correlation(query[f"cells{s}"], support[f"cells{s}"], support[f"where{s}"])
            for s in range(len(self.stages))
        ]
        return resize_corners(self._decode(self._squeeze(*pairs)), size)

    def _squeeze(self, c3: Pairs, c4: Pairs, c5: Pairs) -> Tensor:
        """Pairs of three stages, a channel a block, to [1, 128, h, w] of the finest."""
        c3, c4, c5 = self.encoder_c3(c3), self.encoder_c4(c4), self.encoder_c5(c5)
        merged = self.merge_c4(resize_pairs(c5, c4).plus(c4))
        merged = self.merge_c3(resize_pairs(merged, c3).plus(c3))
        return merged.rows.mean(dim=0, keepdim=True)  # type: ignore[no-any-return]

    def _decode(self, squeezed: Tensor) -> Tensor:
        """[1, 128, h, w] to logits [1, 2, 2 h, 2 w]."""
        fine = self.decoder1(squeezed)
        height, width = _size(fine)
        return self.decoder2(resize_corners(fine, (2 * height, 2 * width)))  # type: ignore[no-any-return]


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
