"""What is kept of an image between episodes, and how episodes are put together from it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench.episodes import EpisodeSpec
from fss_bench.feature_file import FeatureFile
from fss_bench.loading import to_float
from fss_bench.method import splits


class OneShotAtATime(nn.Module):
    """A method asked with every support on its own; its answers are [B, K, 1 + N, h, w].

    The arguments of `forward` are a method's. An image is encoded once.
    """

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method: Any = method

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        """Logits of every support."""
        shots = range(support.shape[2])
        if not splits(self.method):
            answers = [
                self.method(support[:, :, k : k + 1], masks[:, :, k : k + 1], query) for k in shots
            ]
            return torch.stack(answers, dim=1)
        maps = {
            level: features.reshape(*support.shape[:3], *features.shape[1:])
            for level, features in self.method.encode(support.flatten(0, 2)).items()
        }
        asked = self.method.encode(query)
        answers = [
            self.method.segment(
                {level: features[:, :, k : k + 1] for level, features in maps.items()},
                masks[:, :, k : k + 1],
                asked,
            )
            for k in shots
        ]
        return torch.stack(answers, dim=1)


PIXELS = "pixels"
"""What is kept of an image of a method that cannot be split."""


class ImageStore:
    """Encoded images of a method, or the pixels of a method that cannot be split.

    Every image is encoded on its own: the bits of a feature must not depend on which images happen
    to be encoded together.

    Args:
        method: on its device, in eval mode.
        device: where it is.
        folder: for what memory has no room for.

    Attributes:
        encoded: how many times an image was encoded so far.
    """

    def __init__(self, method: nn.Module, device: torch.device, folder: Path) -> None:
        self.method, self.device = method, device
        self._split, self._disk = splits(method), FeatureFile(folder)
        self._held: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self.encoded = 0

    @property
    def kept(self) -> list[str]:
        """Names of the images that are kept in memory."""
        return list(self._held)

    @property
    def stored(self) -> list[str]:
        """Names of the images that are on the disk."""
        return self._disk.images

    def seconds(self, images: Iterable[str]) -> float:
        """How long it took to encode kept images."""
        return sum(self._seconds[image] for image in images)

    def add(self, images: Mapping[str, Tensor]) -> None:
        """Encode and keep images, [3, S, S] in 0 … 255 each."""
        for name, image in images.items():
            start = time.perf_counter()
            pixels = image.to(self.device)
            if self._split:
                maps = self._encode(to_float(pixels[None]))
                self._held[name] = {level: features[0].clone() for level, features in maps.items()}
            else:
                self._held[name] = pixels
            if self.device.type == "cuda":  # else its work is charged to whoever waits next
                torch.cuda.synchronize(self.device)
            self._seconds[name] = time.perf_counter() - start
        self.encoded += len(images)

    def fetch(self, images: Iterable[str]) -> None:
        """Keep images that are on the disk in memory again.

        Raises:
            FssBenchError: the disk does not give them.
        """
        for name in images:
            start = time.perf_counter()
            maps = self._disk.get(name, self.device)
            self._held[name] = maps if self._split else maps[PIXELS]
            self._seconds[name] = time.perf_counter() - start

    def forget(
        self, images: Iterable[str], store: Iterable[str] = (), clear: Iterable[str] = ()
    ) -> None:
        """Drop images from memory.

        Args:
            images: are dropped.
            store: those of them that are put on the disk before.
            clear: images on the disk that nobody needs any more.

        Raises:
            FssBenchError: the disk does not take them.
        """
        for name in clear:
            self._disk.drop(name)
        for name in store:
            held = self._held[name]
            self._disk.put(name, held if self._split else {PIXELS: held})
        for name in images:
            del self._held[name], self._seconds[name]

    def bytes_per_image(self, size: int, pixel: torch.dtype = torch.uint8) -> int:
        """Memory that one kept image takes, for an input square of this side and kind of pixels."""
        pixels = torch.zeros(1, 3, size, size, device=self.device)
        if not self._split:
            return pixels.numel() * pixel.itemsize
        return sum(maps.numel() * maps.element_size() for maps in self._encode(pixels).values())

    def logits(self, specs: Sequence[EpisodeSpec], support_masks: Tensor) -> Tensor:
        """Logits [B, 1 + N, h, w] of episodes whose images are kept.

        Args:
            specs: B episodes of equal ways and shots.
            support_masks: [B, N, K, S, S] uint8.
        """
        masks = support_masks.to(self.device)
        supports = [image for spec in specs for way in spec.supports for image in way]
        queries = [spec.query for spec in specs]
        shape = masks.shape[:3]
        output: Tensor
        if not self._split:
            pixels = to_float(torch.stack([self._held[image] for image in supports]))
            query = to_float(torch.stack([self._held[image] for image in queries]))
            output = self.method(pixels.reshape(*shape, *pixels.shape[1:]), masks, query)
        else:
            maps = self._stack(supports)
            support = {k: v.reshape(*shape, *v.shape[1:]) for k, v in maps.items()}
            output = self._segment(support, masks, self._stack(queries))
        return output

    def shot_logits(self, specs: Sequence[EpisodeSpec], support_masks: Tensor) -> Tensor:
        """Logits [B, K, 1 + N, h, w] with every support on its own; see `logits`."""
        shots = [
            self.logits(
                [replace(s, supports=tuple(way[k : k + 1] for way in s.supports)) for s in specs],
                support_masks[:, :, k : k + 1],
            )
            for k in range(support_masks.shape[2])
        ]
        return torch.stack(shots, dim=1)

    def _stack(self, images: Sequence[str]) -> dict[str, Tensor]:
        levels = self._held[images[0]]
        return {level: torch.stack([self._held[i][level] for i in images]) for level in levels}

    @property
    def _encode(self) -> Any:
        return self.method.encode

    @property
    def _segment(self) -> Any:
        return self.method.segment
