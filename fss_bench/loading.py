"""From specs to tensors: what to load when, and the workers that load it.

All specs are known before the first pixel is read, so the plan says for every step which images are
new. An image is decoded and encoded again only if memory forced it out in between.
"""

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from multiprocessing import AuthenticationError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fss_bench.annotations import support_annotation
from fss_bench.dataset import SegDataset, check_size
from fss_bench.episodes import Episode, EpisodeSpec
from fss_bench.errors import FssBenchError
from fss_bench.geometry import place_image, place_mask, place_target
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol


@dataclass(frozen=True)
class Step:
    """Episodes that go through the method together.

    Attributes:
        specs: the episodes.
        load: images that must be loaded for them.
        evict: images to forget afterwards; those of `store` stay on the disk.
        fetch: images that must be read back from the disk.
        store: images to put on the disk afterwards.
        clear: images whose place on the disk is free afterwards.
    """

    specs: Sequence[EpisodeSpec]
    load: Sequence[str]
    evict: Sequence[str]
    fetch: Sequence[str] = ()
    store: Sequence[str] = ()
    clear: Sequence[str] = ()


@dataclass(frozen=True)
class StepData:
    """What a worker loaded for a step.

    Attributes:
        images: image -> [3, S, S] in 0 … 255.
        support_masks: [B, N, K, S, S] uint8.
        query_masks: for each protocol an [H, W] uint8 mask an episode, at the resolution of its
            IoU: way number, 0 elsewhere, 255 ignore.
        loaded: when loading began and when it ended, on the clock of `time.monotonic`.
        error: what went wrong instead, as one line.
    """

    images: dict[str, Tensor]
    support_masks: Tensor
    query_masks: list[list[Tensor]]
    loaded: tuple[float, float] = (0.0, 0.0)
    error: str | None = None


def plan_steps(
    specs: Sequence[EpisodeSpec],
    batch_size: int,
    capacity: int,
    kept: Collection[str] = (),
    later: Mapping[str, int] | None = None,
    disk: int = 0,
    stored: Collection[str] = (),
) -> list[Step]:
    """Group episodes and decide what to load, what to forget and what to put on the disk.

    Args:
        specs: the episodes.
        batch_size: episodes a step.
        capacity: how many images may be kept between steps. When more would be, those whose next
            use is farthest away are forgotten (Belady's rule, optimal as the future is known).
        kept: images that are there from before.
        later: image -> how many passes after this one it is needed again, from 1.
        disk: how many images the disk takes of those that memory has no room for.
        stored: images that are there from before.
    """
    groups = [specs[i : i + batch_size] for i in range(0, len(specs), batch_size)]
    needs = [list(dict.fromkeys(image for s in group for image in s.images)) for group in groups]
    uses = {image: [len(groups) + passes] for image, passes in (later or {}).items()}
    for step in range(len(needs) - 1, -1, -1):
        for image in needs[step]:
            uses.setdefault(image, []).append(step)
    held, on_disk = set(kept), set(stored)
    farthest = [(-uses[image][-1], image) for image in held if uses.get(image)]
    heapify(farthest)
    unused = {image for image in held if not uses.get(image)}
    idle = [image for image in on_disk if not uses.get(image)]
    steps = []
    for group, needed in zip(groups, needs, strict=True):
        missing = [image for image in needed if image not in held]
        held.update(missing)
        evict, unused, store = unused, set(), []
        for image in needed:
            uses[image].pop()
            if uses[image]:
                heappush(farthest, (-uses[image][-1], image))
            else:
                evict.add(image)
        load = [image for image in missing if image not in on_disk]
        fetch = [image for image in missing if image in on_disk]
        done, idle = [*idle, *(i for i in needed if not uses[i] and i in on_disk)], []
        on_disk.difference_update(done)
        while len(held) - len(evict) > capacity:
            next_use, image = heappop(farthest)
            if image in held and uses[image] and uses[image][-1] == -next_use:  # else outdated
                evict.add(image)
                if image not in on_disk and len(on_disk) < disk:
                    on_disk.add(image)
                    store.append(image)
        held -= evict
        steps.append(Step(group, load, sorted(evict), fetch, store, done))
    return steps


class EpisodeLoader(TorchDataset[StepData]):
    """Loads images and masks of steps; holds no state that changes.

    Args:
        dataset: where pixels come from.
        protocol: resize, ignore and annotation rules.
        steps: the plan.
        size: side S of the input square.
        targets: protocols under which queries are scored; by default `protocol`. They share its
            rules for what the method is given.
    """

    def __init__(
        self,
        dataset: SegDataset,
        protocol: EvaluationProtocol,
        steps: Sequence[Step],
        size: int,
        targets: Sequence[EvaluationProtocol] = (),
    ) -> None:
        self.dataset, self.protocol, self.steps, self.size = dataset, protocol, steps, size
        self.targets = targets or (protocol,)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> StepData:
        start = time.monotonic()
        try:
            data = self._load(self.steps[i])
        except FssBenchError as error:
            return StepData({}, torch.empty(0), [], error=str(error))
        return replace(data, loaded=(start, time.monotonic()))

    def _load(self, step: Step) -> StepData:
        return StepData(
            {image: self._square(image) for image in step.load},
            torch.stack([self._support_masks(spec) for spec in step.specs]),
            self._query_masks(step.specs),
        )

    def _query_masks(self, specs: Sequence[EpisodeSpec]) -> list[list[Tensor]]:
        truths = [self._truth(spec) for spec in specs]
        fitted = {
            target.iou_at: [place_target(truth, self.size, target) for truth in truths]
            for target in self.targets
        }
        return [fitted[target.iou_at] for target in self.targets]

    def _support_masks(self, spec: EpisodeSpec) -> Tensor:
        rows = [
            [self._support_mask(spec, way, shot) for shot in range(len(images))]
            for way, images in enumerate(spec.supports)
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def _support_mask(self, spec: EpisodeSpec, way: int, shot: int) -> Tensor:
        mask = support_annotation(self.dataset, self.protocol, spec, way, shot)
        return place_mask(mask, self.size, self.protocol)

    def query_mask(self, spec: EpisodeSpec) -> Tensor:
        """Way numbers [H, W] at the resolution at which IoU is computed."""
        return place_target(self._truth(spec), self.size, self.protocol)

    def _truth(self, spec: EpisodeSpec) -> NDArray[np.uint8]:
        """Way numbers [H, W] at the query's own size."""
        target: Any = None
        for way, class_id in enumerate(spec.classes, start=1):
            mask = self.dataset.load_mask(spec.query, class_id)
            target = np.where(mask == 255, 255, 0).astype(np.uint8) if target is None else target
            target[mask == 1] = way
        return np.asarray(target, dtype=np.uint8)

    def _square(self, image: str) -> Tensor:
        return load_square(self.dataset, image, self.size, self.protocol)

    def episode(self, spec: EpisodeSpec) -> Episode:
        """One episode as tensors, loaded on its own."""
        supports = [torch.stack([self._square(image) for image in way]) for way in spec.supports]
        return Episode(
            spec,
            to_float(torch.stack(supports)),
            self._support_masks(spec),
            to_float(self._square(spec.query)),
            self.query_mask(spec),
        )


def load_square(
    dataset: SegDataset,
    image: str,
    size: int,
    protocol: EvaluationProtocol = PROTOCOLS["standard"],
) -> Tensor:
    """An image in its input square under a protocol's rules: [3, S, S] in 0 … 255.

    Raises:
        DatasetError: unreadable, or its mask has another size.
    """
    pixels = dataset.load_image(image)
    check_size(image, dataset.index.sizes[image], pixels.shape)
    return place_image(pixels, size, protocol)


def to_float(images: Tensor) -> Tensor:
    """Pixels in 0 … 255 to [0, 1]."""
    return images.float() / 255


def load_steps(loader: EpisodeLoader, workers: int) -> Iterator[tuple[Step, StepData]]:
    """The steps in order, loaded ahead by workers.

    Raises:
        FssBenchError: an image or mask cannot be used.
    """
    batches = DataLoader(
        loader,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_is,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_hush,
    )
    for step, data in zip(loader.steps, batches, strict=True):
        if data.error is not None:
            raise FssBenchError(data.error)
        yield step, data


def _hush(_: int) -> None:
    """Let a worker print nothing when the main process goes away in the middle of a hand-over."""
    sys.excepthook = _print_faults


def _print_faults(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not issubclass(kind, (EOFError, OSError, AuthenticationError, KeyboardInterrupt)):
        sys.__excepthook__(kind, error, trace)


def _as_is(data: Any) -> Any:
    return data
