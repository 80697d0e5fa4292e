"""The backbone contract: images in [0, 1] to named feature levels. Owns normalisation."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench.errors import FssBenchError, UnknownNameError, shorten
from fss_bench.registry import backbones

Features = dict[str, Tensor]
DEFAULT_INPUT_SIZE = 417
"""PANet's published input side, for whatever names no other."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

__all__ = ["Backbone", "BuiltFor", "Features", "Level", "WeightsInfo", "backbones"]


@dataclass(frozen=True)
class Level:
    """A named feature map: channels, and input pixels a cell in each direction."""

    channels: int
    stride: int


@dataclass(frozen=True)
class WeightsInfo:
    """Where weights came from.

    Attributes:
        source: `none`, `imagenet`, `packaged` or a file's name.
        sha256: of the file, or of the tensors.
        layout: of a file: the published layout that it was read by.
        encoder: of a file: `query` or `momentum`.
    """

    source: str
    sha256: str | None
    layout: str | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class BuiltFor:
    """What a weights file asked of the network that was built for it, beside its tensors.

    A file of the whole method keeps it: trained weights need the same network and the same images.

    Attributes:
        layout: the published layout whose changes to timm's network apply.
        options: what timm built the network with.
        mean, std: of images, a channel; None for a timm model's own.
    """

    layout: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "BuiltFor":
        """From what JSON keeps of it, in a file that anybody may have written.

        Raises:
            ValueError: numbers that are no image statistics, or options that no layout asks for:
                timm's builder takes some that read other files.
        """
        options = dict(record["options"])
        if not options.keys() <= {"num_heads"} or not all(type(v) is int for v in options.values()):
            raise ValueError(f"the network is built for {sorted(options)}")
        mean, std = (None if record[k] is None else tuple(record[k]) for k in ("mean", "std"))
        for numbers in (mean, std):
            if numbers is not None and (
                len(numbers) != 3 or not all(math.isfinite(float(x)) for x in numbers)
            ):
                raise ValueError(f"image statistics {numbers}")
        if std is not None and min(std) <= 0:
            raise ValueError(f"deviations of images {std}")
        return cls(str(record["layout"]), options, mean, std)


class _Shared:
    """Features of the last images that a backbone was given.

    Args:
        levels: all that are computed.

    Attributes:
        saved: seconds that those who asked second and later would have waited.
    """

    def __init__(self, levels: Sequence[str]) -> None:
        self.levels, self.saved, self._seconds = levels, 0.0, 0.0
        self._images: Tensor | None = None
        self._found: Features = {}

    def features(self, backbone: "Backbone", images: Tensor, levels: Sequence[str]) -> Features:
        """Those asked for of images; others than `levels` are computed on their own."""
        if not set(levels) <= set(self.levels):
            return backbone._features(images, levels)
        if self._images is images:
            self.saved += self._seconds
        else:
            start = time.perf_counter()
            self._images, self._found = images, backbone._features(images, self.levels)
            if images.device.type == "cuda":
                torch.cuda.synchronize(images.device)
            self._seconds = time.perf_counter() - start
        return {level: self._found[level] for level in levels}


class Backbone(nn.Module):
    """A network that turns images into feature maps.

    Attributes:
        name: what the user called it.
        levels: level name -> its channels and stride. `c2` has stride 4, `c3` 8, `c4` 16, `c5` 32,
            or is the dilated stage of that name.
        weights: where the weights came from.
        blocks: level -> names of the maps of its blocks, shallow to deep, before each block's last
            activation; as levels they can be asked for by name. The level alone where a network's
            blocks are not known.
        fixed_size: the only input side it takes, or None.
        default_size: the side it works best at, where that was measured; else a method's own.
        default_level: the level that methods without a published choice use.
        options: what `create_backbone` was given beside name and weights.
        built_for: what a weights file asked of it, where there was one.
        frozen: whether it is never trained: no gradients, always in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        levels: Mapping[str, Level],
        mean: Sequence[float],
        std: Sequence[float],
        weights: WeightsInfo,
        fixed_size: int | None = None,
        default_size: int | None = None,
        default_level: str = "c4",
        frozen: bool = True,
        blocks: Mapping[str, Mapping[str, Level]] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.levels, self.weights = name, dict(levels), weights
        self.fixed_size, self.frozen = fixed_size, frozen
        self.options: dict[str, Any] = {}
        self._shared: _Shared | None = None
        self.built_for: BuiltFor | None = None
        known = blocks or {}
        self._blocks = {level: dict(known.get(level, {level: levels[level]})) for level in levels}
        self.blocks = {level: tuple(maps) for level, maps in self._blocks.items()}
        self.default_size = fixed_size or default_size
        self.default_level = default_level if default_level in self.levels else list(levels)[-1]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, levels: Sequence[str] | None = None) -> Features:
        """Feature maps of a batch.

        Args:
            images: [B, 3, H, W] RGB in [0, 1], not normalised.
            levels: which levels, or maps of `blocks`; by default all levels. Deeper stages than
                needed are not run.

        Returns:
            level -> [B, C, h, w].

        Raises:
            FssBenchError: an unknown level, or an input side that the network does not take.
        """
        wanted = list(self.levels if levels is None else levels)
        self.check_levels(wanted)
        side = self.fixed_size
        if side and tuple(images.shape[-2:]) != (side, side):
            raise FssBenchError(
                f"backbone {self.name} takes {side}x{side} images, got "
                f"{images.shape[-1]}x{images.shape[-2]}: use --option input_size={side}"
            )
        if self._shared is not None:
            return self._shared.features(self, images, wanted)
        return self._features(images, wanted)

    def _features(self, images: Tensor, levels: Sequence[str]) -> Features:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.extract((images - self.mean) / self.std, levels)

    @contextmanager
    def shared(self, levels: Sequence[str]) -> Iterator[_Shared]:
        """While it lasts, the same tensor of images is run once, whoever asks for which levels.

        Args:
            levels: all that will be asked for.
        """
        self._shared = _Shared(tuple(dict.fromkeys(levels)))
        try:
            yield self._shared
        finally:
            self._shared = None

    def extract(self, images: Tensor, levels: Sequence[str]) -> Features:
        """Feature maps of normalised images; what a backbone implements."""
        raise FssBenchError(f"backbone {type(self).__name__} must define extract(images, levels)")

    def size_of(self, level: str) -> Level:
        """Channels and stride of a level or of a block's map.

        Raises:
            UnknownNameError: this backbone has no such level.
        """
        for maps in (self.levels, *self._blocks.values()):
            if level in maps:
                return maps[level]
        raise UnknownNameError(f"level of backbone {self.name}", level, self.levels)

    def need_levels(self, levels: Sequence[str], method: str) -> None:
        """Raise FssBenchError unless this backbone has all levels that a method cannot do without.

        Args:
            levels: the levels.
            method: the method's name, for the message.
        """
        missing = [level for level in levels if level not in self.levels]
        if missing:
            raise FssBenchError(
                f"{method} needs the levels {', '.join(levels)}; backbone {self.name} has "
                f"{shorten(self.levels, 8)}: choose another --backbone, such as resnet50"
            )

    def check_levels(self, levels: Sequence[str]) -> None:
        """Raise UnknownNameError for a level that this backbone does not have."""
        for level in levels:
            self.size_of(level)

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode; a frozen backbone stays in eval mode."""
        super().train(mode and not self.frozen)
        return self

    def freeze(self) -> None:
        """Apply `frozen`: no gradients for its parameters and eval mode. Call when built."""
        self.requires_grad_(not self.frozen)
        self.train(not self.frozen)
