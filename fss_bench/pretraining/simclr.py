"""SimCLR: two views of an image against all other views in the batch.

Chen, Kornblith, Norouzi, Hinton, ICML 2020, https://arxiv.org/abs/2002.05709. Published code:
https://github.com/google-research/simclr. Head and loss are lightly's.

Differs from the published code: its loss is twice the average over views that the paper has in
algorithm 1 and that is computed here; the head's hidden layer is as wide as the trunk's features
(2048 in ResNet-50, as there). Batch statistics are those of all ranks on GPUs, as there; on
several CPU processes, which SyncBatchNorm does not know, each rank has its own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.models.utils import concat_all_gather
from lightly.utils.dist import rank, world_size
from torch import Tensor, nn

from fss_bench.pretraining.encoder import Encoder, feature_size, synchronise_batch_norm
from fss_bench.pretraining.objective import Objective, Outcome, full_precision
from fss_bench.pretraining.recipes import Recipe


class SimCLR(Objective):
    """NT-Xent (section 2.1, equation 1) behind a head of two layers.

    The head is lightly's, whose last batch normalisation has a shift; the published one has none,
    so it stays 0 here.

    Args:
        recipe: its constants.
        trunk, mean, std: see `create_objective`.
    """

    def __init__(
        self, recipe: Recipe, trunk: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        size = feature_size(trunk)
        head = SimCLRProjectionHead(size, recipe.hidden or size, recipe.dim)
        head.layers[-1].bias.requires_grad_(False)
        self.encoder = Encoder(trunk, head, mean, std)
        self.momentum_encoder = None
        self.contrast = NTXentLoss(recipe.temperature, gather_distributed=world_size() > 1)
        synchronise_batch_norm(self)

    def forward(self, first: Tensor, second: Tensor | None, indices: Tensor) -> Outcome:
        """Both views in one pass, so that batch normalisation sees them together."""
        assert second is not None
        projections = self.encoder(torch.cat([first, second])).float()
        one, two = F.normalize(projections, dim=1).chunk(2)
        with full_precision(projections):
            accuracy = (_found(one, two) + _found(two, one)) / 2
            loss: Tensor = self.contrast(one, two)
        return Outcome(loss, accuracy)


@torch.no_grad()
def _found(queries: Tensor, positives: Tensor) -> Tensor:
    """Share of queries [B, dim] nearer to their positive than to any other view of all ranks."""
    several = world_size() > 1
    own, other = (concat_all_gather(x) if several else x for x in (queries, positives))
    labels = torch.arange(len(queries), device=queries.device) + len(queries) * rank()
    same_view = (queries @ own.T).scatter(1, labels[:, None], -torch.inf)  # not with itself
    nearest = torch.cat([queries @ other.T, same_view], dim=1).argmax(dim=1)
    hits: Tensor = nearest == labels
    return hits.float().mean()
