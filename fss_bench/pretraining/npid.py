"""NPID (InstDisc): every image is a class of its own, against a memory of all images.

Wu, Xiong, Yu, Lin, CVPR 2018, https://arxiv.org/abs/1805.01978. Published code:
https://github.com/zhirongw/lemniscate.pytorch. lightly's memory bank is a queue; this memory is
addressed by the number of an image.

Differs from the paper, as the published code does: no proximal term (section 3.3).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightly.models.utils import concat_all_gather
from lightly.utils.dist import world_size
from torch import Tensor, nn

from fss_bench.pretraining.encoder import Encoder, feature_size
from fss_bench.pretraining.objective import Objective, Outcome, full_precision
from fss_bench.pretraining.recipes import Recipe

EPSILON = 1e-7
"""Added to the denominators of the posterior (code)."""


class NPID(Objective):
    """Noise-contrastive estimation over a memory bank (section 3.2, equations 5 to 8).

    The memory starts uniform in +-sqrt(3 / dim), from torch's global generator. The constant Z is
    estimated once, at the first batch of all ranks. A batch should not hold an image twice: which
    of the two enters the memory is open.

    Args:
        recipe: with `negatives` and `memory_momentum`.
        trunk, mean, std: see `create_objective`.
        images: number of images in the data set, each with one row of the memory.
    """

    views = 1
    memory: Tensor
    normaliser: Tensor

    def __init__(
        self,
        recipe: Recipe,
        trunk: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        images: int,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.encoder = Encoder(trunk, nn.Linear(feature_size(trunk), recipe.dim), mean, std)
        self.momentum_encoder = None
        bound = math.sqrt(3 / recipe.dim)
        memory = torch.empty(images, recipe.dim).uniform_(-bound, bound)
        self.register_buffer("memory", memory, persistent=False)
        self.register_buffer("normaliser", torch.zeros(1), persistent=False)  # 0: not yet known

    def forward(self, first: Tensor, second: Tensor | None, indices: Tensor) -> Outcome:
        """Embeddings of `first` against the memory of themselves and of random images."""
        embeddings = F.normalize(self.encoder(first).float(), dim=1)
        noise = torch.randint(
            len(self.memory), (len(first), self.recipe.negatives), device=first.device
        )
        drawn = torch.cat([indices[:, None], noise], dim=1)  # [B, 1 + K], the image itself first
        with full_precision(embeddings):
            rows = self.memory[drawn]  # a copy, so that the memory may change before backward
            logits = torch.einsum("bd,bkd->bk", embeddings, rows) / self.recipe.temperature
            loss = self._loss(logits)
        if embeddings.requires_grad:
            self._remember(indices, embeddings.detach())
        return Outcome(loss, _accuracy(logits.detach(), drawn))

    def _loss(self, logits: Tensor) -> Tensor:
        """Negative log posterior of data against noise, logits [B, 1 + K], mean over the batch."""
        weights = logits.exp()
        if self.normaliser.item() == 0:
            self.normaliser.fill_(_mean_of_ranks(weights.detach()) * len(self.memory))
        probability = weights / self.normaliser
        noise = self.recipe.negatives / len(self.memory)
        total = probability + noise + EPSILON
        image = (probability[:, 0] / total[:, 0]).log()
        others = (noise / total[:, 1:]).log().sum(dim=1)
        return -(image + others).mean()

    @torch.no_grad()
    def _remember(self, indices: Tensor, embeddings: Tensor) -> None:
        """Move the rows of all ranks' images towards their embeddings."""
        if world_size() > 1:
            indices, embeddings = concat_all_gather(indices), concat_all_gather(embeddings)
        keep = self.recipe.memory_momentum
        rows = keep * self.memory[indices] + (1 - keep) * embeddings
        self.memory[indices] = F.normalize(rows, dim=1)

    def _extra_tensors(self) -> dict[str, Tensor]:
        return {"memory": self.memory, "normaliser": self.normaliser}


def _mean_of_ranks(weights: Tensor) -> Tensor:
    mean = weights.mean()[None]
    return concat_all_gather(mean).mean() if world_size() > 1 else mean.mean()


def _accuracy(logits: Tensor, drawn: Tensor) -> Tensor:
    """Share of images above all others; an image drawn as its own noise does not count."""
    itself = drawn[:, 1:] == drawn[:, :1]
    best = logits[:, 1:].masked_fill(itself, -torch.inf).amax(dim=1)
    return (logits[:, 0] > best).float().mean()
