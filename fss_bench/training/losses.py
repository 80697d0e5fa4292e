"""A method as the module that training wraps: its forward gives the loss."""

from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.images import IGNORE
from fss_bench.method import Method
from fss_bench.ops import cross_entropy
from fss_bench.training_batch import TrainingBatch


class Losses(nn.Module):
    """The loss terms of a method in a stage.

    Args:
        method: a `Method`; or any module with its `forward`, and perhaps a `loss` of the same
            arguments and `query_masks`. Without one it learns by cross entropy.
        stage: one of its stages.
        foreground_weight: what a pixel of a query's classes counts for in its loss.

    Raises:
        FssBenchError: the method has a loss of its own, which knows no such weight.
    """

    def __init__(self, method: nn.Module, stage: str, foreground_weight: float = 1.0) -> None:
        super().__init__()
        self.method, self.stage, self.foreground_weight = method, stage, foreground_weight
        if isinstance(method, Method):
            method.foreground_weight = foreground_weight
            method.void = IGNORE  # targets say what is learnt of such pixels; see `Targets`
        if foreground_weight != 1 and not _weighs_foreground(method):
            raise FssBenchError(
                f"recipe foreground_weight={foreground_weight:g}: {type(method).__name__} has a "
                "loss of its own, which does not know it: leave it out"
            )

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Terms, scalars whose sum is minimised."""
        if isinstance(self.method, Method):
            return self.method.stage_terms(self.stage, batch)
        inputs = batch.support_images, batch.support_masks, batch.query_images
        loss = getattr(self.method, "loss", None)
        if callable(loss):
            return {"loss": loss(*inputs, batch.query_masks)}
        logits, weight = self.method(*inputs), self.foreground_weight
        return {"query": cross_entropy(logits, batch.query_masks, foreground_weight=weight)}


def _weighs_foreground(method: nn.Module) -> bool:
    if not isinstance(method, Method):
        return not callable(getattr(method, "loss", None))
    return type(method).loss_terms is Method.loss_terms or method.weighs_foreground
