"""Training items by number: episodes, or images with the labels of all base classes.

An item depends on the seed and its number alone: neither on workers nor on what came before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from fss_bench.dataset import SegDataset, check_size
from fss_bench.episodes import EpisodeSampler, EpisodeSpec, digest_int
from fss_bench.errors import FssBenchError
from fss_bench.images import IGNORE
from fss_bench.loading import to_float
from fss_bench.protocols import EvaluationProtocol
from fss_bench.training.augmentation import Augmentation, augment_together, prepare
from fss_bench.training.targets import Targets
from fss_bench.training.truth import Mask
from fss_bench.training_batch import TrainingBatch
from fss_bench.workers import quiet_worker


@dataclass(frozen=True)
class Item:
    """One training item as tensors.

    Attributes:
        number: which item.
        support_images: [N, K, 3, S, S] in [0, 1]; [0, 0, 3, S, S] for an image alone.
        support_masks: [N, K, S, S] uint8: 1 on the way's class, 0 off it, 255 ignore.
        query_image: [3, S, S] in [0, 1].
        query_mask: [S, S] uint8: way number, 0 elsewhere, 255 ignore; [0, 0] for an image alone.
        base_mask: [S, S] uint8: base class number from 1 in the order of
            `SegDataset.base_classes`, 0 elsewhere, 255 ignore; None where not asked for.
        classes: class ids of the ways.
        spec: the episode by names; None for an image alone.
        problem: why the item cannot be had, as one line; the tensors are then empty.
    """

    number: int
    support_images: Tensor
    support_masks: Tensor
    query_image: Tensor
    query_mask: Tensor
    base_mask: Tensor | None
    classes: tuple[int, ...]
    spec: EpisodeSpec | None
    problem: str | None = None


class Batch(NamedTuple):
    """Items together.

    Attributes:
        support_images, support_masks, query_images, query_masks, base_masks: those of the items,
            [B, …].
        numbers, classes, specs: those of the items.
        problem: the first that an item has, as one line; the tensors are then empty.
    """

    support_images: Tensor
    support_masks: Tensor
    query_images: Tensor
    query_masks: Tensor
    base_masks: Tensor | None
    numbers: Sequence[int]
    classes: Sequence[Sequence[int]]
    specs: Sequence[EpisodeSpec | None]
    problem: str | None = None

    def for_training(self, device: torch.device, base_classes: Sequence[int]) -> TrainingBatch:
        """What a method learns from, on a device.

        Args:
            device: where tensors go.
            base_classes: the fold's base classes in the order of their numbers.
        """
        places = {class_id: place for place, class_id in enumerate(base_classes)}
        ways = [[places[class_id] for class_id in classes] for classes in self.classes]

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return TrainingBatch(
            moved(self.support_images),
            moved(self.support_masks),
            moved(self.query_images),
            moved(self.query_masks),
            None if self.base_masks is None else moved(self.base_masks),
            torch.tensor(ways).long().to(device),
        )


class EpisodeItems(TorchDataset[Item]):
    """Training episodes; endless.

    Supports show their whole masks, whatever the rule `annotation` says.

    Args:
        dataset: where pixels come from.
        protocol: rules of targets and of the warp to the square.
        sampler: see `base_episodes.train_sampler`.
        fold: says which classes are novel.
        side: S, px.
        augmentation: of every image on its own.
        seed: another seed, other augmentations.
        base_labels: whether queries come with the labels of all base classes as well.
        void: see `Targets`.

    Raises:
        FssBenchError: more base classes than a mask can number.
    """

    def __init__(
        self,
        dataset: SegDataset,
        protocol: EvaluationProtocol,
        sampler: EpisodeSampler,
        fold: int,
        side: int,
        augmentation: Augmentation,
        seed: int,
        base_labels: bool = False,
        void: int = IGNORE,
    ) -> None:
        self.sampler, self.base_labels = sampler, base_labels
        self.targets = Targets(dataset, protocol, fold, void)
        if base_labels:
            self.targets.need_base_labels()
        self.pictures = _Pictures(dataset, protocol, side, augmentation, seed)

    def __getitem__(self, number: int) -> Item:
        try:
            return self._load(number, self.sampler[number])
        except FssBenchError as error:
            return _failed(number, error)

    def _load(self, number: int, spec: EpisodeSpec) -> Item:
        truth = self.targets.images.truth(spec.query)
        masks = [self.targets.query(truth, spec.classes)]
        if self.base_labels:
            masks.append(self.targets.base(truth))
        query, (query_mask, *rest) = self.pictures.load(spec.query, masks, number, "query")
        supports = [
            [self._support(number, spec, way, shot) for shot in range(len(images))]
            for way, images in enumerate(spec.supports)
        ]
        return Item(
            number,
            torch.stack([torch.stack([image for image, _ in row]) for row in supports]),
            torch.stack([torch.stack([mask for _, mask in row]) for row in supports]),
            query,
            query_mask,
            rest[0] if rest else None,
            spec.classes,
            spec,
        )

    def _support(
        self, number: int, spec: EpisodeSpec, way: int, shot: int
    ) -> tuple[Tensor, Tensor]:
        image = spec.supports[way][shot]
        others = spec.classes[:way] + spec.classes[way + 1 :]
        truth = self.targets.images.truth(image)
        mask = self.targets.support(truth, spec.classes[way], others)
        pixels, (square,) = self.pictures.load(image, [mask], number, "support", way, shot)
        return pixels, square


class BaseImages(TorchDataset[Item]):
    """Training images with the labels of all base classes, in a new order each epoch; endless.

    The rule `base_images` decides: `drop` leaves out those with a novel class; `background` keeps
    all, those without a base class too, as BAM's base learner does (Lang et al., CVPR 2022; code),
    though its episodes leave them out; `ignore` keeps those with a base class.

    Args:
        dataset: where pixels come from.
        protocol: rules of targets and of the warp to the square.
        fold: says which classes are novel.
        side: S, px.
        augmentation: of every image.
        seed: another seed, another order and other augmentations.

    Raises:
        FssBenchError: no such image, or more base classes than a mask can number.
    """

    def __init__(
        self,
        dataset: SegDataset,
        protocol: EvaluationProtocol,
        fold: int,
        side: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.seed, self.fold = seed, fold
        self.targets = Targets(dataset, protocol, fold)
        self.targets.need_base_labels()
        novel = self.targets.images.novel if protocol.base_images == "drop" else ()
        wanted = self.targets.base_classes
        if protocol.base_images == "background":
            wanted = (*wanted, *self.targets.images.novel)
        self.images = tuple(
            image
            for image, counts in self.targets.images.counts.items()
            if not counts.keys().isdisjoint(wanted) and counts.keys().isdisjoint(novel)
        )
        """In the order of the dataset."""
        if not self.images:
            raise FssBenchError(
                f"no training image of {dataset.name} shows a base class of fold {fold}"
                f"{' and no novel one: use --rule base_images=background' if novel else ''}"
            )
        self.pictures = _Pictures(dataset, protocol, side, augmentation, seed)

    def __getitem__(self, number: int) -> Item:
        try:
            return self._load(number)
        except FssBenchError as error:
            return _failed(number, error)

    def image(self, number: int) -> str:
        """Which image an item shows."""
        epoch, position = divmod(number, len(self.images))
        return _order(self.images, self.seed, self.fold, epoch)[position]

    def _load(self, number: int) -> Item:
        image = self.image(number)
        mask = self.targets.base(self.targets.images.truth(image))
        pixels, (target,) = self.pictures.load(image, [mask], number, "image")
        side = pixels.shape[-1]
        return Item(
            number,
            torch.empty(0, 0, 3, side, side),
            torch.empty(0, 0, side, side, dtype=torch.uint8),
            pixels,
            torch.empty(0, 0, dtype=torch.uint8),
            target,
            (),
            None,
        )


class _Pictures:
    """Images and their targets in the square, augmented by a key an image."""

    def __init__(
        self,
        dataset: SegDataset,
        protocol: EvaluationProtocol,
        side: int,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.dataset, self.side, self.seed = dataset, side, seed
        self.protocol = replace(protocol, annotation="mask")  # else numbers of ways get lost
        self.augmentation = augmentation
        prepare(augmentation)

    def load(self, image: str, masks: Sequence[Mask], *role: object) -> tuple[Tensor, list[Tensor]]:
        """Pixels [3, S, S] in [0, 1] and masks [S, S]; `role` is what the randomness depends on."""
        pixels = self.dataset.load_image(image)
        check_size(image, masks[0].shape, pixels.shape)
        key = digest_int(self.seed, "augment", *role)
        square, targets = augment_together(
            pixels, masks, self.side, self.augmentation, self.protocol, key
        )
        return to_float(square), targets


def collate(items: Sequence[Item]) -> Batch:
    """Items as a batch; the first problem stands for all."""
    numbers = tuple(item.number for item in items)
    classes, specs = tuple(item.classes for item in items), tuple(item.spec for item in items)
    problem = next((item.problem for item in items if item.problem is not None), None)
    if problem is not None:
        none = torch.empty(0)
        return Batch(none, none, none, none, None, numbers, classes, specs, problem)
    base_masks = [item.base_mask for item in items if item.base_mask is not None]
    return Batch(
        torch.stack([item.support_images for item in items]),
        torch.stack([item.support_masks for item in items]),
        torch.stack([item.query_image for item in items]),
        torch.stack([item.query_mask for item in items]),
        torch.stack(base_masks) if base_masks else None,
        numbers,
        classes,
        specs,
    )


def worker_init(worker: int) -> None:
    """Make a process that loads items quiet, and let OpenCV use its own thread alone."""
    quiet_worker(worker)
    cv2.setNumThreads(0)


def _failed(number: int, error: FssBenchError) -> Item:
    none = torch.empty(0)
    return Item(number, none, none, none, none, None, (), None, str(error))


@lru_cache(maxsize=4)  # workers are in one epoch, or pass from one into the next
def _order(images: tuple[str, ...], seed: int, fold: int, epoch: int) -> list[str]:
    return sorted(images, key=lambda image: digest_int(seed, fold, "base", epoch, image))
