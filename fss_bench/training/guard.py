"""No novel class is ever a training target: checked on the pixels of every target."""

from fss_bench.errors import FssBenchError
from fss_bench.images import IGNORE
from fss_bench.training.truth import Mask, TrainingImages, Truth


class Guard:
    """Checks what is trained on.

    Args:
        images: the training images, with the fold's novel classes.
    """

    def __init__(self, images: TrainingImages) -> None:
        self.dataset, self.fold, self.novel = images.dataset, images.fold, images.novel

    def check_class(self, truth: Truth, class_id: int) -> None:
        """Raise FssBenchError if a class that is to be trained on is novel."""
        if class_id in self.novel:
            raise FssBenchError(
                f"image {truth.image} would be trained on as class {self._name(class_id)}, which "
                f"is novel in fold {self.fold} of {self.dataset.name}: take another sampler or fold"
            )

    def check(self, truth: Truth, target: Mask) -> None:
        """Check the pixels of a target.

        Args:
            truth: of its image, at the same size.
            target: [H, W]: trained as a class wherever it is neither 0 nor 255.

        Raises:
            FssBenchError: such a pixel shows a novel class.
        """
        wrong = truth.novel & (target > 0) & (target != IGNORE)
        if not wrong.any():
            return
        class_id = next(c for c in self.novel if (truth.on(c) & wrong).any())
        raise FssBenchError(
            f"image {truth.image}: {int(wrong.sum())} pixels of class {self._name(class_id)}, "
            f"which is novel in fold {self.fold} of {self.dataset.name}, would be trained on as "
            "another class: mend the dataset's masks"
        )

    def _name(self, class_id: int) -> str:
        return f"{class_id} ({self.dataset.class_names.get(class_id, '?')})"
