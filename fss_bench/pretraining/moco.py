"""MoCo v1 and v2: a query against its key and a queue of earlier keys.

He, Fan, Wu, Xie, Girshick, CVPR 2020, https://arxiv.org/abs/1911.05722 (v1); Chen, Fan, Girshick,
He, 2020, https://arxiv.org/abs/2003.04297 (v2). Published code:
https://github.com/facebookresearch/moco. Loss, queue and shuffle are lightly's.

Differs from the published code: the head's hidden layer is as wide as the trunk's features (2048 in
ResNet-50, as there); on one process batch normalisation sees groups of the batch in place of GPUs.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum
from lightly.utils.dist import world_size
from torch import Tensor, nn

from fss_bench.pretraining.batches import check_queue, default_bn_groups
from fss_bench.pretraining.encoder import Encoder, feature_size, has_batch_norm, momentum_copy
from fss_bench.pretraining.objective import Objective, Outcome, full_precision, momentum_at
from fss_bench.pretraining.recipes import Recipe


class MoCo(Objective):
    """InfoNCE (v1, equation 1) with a momentum encoder (equation 2), queue and shuffled BN.

    The queue starts as random directions, from torch's global generator.

    Args:
        recipe: with `version` 1 (a linear head) or 2 (one hidden layer); `bn_groups` of 0 are
            `default_bn_groups`, and a trunk without batch normalisation needs none.
        trunk, mean, std: see `create_objective`.

    Raises:
        FssBenchError: the queue does not hold whole batches, or the batch is too small for groups.
    """

    encoder: Encoder
    momentum_encoder: Encoder

    def __init__(
        self, recipe: Recipe, trunk: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        check_queue(recipe.queue_size, recipe.batch_size)
        size = feature_size(trunk)
        head = (
            nn.Linear(size, recipe.dim)
            if recipe.version == 1
            else MoCoProjectionHead(size, recipe.hidden or size, recipe.dim)
        )
        self.recipe = recipe
        self.encoder = Encoder(trunk, head, mean, std)
        self.momentum_encoder = momentum_copy(self.encoder)
        self.bn_groups = 1
        if has_batch_norm(trunk):
            self.bn_groups = recipe.bn_groups or default_bn_groups(recipe.batch_size, world_size())
        self.contrast = NTXentLoss(
            recipe.temperature,
            memory_bank_size=(recipe.queue_size, recipe.dim),
            gather_distributed=world_size() > 1,
        )

    def start_step(self, progress: float) -> None:
        """Move the key encoder's parameters towards the query encoder's.

        The published code does so between queries and keys, which gives the same keys: the query
        encoder's parameters change only after the step.
        """
        update_momentum(self.encoder, self.momentum_encoder, momentum_at(self.recipe, progress))

    def forward(self, first: Tensor, second: Tensor | None, indices: Tensor) -> Outcome:
        """Queries of `first` against keys of `second` and the queue, which then takes the keys."""
        assert second is not None
        check_queue(self.recipe.queue_size, len(first) * world_size())
        queries = F.normalize(self.encoder(first, self.bn_groups).float(), dim=1)
        keys = self._keys(second)
        with full_precision(queries):
            accuracy = self._accuracy(queries.detach(), keys)
            loss: Tensor = self.contrast(queries, keys)  # takes the keys where there are gradients
        return Outcome(loss, accuracy)

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """Normalised keys [B, dim], computed in a random order so that BN groups tell nothing."""
        several = world_size() > 1
        shuffled, order = batch_shuffle(images, several)
        keys = self.momentum_encoder(shuffled, self.bn_groups).float()
        return F.normalize(batch_unshuffle(keys, order, several), dim=1)

    def _accuracy(self, queries: Tensor, keys: Tensor) -> Tensor:
        positive = (queries * keys).sum(dim=1)
        negative = (queries @ self.contrast.memory_bank.bank.T).amax(dim=1)
        above: Tensor = positive > negative
        return above.float().mean()

    def _extra_tensors(self) -> dict[str, Tensor]:
        bank = self.contrast.memory_bank
        return {"queue": bank.bank, "queue_pointer": bank.bank_ptr}
