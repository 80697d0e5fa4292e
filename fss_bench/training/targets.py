"""Masks as training targets, under a protocol's rules and the guard.

The rules are those of `base_episodes.training_mask`: novel objects are background, or 255 under
`base_images="ignore"`; pixels labelled 255 follow `train_ignore`, which under `method` is the
method's: some learn them in the query as background or as foreground. Nothing is learnt where a
target is 255. Where a dataset's masks overlap, what also belongs to a novel class is treated as
that: it is not trained on as the base class.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fss_bench.dataset import SegDataset
from fss_bench.errors import FssBenchError
from fss_bench.images import IGNORE
from fss_bench.protocols import EvaluationProtocol
from fss_bench.training.guard import Guard
from fss_bench.training.truth import Mask, TrainingImages, Truth

MOST_CLASSES = IGNORE - 1
"""That a mask of one byte holds beside background and ignore."""


class Targets:
    """Makes the targets of one image after the other; holds no state that changes.

    Args:
        dataset: where masks come from.
        protocol: rules `base_images`, `train_ignore`, `support_ignore` and `support_others`.
        fold: says which classes are novel.
        void: the method's way number for pixels labelled 255 of a query, 255 to leave them out;
            see `Method.void`.
    """

    def __init__(
        self, dataset: SegDataset, protocol: EvaluationProtocol, fold: int, void: int = IGNORE
    ) -> None:
        self.protocol, self.void = protocol, void
        self.images = TrainingImages(dataset, fold)
        self.guard = Guard(self.images)
        self.base_classes = dataset.base_classes(fold)

    def need_base_labels(self) -> None:
        """Raise FssBenchError where there are more base classes than a mask can number."""
        if len(self.base_classes) > MOST_CLASSES:
            raise FssBenchError(
                f"{self.images.dataset.name} has {len(self.base_classes)} base classes in fold "
                f"{self.images.fold}: labels of all of them go up to {MOST_CLASSES}: take a method "
                "without a base learner"
            )

    def support(self, truth: Truth, class_id: int, others: Sequence[int] = ()) -> Mask:
        """Mask of a way in a support [H, W]: 1 on it, 0 off it, 255 ignore.

        Pixels labelled 255 that `train_ignore` leaves so follow `support_ignore`, as in a test.

        Args:
            truth: of the image.
            class_id: the way's class.
            others: classes of the other ways; see `support_others`.
        """
        void = self._void(foreground=1)
        if void == IGNORE and self.protocol.support_ignore == "background":
            void = 0
        target = self._painted(truth, {class_id: 1}, void)
        if self.protocol.support_others == "excluded":
            for other in others:
                target[truth.on(other) & (target == 0)] = IGNORE
        return target

    def query(self, truth: Truth, classes: Sequence[int]) -> Mask:
        """Way numbers [H, W], 0 elsewhere, 255 ignore.

        A pixel of two ways is the later one's; so is what is labelled 255 under
        `train_ignore="foreground"`.
        """
        numbers = {class_id: way for way, class_id in enumerate(classes, start=1)}
        by_method = self.protocol.train_ignore == "method"
        void = self.void if by_method else self._void(foreground=len(classes))
        return self._painted(truth, numbers, void)

    def base(self, truth: Truth) -> Mask:
        """Numbers of base classes [H, W] from 1 in the order of their ids, 0 elsewhere, 255 ignore.

        A pixel of two classes is the later one's. What is labelled 255 stays so under
        `train_ignore="foreground"`, as no class is the foreground.
        """
        numbers = {
            class_id: number
            for number, class_id in enumerate(self.base_classes, start=1)
            if class_id in truth.counts
        }
        return self._painted(truth, numbers, self._void(foreground=IGNORE))

    def _void(self, foreground: int) -> int:
        """What pixels labelled 255 become."""
        kept = {"background": 0, "foreground": foreground}
        return kept.get(self.protocol.train_ignore, IGNORE)

    def _painted(self, truth: Truth, numbers: Mapping[int, int], void: int) -> Mask:
        """Classes by their numbers [H, W], checked."""
        for class_id in numbers:
            self.guard.check_class(truth, class_id)
        target = np.where(truth.ignored, np.uint8(void), np.uint8(0))
        for class_id, number in numbers.items():
            target[truth.on(class_id)] = number
        unseen = IGNORE if self.protocol.base_images == "ignore" else 0
        hidden = truth.novel if truth.has_overlaps else truth.novel & (target == 0)
        target[hidden] = unseen
        self.guard.check(truth, target)
        return target
