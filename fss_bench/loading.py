"""From specs to tensors: what to load when, and the workers that load it.

All specs are known before the first pixel is read, so the plan says for every step which images are
new, and what will ever be made of them.
"""

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fss_bench.annotations import support_annotation
from fss_bench.dataset import SegDataset, checked_image
from fss_bench.episodes import Episode, EpisodeSpec
from fss_bench.errors import FssBenchError
from fss_bench.geometry import place_image, place_mask, place_target
from fss_bench.items import Item, Want
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol
from fss_bench.workers import loading_worker


@dataclass(frozen=True)
class Step:
    """Episodes that go through the method together.

    Attributes:
        specs: the episodes.
        needs: what they need, each once.
        load: images that must be loaded, for them or for the next steps.
        make: what must be made of these images, for any step.
    """

    specs: Sequence[EpisodeSpec]
    needs: Sequence[Item]
    load: Sequence[str]
    make: Sequence[Want]


@dataclass(frozen=True)
class StepData:
    """What a worker loaded for a step.

    Attributes:
        images: image -> [3, S, S] in 0 … 255.
        items: what to make of them; of supports in parts with the masks [S, S] uint8.
        support_masks: [B, N, K, S, S] uint8, of methods that are not in parts.
        query_masks: for each protocol an [H, W] uint8 mask an episode, at the resolution of its
            IoU: way number, 0 elsewhere, 255 ignore.
        loaded: when loading began and when it ended, on the clock of `time.monotonic`.
        error: what went wrong instead, as one line.
    """

    images: dict[str, Tensor]
    items: dict[Item, Tensor | None]
    support_masks: Tensor | None
    query_masks: list[list[Tensor]]
    loaded: tuple[float, float] = (0.0, 0.0)
    error: str | None = None


def plan_steps(
    wanted: Sequence[Sequence[Want]],
    batch_size: int,
    there: Container[Item] = (),
    later: Iterable[Want] = (),
    group: int = 1,
) -> list[Step]:
    """Group episodes and say which images are loaded when: each once, when it is first needed.

    Args:
        wanted: what every episode needs, in the order in which they are segmented.
        batch_size: episodes a step.
        there: what is there from before.
        later: what passes to come need: it is made as well.
        group: how many images are encoded together; they are loaded ahead to make full groups.
    """
    steps = [wanted[i : i + batch_size] for i in range(0, len(wanted), batch_size)]
    needs = [list(dict.fromkeys(w.item for episode in step for w in episode)) for step in steps]
    by_image: dict[str, dict[Item, Want]] = {}
    for want in chain(chain.from_iterable(wanted), later):
        if want.item not in there:
            by_image.setdefault(want.item.image, {}).setdefault(want.item, want)
    missing = [
        list(dict.fromkeys(item.image for item in items if item not in there)) for items in needs
    ]
    queue = list(dict.fromkeys(chain.from_iterable(missing)))
    place = {image: n for n, image in enumerate(queue, start=1)}
    plan, done = [], 0
    for step, items, images in zip(steps, needs, missing, strict=True):
        last = max((place[image] for image in images), default=0)
        end = max(done, -(-last // group) * group)
        load, done = queue[done:end], end
        make = [want for image in load for want in by_image[image].values()]
        plan.append(Step([episode[0].spec for episode in step], items, load, make))
    return plan


class EpisodeLoader(TorchDataset[StepData]):
    """Loads images and masks of steps; holds no state that changes.

    Args:
        dataset: where pixels come from.
        protocol: resize, ignore and annotation rules.
        steps: the plan.
        size: side S of the input square.
        targets: protocols under which queries are scored; by default `protocol`. They share its
            rules for what the method is given.
        parts: whether supports' masks come with what is made of them, not with every step.
    """

    def __init__(
        self,
        dataset: SegDataset,
        protocol: EvaluationProtocol,
        steps: Sequence[Step],
        size: int,
        targets: Sequence[EvaluationProtocol] = (),
        parts: bool = False,
    ) -> None:
        self.dataset, self.protocol, self.steps, self.size = dataset, protocol, steps, size
        self.targets, self.parts = targets or (protocol,), parts

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> StepData:
        start = time.monotonic()
        try:
            data = self._load(self.steps[i])
        except FssBenchError as error:
            return StepData({}, {}, None, [], error=str(error))
        return replace(data, loaded=(start, time.monotonic()))

    def _load(self, step: Step) -> StepData:
        masks = None if self.parts else [self._support_masks(spec) for spec in step.specs]
        return StepData(
            *self.load(step.load, step.make),
            None if masks is None else torch.stack(masks),
            self._query_masks(step.specs),
        )

    def load(
        self, images: Sequence[str], make: Sequence[Want]
    ) -> tuple[dict[str, Tensor], dict[Item, Tensor | None]]:
        """Pixels of images, and what to make of them; see `StepData`."""
        items = {
            want.item: self._support_mask(want.spec, want.way, want.shot, want.protocol)
            if want.item.role == "support"
            else None
            for want in make
        }
        return {image: self._square(image) for image in images}, items

    def _query_masks(self, specs: Sequence[EpisodeSpec]) -> list[list[Tensor]]:
        truths = [self._truth(spec) for spec in specs]
        fitted = {
            target.iou_at: [place_target(truth, self.size, target) for truth in truths]
            for target in self.targets
        }
        return [fitted[target.iou_at] for target in self.targets]

    def _support_masks(self, spec: EpisodeSpec) -> Tensor:
        rows = [
            [self._support_mask(spec, way, shot, self.protocol) for shot in range(len(images))]
            for way, images in enumerate(spec.supports)
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def _support_mask(
        self, spec: EpisodeSpec, way: int, shot: int, protocol: EvaluationProtocol
    ) -> Tensor:
        mask = support_annotation(self.dataset, protocol, spec, way, shot)
        return place_mask(mask, self.size, protocol)

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
    return place_image(checked_image(dataset, image), size, protocol)


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
        worker_init_fn=loading_worker,
    )
    for step, data in zip(loader.steps, batches, strict=True):
        if data.error is not None:
            raise FssBenchError(data.error)
        yield step, data


def _as_is(data: Any) -> Any:
    return data
