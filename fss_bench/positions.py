"""Learned position embeddings of transformers at another image size than they were made for."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

RULES = ("timm", "bicubic", "offset")
"""`timm`: bicubic with antialiasing, as timm and DINOv2 with registers do. `bicubic`: without it,
as the fine-tuning codes of DeiT and MAE do. `offset`: DINO's and DINOv2's without registers, which
scale by (cells + 0.1) / cells of the file instead of to a size."""
OFFSET = 0.1


def resample_positions(table: Tensor, model: Any, rule: str) -> Tensor:
    """Position embeddings for a model's grid of patches.

    Args:
        table: [1, 1 + T, D], the class token's first, then a square grid's in rows.
        model: a timm vision transformer.
        rule: one of `RULES`.

    Returns:
        [1, 1 + rows x columns, D].
    """
    if rule == "timm":
        return table
    rows, columns = model.patch_embed.grid_size
    side = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return table
    if rule == "bicubic":
        resampled: Tensor = resample_abs_pos_embed(
            table, [rows, columns], num_prefix_tokens=1, antialias=False
        )
        return resampled
    grid = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + OFFSET) / side, (columns + OFFSET) / side)
    wide = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1], wide.permute(0, 2, 3, 1).flatten(1, 2).to(table)], dim=1)
