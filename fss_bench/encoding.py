"""What is kept of an image between episodes, and how episodes are put together from it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench.backbone import Backbone, Features
from fss_bench.episodes import EpisodeSpec
from fss_bench.feature_file import FeatureFile
from fss_bench.items import Item, query_item, support_item
from fss_bench.loading import to_float
from fss_bench.method import splits
from fss_bench.part_method import Size
from fss_bench.protocols import EvaluationProtocol
from fss_bench.shelf import Maps, Shelf


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
STORED = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class ImageStore:
    """What a method needs of images between episodes: parts, features or pixels.

    Images are encoded in groups of one size, filled up with black ones: the bits of a feature must
    not depend on which images happen to be encoded together.

    Args:
        methods: on their device, in eval mode; several are asked for the same images, and what they
            share of a backbone is run once.
        device: where they are.
        folder: for what memory has no room for.
        group: images a group.
        kept_as: `fp32`, or what all that is kept is rounded to, whether it leaves memory or not.

    Attributes:
        encoded: how many times an image was encoded so far, for one method or for several.
        shelf: what is there.
    """

    def __init__(
        self,
        methods: Sequence[nn.Module],
        device: torch.device,
        folder: Path,
        group: int = 1,
        kept_as: str = "fp32",
    ) -> None:
        self.methods: Sequence[Any] = methods
        self.device, self.group, self._stored = device, group, STORED[kept_as]
        self.shelf = Shelf(FeatureFile(folder), device)
        self._encoding: dict[tuple[str, int], float] = {}
        self._making: dict[Item, float] = {}
        self.encoded = 0

    def seconds(self, items: Iterable[Item], images: Iterable[str], method: int = 0) -> float:
        """How long it took to make items, and to encode images for a method as if for it alone."""
        encoding = sum(self._encoding[image, method] for image in images)
        return encoding + sum(self._making[item] for item in items)

    def made(self, role: str) -> tuple[int, float]:
        """How many images were encoded, or parts of a role were made, each once, and seconds."""
        if role == "image":
            found = [*self._encoding.values()]
        else:
            found = [spent for item, spent in self._making.items() if item.role == role]
        return len(found), sum(found)

    def add(
        self,
        images: Mapping[str, Tensor],
        items: Mapping[Item, Tensor | None],
        needed: Sequence[Item],
        loading: float = 0.0,
    ) -> None:
        """Make items of images.

        Args:
            images: [3, S, S] in 0 … 255 each.
            items: what to make; of supports in parts with the masks [S, S].
            needed: what the step at hand needs.
            loading: seconds that it took to load them all.
        """
        names = list(images)
        wanted: dict[str, dict[Item, Tensor | None]] = {name: {} for name in names}
        for item, mask in items.items():
            wanted[item.image][item] = mask
        for start in range(0, len(names), self.group):
            group = names[start : start + self.group]
            used = sorted({item.method for name in group for item in wanted[name]})
            encoded, seconds = self._encode([images[name].to(self.device) for name in group], used)
            for number, name in enumerate(group):
                features = {method: encoded[method][number] for method in used}
                for method in used:
                    self._encoding[name, method] = seconds[method] / len(group)
                self._make(features, wanted[name], loading / len(names))
                self.shelf.settle(needed)
        self.encoded += len(images)

    def _make(
        self, features: Mapping[int, Features], items: Mapping[Item, Tensor | None], loading: float
    ) -> None:
        """Make items of one image, which took `loading` seconds to load."""
        for item, mask in items.items():
            start = time.perf_counter()
            part = self._part(item, features[item.method], mask)
            part = {k: self._own(v) for k, v in part.items()}
            self._wait()  # on a GPU its work would be charged to whoever waits next
            self._making[item] = time.perf_counter() - start
            anew = loading + self.seconds([item], [item.image], item.method)
            self.shelf.put(item, part, anew)

    def _part(self, item: Item, features: Features, mask: Tensor | None) -> Maps:
        method = self.methods[item.method]
        if item.role == "query":
            found: Maps = method.query_part(features)
        elif item.role == "support" and mask is not None:
            found = method.support_part(features, mask.to(self.device))
        else:
            found = {level: maps[0] for level, maps in features.items()}
        return found

    def _own(self, value: Tensor) -> Tensor:
        """A tensor with memory of its own alone, in the order that the disk gives it back in.

        What workers load lies in memory shared with them: each such tensor holds a file open.
        """
        if self._stored is not None and value.is_floating_point():
            value = value.to(self._stored)
        storage = value.untyped_storage()
        whole = storage.nbytes() == value.numel() * value.element_size()
        shared = value.device.type == "cpu" and storage.is_shared()
        return value if whole and value.is_contiguous() and not shared else _copy(value)

    def _encode(
        self, pixels: Sequence[Tensor], used: Sequence[int]
    ) -> tuple[dict[int, list[Features]], dict[int, float]]:
        """Features [1, C, h, w] of every image of a group, and seconds, by method."""
        split = [method for method in used if splits(self.methods[method])]
        found = {method: [{PIXELS: image[None]} for image in pixels] for method in used}
        seconds = dict.fromkeys(used, 0.0)
        if not split:
            return found, seconds
        images = to_float(torch.stack(list(pixels)))
        missing = self.group - len(images)
        if missing:
            images = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        with self._shared_backbones([self.methods[method] for method in split]) as saved:
            for method in split:
                start, before = time.perf_counter(), saved()
                features = self.methods[method].encode(images)
                self._wait()
                seconds[method] = time.perf_counter() - start + saved() - before
                found[method] = [
                    {k: v[i : i + 1] for k, v in features.items()} for i in range(len(pixels))
                ]
        return found, seconds

    @contextmanager
    def _shared_backbones(self, methods: Sequence[Any]) -> Iterator[Callable[[], float]]:
        """While it lasts, a backbone that several methods have is run once for all.

        Yields what tells the seconds that this has saved so far.
        """
        with ExitStack() as stack:
            asked: dict[Backbone, list[str]] = {}
            for method in methods:
                backbone, levels = getattr(method, "backbone", None), getattr(method, "levels", ())
                if isinstance(backbone, Backbone):
                    asked.setdefault(backbone, []).extend(levels)
            several = asked.items() if len(methods) > 1 else ()
            shared = [stack.enter_context(one.shared(levels)) for one, levels in several]
            yield lambda: sum(one.saved for one in shared)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def logits(
        self,
        specs: Sequence[EpisodeSpec],
        protocol: EvaluationProtocol,
        size: Size,
        support_masks: Tensor | None,
        alone: bool = False,
        method: int = 0,
    ) -> Tensor:
        """Logits of episodes whose items are there: [B, K', 1 + N, h, w].

        Args:
            specs: B episodes of equal ways and shots.
            protocol: its rules for supports.
            size: (H, W) of the input.
            support_masks: [B, N, K, S, S] uint8, of methods that are not in parts.
            alone: every support answers on its own, and K' is K; else K' is 1.
            method: which of the methods is asked.
        """
        shots = len(specs[0].supports[0])
        turns = [slice(k, k + 1) for k in range(shots)] if alone else [slice(None)]
        if support_masks is None:
            answers = [self._compare(specs, protocol, size, turn, method) for turn in turns]
        else:
            masks = support_masks.to(self.device)
            answers = [self._segment(specs, masks, turn, method) for turn in turns]
        return torch.stack(answers, dim=1)

    def _compare(
        self,
        specs: Sequence[EpisodeSpec],
        protocol: EvaluationProtocol,
        size: Size,
        turn: slice,
        method: int,
    ) -> Tensor:
        answers = []
        for spec in specs:
            supports = [
                [
                    self._get(support_item(spec, way, shot, protocol, method))
                    for shot in range(len(images))[turn]
                ]
                for way, images in enumerate(spec.supports)
            ]
            query = self._get(query_item(spec, method))
            answers.append(self.methods[method].compare(supports, query, size))
        return torch.cat(answers)

    def _segment(
        self, specs: Sequence[EpisodeSpec], masks: Tensor, turn: slice, method: int
    ) -> Tensor:
        masks = masks[:, :, turn]
        supports = [image for spec in specs for way in spec.supports for image in way[turn]]
        maps = self._stack(supports, method)
        support = {k: v.reshape(*masks.shape[:3], *v.shape[1:]) for k, v in maps.items()}
        query = self._stack([spec.query for spec in specs], method)
        output: Tensor
        asked = self.methods[method]
        if splits(asked):
            output = asked.segment(support, masks, query)
        else:
            output = asked(to_float(support[PIXELS]), masks, to_float(query[PIXELS]))
        return output

    def _stack(self, images: Sequence[str], method: int) -> Features:
        items = [self._get(Item(image, method=method)) for image in images]
        return {level: torch.stack([item[level] for item in items]) for level in items[0]}

    def _get(self, item: Item) -> Features:
        kept = self.shelf.get(item)
        if self._stored is None:
            return dict(kept)
        return {k: v.float() if v.is_floating_point() else v for k, v in kept.items()}


def _copy(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format)
