"""A method as the module that training wraps: its forward gives the loss."""

from torch import Tensor, nn

from fss_bench.method import Method
from fss_bench.ops import cross_entropy
from fss_bench.training_batch import TrainingBatch


class Losses(nn.Module):
    """The loss terms of a method in a stage.

    Args:
        method: a `Method`; or any module with its `forward`, and perhaps a `loss` of the same
            arguments and `query_masks`. Without one it learns by cross entropy.
        stage: one of its stages.
    """

    def __init__(self, method: nn.Module, stage: str) -> None:
        super().__init__()
        self.method, self.stage = method, stage

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Terms, scalars whose sum is minimised."""
        if isinstance(self.method, Method):
            return self.method.stage_terms(self.stage, batch)
        inputs = batch.support_images, batch.support_masks, batch.query_images
        loss = getattr(self.method, "loss", None)
        if callable(loss):
            return {"loss": loss(*inputs, batch.query_masks)}
        return {"query": cross_entropy(self.method(*inputs), batch.query_masks)}
