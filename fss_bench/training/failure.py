"""What is kept of a step whose loss is no number."""

import json

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss_bench.episodes import to_jsonl
from fss_bench.training.items import BaseImages, Batch, EpisodeItems


def shown(items: EpisodeItems | BaseImages, batch: Batch) -> list[str]:
    """JSONL of what a batch shows: its episodes, or its images."""
    if isinstance(items, BaseImages):
        return [json.dumps({"image": items.image(number)}) + "\n" for number in batch.numbers]
    return list(to_jsonl([spec for spec in batch.specs if spec is not None]))


class Statistics:
    """What a forward changes before anything is known of its loss: running means and variances.

    Args:
        method: in the mode in which it learns.
    """

    def __init__(self, method: nn.Module) -> None:
        self.method = method
        self._before: list[tuple[Tensor, Tensor]] = []

    def keep(self) -> None:
        """Remember them."""
        learning = [m for m in self.method.modules() if isinstance(m, _BatchNorm) and m.training]
        self._before = [(b, b.clone()) for m in learning for b in m.buffers(recurse=False)]

    def put_back(self) -> None:
        """Make them what they were."""
        for buffer, before in self._before:
            buffer.copy_(before)
