"""MoCo v3: a predictor, a symmetric loss, and the keys of the batch as negatives; no queue.

Chen, Xie, He, ICCV 2021, https://arxiv.org/abs/2104.02057. Published code:
https://github.com/facebookresearch/moco-v3. Heads are built of lightly's parts.

Batch statistics are those of all ranks on GPUs, as in the published code; on several CPU processes,
which SyncBatchNorm does not know, each rank has its own.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import ProjectionHead
from lightly.models.utils import (
    concat_all_gather,
    get_2d_sine_cosine_positional_embedding,
    update_momentum,
)
from lightly.utils.dist import rank, world_size
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.encoder import (
    Encoder,
    feature_size,
    momentum_copy,
    synchronise_batch_norm,
)
from fss_bench.pretraining.objective import Objective, Outcome, full_precision, momentum_at
from fss_bench.pretraining.recipes import Recipe


class MoCoV3(Objective):
    """Symmetric InfoNCE between predictions and keys (section 3, algorithm 1).

    Vision transformers are read at the class token and start from scratch in two places, whatever
    weights they come with: patches go through a random projection that is not trained (section 4.2)
    and positions are fixed sines and cosines (section 4.4). They keep the heads that timm gives
    them: ViT-S has 6 there and 12 in the published code.

    Args:
        recipe: its constants.
        trunk, mean, std: see `create_objective`.

    Raises:
        FssBenchError: a vision transformer without class token or position embedding.
    """

    encoder: Encoder
    momentum_encoder: Encoder

    def __init__(
        self, recipe: Recipe, trunk: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        vit = isinstance(trunk, VisionTransformer)
        if vit:
            prepare_vit(trunk)
        size = feature_size(trunk)
        hidden = recipe.hidden or size
        widths = [size, hidden, hidden, recipe.dim] if vit else [size, hidden, recipe.dim]
        self.recipe = recipe
        self.encoder = Encoder(trunk, mlp(widths, last_norm=True), mean, std)
        self.predictor = mlp([recipe.dim, hidden, recipe.dim], last_norm=vit)
        self.momentum_encoder = momentum_copy(self.encoder)
        synchronise_batch_norm(self)

    def start_step(self, progress: float) -> None:
        """Move the key encoder's parameters towards the query encoder's.

        The published code does so between queries and keys, which gives the same keys: the query
        encoder's parameters change only after the step.
        """
        update_momentum(self.encoder, self.momentum_encoder, momentum_at(self.recipe, progress))

    def forward(self, first: Tensor, second: Tensor | None, indices: Tensor) -> Outcome:
        """Predictions of each view against keys of the other."""
        assert second is not None
        queries = [
            F.normalize(self.predictor(self.encoder(view)).float(), dim=1)
            for view in (first, second)
        ]
        keys = [self._keys(view) for view in (second, first)]
        with full_precision(queries[0]):
            one, two = (self._contrast(q, k) for q, k in zip(queries, keys, strict=True))
        return Outcome(one.loss + two.loss, (one.accuracy + two.accuracy) / 2)

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """Normalised keys of all ranks' images."""
        keys = F.normalize(self.momentum_encoder(images).float(), dim=1)
        gathered: Tensor = concat_all_gather(keys) if world_size() > 1 else keys
        return gathered

    def _contrast(self, queries: Tensor, keys: Tensor) -> Outcome:
        """2 T times the cross entropy of queries [B, dim] against keys [B x ranks, dim]."""
        logits = queries @ keys.T / self.recipe.temperature
        labels = torch.arange(len(queries), device=queries.device) + len(queries) * rank()
        loss = 2 * self.recipe.temperature * F.cross_entropy(logits, labels)
        return Outcome(loss, (logits.argmax(dim=1) == labels).float().mean())


def mlp(widths: Sequence[int], last_norm: bool) -> nn.Module:
    """Linear layers without bias, each but the last with batch normalisation and ReLU.

    Args:
        widths: of the input and of each layer's output.
        last_norm: whether the last layer is normalised too, without scale and shift.
    """
    blocks: list[tuple[Any, ...]] = [
        (before, after, nn.BatchNorm1d(after), nn.ReLU(), False)
        for before, after in pairwise(widths[:-1])
    ]
    last = nn.BatchNorm1d(widths[-1], affine=False) if last_norm else None
    head: nn.Module = ProjectionHead([*blocks, (widths[-2], widths[-1], last, None, False)])
    return head


def prepare_vit(trunk: Any) -> None:
    """Class token as output, a random patch projection and fixed positions, in place.

    The projection is drawn from torch's global generator, Xavier uniform without bias; positions
    follow the published code: sines and cosines of the row, then of the column, and 0 for the class
    token.

    Raises:
        FssBenchError: the model has no class token or no position embedding.
    """
    if trunk.cls_token is None or trunk.pos_embed is None:
        raise FssBenchError(
            "MoCo v3 needs a vision transformer with class token and position embedding, which "
            "this --backbone lacks: choose another, such as vit_small_patch16_224"
        )
    trunk.reset_classifier(0, "token")
    projection = trunk.patch_embed.proj
    bound = math.sqrt(6 / (projection.weight[0].numel() + len(projection.weight)))
    with torch.no_grad():
        projection.weight.uniform_(-bound, bound)
        if projection.bias is not None:
            projection.bias.zero_()
        trunk.pos_embed.copy_(_positions(trunk))
    projection.requires_grad_(False)
    trunk.pos_embed.requires_grad_(False)


def _positions(trunk: Any) -> Tensor:
    """Position embedding [1, prefix tokens + patches, D]; lightly has the column first."""
    side = trunk.patch_embed.grid_size[0]
    prefix = trunk.pos_embed.shape[1] - side**2
    found = get_2d_sine_cosine_positional_embedding(trunk.embed_dim, side, num_prefix_tokens=prefix)
    rows = torch.from_numpy(found)
    patches = rows[prefix:].view(side, side, -1).transpose(0, 1).flatten(0, 1)
    return torch.cat([rows[:prefix], patches])[None].float()
