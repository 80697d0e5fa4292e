"""What a method learns from in one forward."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """Episodes, or images with the labels of all base classes, as tensors.

    Attributes:
        support_images: [B, N, K, 3, H, W] RGB in [0, 1]; of images alone without elements.
        support_masks: [B, N, K, H, W] uint8: 1 on the way's class, 0 off it, 255 ignore.
        query_images: [B, 3, H, W] RGB in [0, 1].
        query_masks: [B, H, W] uint8: way number, 0 elsewhere, 255 ignore.
        base_masks: [B, H, W] uint8: base class numbers from 1 in the order of their ids, 0
            elsewhere, 255 ignore; where the method asks for it.
        base_classes: [B, N]: which of the base classes, from 0, each way is.
    """

    support_images: Tensor
    support_masks: Tensor
    query_images: Tensor
    query_masks: Tensor
    base_masks: Tensor | None = None
    base_classes: Tensor | None = None
