"""How good features are for telling labelled folders apart: weighted kNN, leave one out.

Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4: the K nearest by cosine
similarity s vote for their class with weight exp(s / tau).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from fss_bench.errors import DatasetError, FssBenchError, shorten
from fss_bench.pretraining.encoder import Encoder
from fss_bench.pretraining.objective import Objective
from fss_bench.pretraining.pictures import (
    Picture,
    Pictures,
    Progress,
    check_pictures,
    first_problem,
    list_pictures,
    read_picture,
)
from fss_bench.workers import quiet_worker

NEIGHBOURS = 200
TAU = 0.07
"""Both as Wu et al., section 4.2."""
MARGIN = 256 / 224
"""Short side over side of the centre crop, as ImageNet is tested."""
LONGEST = 4
"""Of an image's sides, the longer over the shorter; more is cut off."""
TOGETHER = 64
"""Images that go through the encoder, and queries that are compared, at once."""


@dataclass(frozen=True)
class Labelled:
    """Images with their classes.

    Attributes:
        pictures: the images that can be used.
        labels: number of the class of each.
        classes: names of the classes.
        checked: all that was found, with what was skipped.
    """

    pictures: tuple[Picture, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    checked: Pictures


def find_labelled(folder: Path, workers: int = 0, progress: Progress | None = None) -> Labelled:
    """The images of a folder with one subfolder a class; subfolders without images are none.

    Raises:
        DatasetError: fewer than two classes, or one whose images cannot be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"--knn {folder}: no such folder")
    inside = {
        p.name: list_pictures(p)
        for p in sorted(folder.iterdir(), key=lambda p: p.name)
        if p.is_dir() and p.name[0] != "."
    }
    classes = [name for name, pictures in inside.items() if pictures]
    if len(classes) < 2:
        raise DatasetError(
            f"--knn {folder}: {len(classes)} subfolders with images: it must hold one for each of "
            "two classes or more"
        )
    found = [
        Picture(f"{name}/{picture.name}", picture.path)
        for name in classes
        for picture in inside[name]
    ]
    checked, _ = check_pictures(found, workers, progress)
    labels = tuple(classes.index(p.name.partition("/")[0]) for p in checked.usable)
    bare = [name for c, name in enumerate(classes) if c not in labels]
    if bare:
        raise DatasetError(
            f"--knn {folder}: no image of class {shorten(bare)} can be read: mend them, or remove "
            "the folder"
        )
    return Labelled(checked.usable, labels, tuple(classes), checked)


def measure(
    objective: Objective, labelled: Labelled, size: int, device: torch.device, workers: int
) -> dict[str, float]:
    """`knn`, the accuracy of an objective's trunk; `knn_momentum` where it has a slow one.

    Args:
        objective: what is trained.
        labelled: images with their classes.
        size, device, workers: see `encode`.

    Raises:
        FssBenchError: an image has become unreadable.
    """
    encoders = {"knn": objective.encoder, "knn_momentum": objective.momentum_encoder}
    return {
        name: knn_accuracy(
            encode(encoder, labelled.pictures, size, device, workers), labelled.labels
        )
        for name, encoder in encoders.items()
        if encoder is not None
    }


def encode(
    encoder: Encoder, pictures: Sequence[Picture], size: int, device: torch.device, workers: int
) -> Tensor:
    """Pooled features [n, D] of the trunk in eval mode, on the CPU, not normalised.

    Args:
        encoder: its mode is restored.
        pictures: images; the short side is resized to 256/224 of `size`, and the centre taken.
        size: side of the centre crop, px.
        device: where the encoder is.
        workers: processes that decode.

    Raises:
        FssBenchError: an image has become unreadable.
    """
    loader: Any = DataLoader(
        _Centres(pictures, size),
        batch_size=TOGETHER,
        num_workers=workers,
        collate_fn=_together,
        worker_init_fn=quiet_worker,
    )
    was_training = encoder.training
    encoder.eval()
    try:
        found = []
        with torch.no_grad():
            for items in loader:
                if isinstance(items, str):
                    raise FssBenchError(items)
                found.append(encoder.features(items.to(device)).float().cpu())
        return torch.cat(found)
    finally:
        encoder.train(was_training)


def knn_accuracy(features: Tensor, labels: Sequence[int]) -> float:
    """Share of images whose class the weighted vote of their neighbours names.

    Args:
        features: [n, D], n >= 2, of any length above 0.
        labels: [n], from 0.

    K = min(200, n - 1) neighbours, never the image itself; the score of a class is the sum of
    exp((s - s_max) / 0.07) over its neighbours. Of equal similarities the lower number is nearer,
    and of equal scores the lower class wins.
    """
    vectors = features.double()
    vectors = (vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)).numpy()
    own = np.asarray(labels)
    right = [
        int((_vote(vectors, own, start) == own[start : start + TOGETHER]).sum())
        for start in range(0, len(own), TOGETHER)
    ]
    return sum(right) / len(own)


def _vote(vectors: NDArray[np.float64], labels: NDArray[np.int64], start: int) -> NDArray[np.intp]:
    """Classes that the neighbours of some images name."""
    similar = vectors[start : start + TOGETHER] @ vectors.T
    rows = np.arange(len(similar))
    similar[rows, start + rows] = -np.inf
    k = min(NEIGHBOURS, len(vectors) - 1)
    near = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(similar, near, axis=1)
    scores = np.zeros((len(similar), int(labels.max()) + 1))
    np.add.at(scores, (rows[:, None], labels[near]), np.exp((values - values[:, :1]) / TAU))
    named: NDArray[np.intp] = scores.argmax(axis=1)
    return named


def _together(items: Sequence[Tensor | str]) -> Tensor | str:
    """A batch, or the first problem of one."""
    return first_problem(items) or torch.stack([i for i in items if isinstance(i, Tensor)])


def _bounded(picture: Image.Image) -> Image.Image:
    """The middle of a strip: resized by its short side, a whole one would fill the memory."""
    width, height = picture.size
    most = LONGEST * min(width, height)
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return picture.crop((left, top, left + min(width, most), top + min(height, most)))


class _Centres(TorchDataset[Any]):
    """The middle of each picture, [3, S, S] in [0, 1], or why there is none."""

    def __init__(self, pictures: Sequence[Picture], size: int) -> None:
        self.pictures = pictures
        self.crop = v2.Compose(
            [
                v2.Resize(round(size * MARGIN)),
                v2.CenterCrop(size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> Any:
        try:
            return self.crop(_bounded(read_picture(self.pictures[i].path)))
        except FssBenchError as error:
            return str(error)
