"""Training on the base classes of a fold: which episodes, and what their masks may tell."""

import numpy as np
from numpy.typing import NDArray

from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSampler
from fss_bench.errors import FssBenchError
from fss_bench.protocols import EvaluationProtocol


def train_sampler(
    dataset: SegDataset,
    protocol: EvaluationProtocol,
    *,
    fold: int,
    ways: int = 1,
    shots: int = 1,
    seed: int = 0,
) -> EpisodeSampler:
    """Training episodes: base classes and training images; never a novel class.

    Under `base_images="drop"` images with any novel pixel are left out; under `"background"` they
    stay, and masks of base classes show novel objects as background.
    """
    novel = dataset.novel_classes(fold)
    pools = dataset.index.pools(
        "train",
        dataset.base_classes(fold),
        protocol.min_pixels,
        without=novel if protocol.base_images == "drop" else (),
    )
    return EpisodeSampler(
        pools,
        fold=fold,
        ways=ways,
        shots=shots,
        seed=seed,
        names=dataset.class_names,
        short_classes=protocol.short_classes,
    )


def training_mask(
    dataset: SegDataset, protocol: EvaluationProtocol, *, fold: int, image: str, class_id: int
) -> NDArray[np.uint8]:
    """Mask of a base class [H, W] as a training target: 1 on it, 0 off it, 255 out of the loss.

    Novel objects are background, or 255 under `base_images="ignore"`; pixels labelled 255 follow
    `train_ignore`, and stay 255 where that is left to the `method`.

    Raises:
        FssBenchError: the class is novel in this fold.
    """
    novel = dataset.novel_classes(fold)
    if class_id in novel:
        raise FssBenchError(
            f"class {class_id} ({dataset.class_names[class_id]}) is novel in fold {fold} of "
            f"{dataset.name}: it must not be trained on"
        )
    mask = dataset.load_mask(image, class_id)
    void = {"background": 0, "foreground": 1}.get(protocol.train_ignore, 255)
    target = np.where(mask == 255, np.uint8(void), mask)
    if protocol.base_images == "ignore":
        for other in novel:
            target[(dataset.load_mask(image, other) == 1) & (target == 0)] = 255
    return target
