"""VGG-16 as published few-shot methods changed it: other pools, dilation, padding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, Features, Level
from fss_bench.errors import WeightsError
from fss_bench.timm_backbone import build_model, timm_model
from fss_bench.weights import Weights, load_weights, open_weights

CONVOLUTIONS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
"""Block of VGG-16 -> places of its convolutions in torchvision's and timm's list of layers."""


@dataclass(frozen=True)
class Pool:
    """A max pool: kernel, stride, padding, and whether a last partial window counts."""

    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False


class VggBackbone(Backbone):
    """timm's VGG-16 layer by layer; names of its weights are timm's.

    Args:
        name: our name of the variant.
        weights, seed, frozen: see `create_backbone`.
        pools: the five pools; None leaves one out.
        levels: level -> (index of the layer whose output it is, its size).
        blocks: level -> map -> (layer, size); see `Backbone`.
        architecture: `vgg16` or `vgg16_bn`.
        dilation: of the fifth block's convolutions.
        padding: of the first convolution.
        mean, std: RGB statistics of images in [0, 1].
        bgr: whether the network takes its channels in the order blue, green, red.
    """

    def __init__(
        self,
        name: str,
        weights: Weights,
        seed: int,
        frozen: bool,
        *,
        pools: Sequence[Pool | None],
        levels: Mapping[str, tuple[int, Level]],
        blocks: Mapping[str, Mapping[str, tuple[int, Level]]] | None = None,
        architecture: str = "vgg16",
        dilation: int = 1,
        padding: int = 1,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        bgr: bool = False,
        default_level: str = "c5",
    ) -> None:
        if bgr and weights == "imagenet":
            raise WeightsError(
                f"backbone {name} takes pixels as Caffe's VGG-16 does, which torchvision's "
                "weights do not fit: pass vgg16-00b39a1b.pth with --weights FILE, or none"
            )
        source = open_weights(weights)
        model = build_model(partial(timm_model, architecture, **source.options), name, seed)
        whole = set(model.state_dict())
        model.prune_intermediate_layers(5, prune_norm=True, prune_head=True)
        info = load_weights(model, architecture, source, whole - set(model.state_dict()))
        super().__init__(
            name,
            {level: size for level, (_, size) in levels.items()},
            *source.statistics({"mean": mean, "std": std}),
            info,
            default_level=default_level,
            frozen=frozen,
            blocks={
                level: {n: size for n, (_, size) in maps.items()}
                for level, maps in (blocks or {}).items()
            },
        )
        self._bgr = bgr
        self._layer = {level: layer for level, (layer, _) in levels.items()}
        for maps in (blocks or {}).values():
            self._layer |= {n: layer for n, (layer, _) in maps.items()}
        _change(model.features, pools, dilation, padding)
        self.model = model  # channels_last is a quarter faster here and four times less exact
        self.freeze()

    @property
    def first_padding(self) -> int:
        """Padding of the first convolution: 1, or enough for a 7x7 layer to follow."""
        return int(self.model.features[0].padding[0])

    def extract(self, images: Tensor, levels: Sequence[str]) -> Features:
        """Feature maps of normalised images [B, 3, H, W], up to the deepest level asked.

        The network takes more channels than 3 where its first convolution was widened.
        """
        maps = torch.cat([images[:, :3].flip(1), images[:, 3:]], dim=1) if self._bgr else images
        wanted = {self._layer[level] for level in levels}
        outputs: dict[int, Tensor] = {}
        for index, layer in enumerate(self.model.features[: max(wanted) + 1]):
            maps = layer(maps)
            if index in wanted:
                outputs[index] = maps
        return {level: outputs[self._layer[level]] for level in levels}


def _change(
    features: nn.Sequential, pools: Sequence[Pool | None], dilation: int, padding: int
) -> None:
    """Give timm's layers other pools, dilation and padding, and ReLUs that write on nothing."""
    places = [i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    for place, pool in zip(places, pools, strict=True):
        features[place] = (
            nn.Identity()
            if pool is None
            else nn.MaxPool2d(pool.kernel, pool.stride, pool.padding, ceil_mode=pool.ceil)
        )
    for index, layer in enumerate(features):
        if isinstance(layer, nn.ReLU):
            features[index] = nn.ReLU()
        if isinstance(layer, nn.Conv2d) and index > places[3]:
            layer.dilation = layer.padding = (dilation, dilation)
    first: Any = features[0]
    first.padding = (padding, padding)
