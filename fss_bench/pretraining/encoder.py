"""Image encoder of a pretraining objective: a timm trunk, a head, and its own normalisation."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from fss_bench.errors import FssBenchError


class Encoder(nn.Module):
    """A timm model without classifier, followed by a projection head.

    Args:
        trunk: a timm model with `num_classes=0`; its own pooling is used.
        head: [B, D] to [B, dim], with D of `feature_size`.
        mean, std: per channel, of images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, trunk: nn.Module, head: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features [B, D] of images [B, 3, H, W] in [0, 1]."""
        normalised = (images - self.mean) / self.std
        pooled: Tensor = self.trunk(normalised.contiguous(memory_format=torch.channels_last))
        return pooled

    def forward(self, images: Tensor, groups: int = 1) -> Tensor:
        """Projections [B, dim] of images [B, 3, H, W] in [0, 1].

        Args:
            images: as in `features`.
            groups: the batch runs in so many equal parts, one after another, so that training
                statistics of batch normalisation are those of a part, as on so many GPUs.

        Raises:
            FssBenchError: the batch cannot be split into equal groups.
        """
        if len(images) % groups:
            raise FssBenchError(
                f"a batch of {len(images)} images cannot be split into bn_groups={groups} equal "
                "groups: choose a --batch-size that bn_groups divides, or other bn_groups"
            )
        return torch.cat([self.head(self.features(part)) for part in images.chunk(groups)])


def feature_size(trunk: nn.Module) -> int:
    """Channels D of a timm model's pooled features.

    Some models, such as MobileNetV3, have a layer after the pooling that `num_features` leaves out.
    """
    size: int = getattr(trunk, "head_hidden_size", None) or trunk.num_features  # type: ignore[assignment]
    return size


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a module normalises over the batch in training."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def momentum_copy(encoder: Encoder) -> Encoder:
    """A copy that gets no gradients; its BN buffers are its own."""
    copy = deepcopy(encoder)
    copy.requires_grad_(False)
    return copy


def synchronise_batch_norm(module: nn.Module) -> None:
    """Let batch normalisation see the images of all ranks, in place.

    Only where processes are joined by NCCL: SyncBatchNorm runs on GPUs alone.
    """
    if dist.is_initialized() and dist.get_world_size() > 1 and dist.get_backend() == "nccl":
        # torch's own conversion would lose the activations inside timm's layers
        convert_sync_batchnorm(module)
