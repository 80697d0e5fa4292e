"""Tensor functions that methods share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def interpolation_matrix(n_in: int, n_out: int, like: Tensor) -> Tensor:
    """Bilinear resampling of one axis as a matrix [n_out, n_in] (align_corners=False)."""
    position = ((torch.arange(n_out, device=like.device) + 0.5) * (n_in / n_out) - 0.5).clamp(min=0)
    low = position.floor().long()
    high = (low + 1).clamp(max=n_in - 1)
    weight = (position - low).to(like.dtype)
    matrix = torch.zeros(n_out, n_in, dtype=like.dtype, device=like.device)
    rows = torch.arange(n_out, device=like.device)
    matrix.index_put_((rows, low), 1 - weight, accumulate=True)
    matrix.index_put_((rows, high), weight, accumulate=True)
    return matrix


def transposed_resize(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """The transpose of bilinear upsampling applied to masks.

    For any features, pooling them upsampled to the mask's size under the mask equals pooling them
    as they are under this: the upsampled tensor is never made.

    Args:
        masks: [..., H, W] float.
        size: (h, w) of the features.

    Returns:
        [..., h, w], which sums to the mask's sum.
    """
    rows = interpolation_matrix(size[0], masks.shape[-2], masks)
    columns = interpolation_matrix(size[1], masks.shape[-1], masks)
    return rows.T @ masks @ columns


def masked_average_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features, upsampled bilinearly to the mask's size, under a mask.

    Args:
        features: [..., C, h, w].
        masks: [..., H, W] bool or float in [0, 1].

    Returns:
        [..., C]; zeros where a mask is empty. The mask's area is padded by 1e-5 as in PANet's code.
    """
    with torch.autocast(features.device.type, enabled=False):  # sums of areas overflow fp16
        maps = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
        weights = masks.to(maps.dtype)
        cells = transposed_resize(weights, (maps.shape[-2], maps.shape[-1]))
        total = torch.einsum("...chw,...hw->...c", maps, cells)
        return total / (weights.sum(dim=(-2, -1)).unsqueeze(-1) + 1e-5)


def cosine_to_prototypes(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine similarity of every cell with every prototype.

    Args:
        features: [B, C, h, w].
        prototypes: [B, P, C].

    Returns:
        [B, P, h, w] in [-1, 1]; 0 for a zero prototype.
    """
    cells = F.normalize(features, dim=1, eps=1e-8)
    return torch.einsum("bchw,bpc->bphw", cells, F.normalize(prototypes, dim=2, eps=1e-8))


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, P, h, w] to [B, P, H, W], bilinear with align_corners=False."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def resize_corners(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, C, h, w] to [B, C, H, W], bilinear with align_corners=True."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def extent(images: Tensor) -> Tensor:
    """The size of images [B, C, H, W] as a feature without channels, [B, 0, H, W]."""
    return images[:, :0]


def foreground(masks: Tensor) -> Tensor:
    """Masks with 1, 0 and 255 (any shape) to float: 1 on the class, 0 off it and on ignore."""
    return (masks == 1).float()


def cross_entropy(
    logits: Tensor, masks: Tensor, void: int = 255, foreground_weight: float = 1.0
) -> Tensor:
    """Cross entropy of logits resized to the masks' size, a mean over episodes.

    Each episode's is the mean over its pixels that count, so that parts of a batch, in forwards or
    processes of their own, add up to the whole; published codes pool the pixels of a process.

    Args:
        logits: [B, P, h, w].
        masks: [B, H, W] channel numbers, 255 ignore.
        void: the channel that pixels of 255 count for; 255 leaves them out.
        foreground_weight: what a pixel of a way counts for, where one of the background counts 1.
    """
    sized = resize_logits(logits.float(), (masks.shape[-2], masks.shape[-1]))
    labels = masks.long()
    labels = labels.masked_fill(labels == 255, void)
    losses = F.cross_entropy(sized, labels, ignore_index=255, reduction="none")
    weights = torch.where(labels > 0, foreground_weight, 1.0) * (labels != 255)
    counted = weights.sum(dim=(1, 2)).clamp(min=1e-6)
    return ((weights * losses).sum(dim=(1, 2)) / counted).mean()
