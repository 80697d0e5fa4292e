"""ResNets with PSPNet's stem of three 3x3 convolutions, dilated to stride 8, on timm's ResNet."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.timm_backbone import TimmBackbone
from fss_bench.weights import Weights

PSPNET_STEM = {
    "conv1.": "conv1.0.",
    "bn1.": "conv1.1.",
    "conv2.": "conv1.3.",
    "bn2.": "conv1.4.",
    "conv3.": "conv1.6.",
    "bn3.": "bn1.",
}
"""Stem names in PSPNet's and PFENet's files (`resnet50_v2.pth`) -> timm's."""


class DeepStemResNet(ResNet):  # type: ignore[misc]  # timm is not typed
    """A bottleneck ResNet: deep stem of 64, 64, 128 channels; the last two stages keep stride 8.

    Args:
        layers: blocks of each of the four stages.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__(
            Bottleneck,
            tuple(layers),
            num_classes=0,
            stem_type="deep",
            stem_width=64,
            output_stride=8,
        )
        # no `url`: nobody offers ImageNet weights of this network to timm
        self.pretrained_cfg = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "classifier": "fc"}
        for stage, dilation in ((self.layer3, 2), (self.layer4, 4)):
            # timm, as torchvision, leaves a stage's first block at the dilation before it
            stage[0].conv2.dilation = stage[0].conv2.padding = (dilation, dilation)


def checkpoint_filter_fn(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A weights file's tensors by timm's names; `fss_bench.weights` calls it as it does timm's."""
    if "conv3.weight" not in state:
        return state
    renamed = {}
    for name, value in state.items():
        stem = next((prefix for prefix in PSPNET_STEM if name.startswith(prefix)), "")
        renamed[PSPNET_STEM.get(stem, "") + name.removeprefix(stem)] = value
    return renamed


class DeepStemBackbone(TimmBackbone):
    """A `DeepStemResNet` as backbone; `c4` and `c5` are its dilated stages.

    Args:
        name: our name of it.
        layers: blocks of each stage.
        weights, seed, frozen: see `TimmBackbone`; there is no `imagenet` download.
    """

    def __init__(
        self, name: str, layers: Sequence[int], weights: Weights, seed: int, frozen: bool
    ) -> None:
        build = partial(DeepStemResNet, layers)
        super().__init__(name, weights, seed, output_stride=8, frozen=frozen, build=build)
