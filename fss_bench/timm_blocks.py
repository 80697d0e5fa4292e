"""Maps inside timm's networks: outputs of single blocks, before their last activation."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from timm.models.efficientnet import EfficientNet
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vgg import VGG
from torch import Tensor, nn

from fss_bench.backbone import Level


@dataclass(frozen=True)
class Tap:
    """Where a map is found.

    Attributes:
        module: path of a module inside the network.
        level: the level that runs it.
        channels: of the map.
        before: the module's input is meant, not its output.
        channels_last: the map is [B, h, w, C].
    """

    module: str
    level: str
    channels: int
    before: bool = False
    channels_last: bool = False


@contextmanager
def tapped(model: nn.Module, taps: Mapping[str, Tap]) -> Iterator[dict[str, Tensor]]:
    """Maps [B, C, h, w] that pass through the taps while the context lasts, by name.

    They are copies where a later activation would write on them.
    """
    maps: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, tap in taps.items():

            def keep(value: Tensor, name: str = name, tap: Tap = tap) -> None:
                maps[name] = value.permute(0, 3, 1, 2) if tap.channels_last else value.clone()

            module = model.get_submodule(tap.module)
            handle = (
                module.register_forward_pre_hook(lambda _, given, keep=keep: keep(given[0]))
                if tap.before
                else module.register_forward_hook(lambda _, __, out, keep=keep: keep(out))
            )
            stack.callback(handle.remove)
        yield maps


def block_taps(
    model: Any, levels: Mapping[str, Level], positions: Mapping[str, int]
) -> dict[str, dict[str, Tap]]:
    """Level -> its blocks' maps, for the families whose blocks are known.

    `positions` are the levels' places in timm's `feature_info`.

    ResNets: every block before its last ReLU. Swin: every block. EfficientNet: every block of the
    stage that is the level. VGG: the convolutions of a level before their ReLU; for the last level
    the last pool, as in HSNet.
    """
    if isinstance(model, ResNet):
        stages = [(f"c{s + 1}", getattr(model, f"layer{s}"), f"layer{s}") for s in range(1, 5)]
        return {
            level: {
                f"{level}.{i}": Tap(
                    f"{path}.{i}.{_last_act(block)}", level, levels[level].channels, before=True
                )
                for i, block in enumerate(stage)
            }
            for level, stage, path in stages
        }
    if isinstance(model, SwinTransformer):
        return {
            level: {
                f"{level}.{i}": Tap(
                    f"layers.{s}.blocks.{i}", level, levels[level].channels, channels_last=True
                )
                for i in range(len(model.layers[s].blocks))
            }
            for s, level in enumerate(("c2", "c3", "c4", "c5"))
        }
    if isinstance(model, EfficientNet):
        modules = {level: feature_info(model)[at]["module"] for level, at in positions.items()}
        return {
            level: {
                f"{level}.{i}": Tap(f"{path}.{i}", level, levels[level].channels)
                for i in range(len(model.get_submodule(path)))
            }
            for level, path in modules.items()
            if path.startswith("blocks.")
        }
    if isinstance(model, VGG):
        return _vgg_taps(model.features, levels)
    return {}


def _last_act(block: nn.Module) -> str:
    """The name of a residual block's last ReLU; a network may mix kinds of blocks."""
    return "act2" if isinstance(block, BasicBlock) else "act3"


def _vgg_taps(features: nn.Sequential, levels: Mapping[str, Level]) -> dict[str, dict[str, Tap]]:
    pools = [-1, *(i for i, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d))]
    taps: dict[str, dict[str, Tap]] = {}
    for level, (start, end) in zip(levels, pairwise(pools), strict=False):
        convolutions = [i for i in range(start + 1, end) if isinstance(features[i], nn.Conv2d)]
        taps[level] = {
            f"{level}.{n}": Tap(f"features.{i}", level, levels[level].channels)
            for n, i in enumerate(convolutions)
        }
    last = list(levels)[-1]
    taps[last] = {f"{last}.0": Tap(f"features.{pools[-1]}", last, levels[last].channels)}
    return taps


def feature_info(model: Any) -> list[dict[str, Any]]:
    """What timm tells of a model's feature maps, shallow to deep."""
    return list(getattr(model.feature_info, "info", model.feature_info))
