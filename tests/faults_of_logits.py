"""Methods whose answers are no numbers."""

import math
import random
from pathlib import Path

import torch
from fault_lab import Lab, Outcome
from torch import Tensor, nn

from fss_bench import Compute, create_dataset, evaluate
from fss_bench.errors import FssBenchError
from fss_bench.results import ResultStore


def logits_not_finite(lab: Lab, number: int, root: Path) -> Outcome:
    """Some of an episode's, in one of twelve; a run that counts it takes up what the first left."""
    rng = random.Random(number)
    method = _Failing(rng.randrange(12), rng.choice((math.nan, math.inf, -math.inf)))
    shapes, store = create_dataset("shapes"), ResultStore(root)
    try:
        evaluate(method, shapes, episodes=12, store=store)
    except FssBenchError as error:
        text = str(error)
    else:
        return Outcome(1, "a run was made of it")
    if "NaN or infinite logits in episode" not in text or "\n" in text or list(store.runs()):
        return Outcome(1, text)
    if len(list(root.glob(".partial/*/failed-episode-*.safetensors"))) != 1:
        return Outcome(1, "no copy of its input")
    method.calls = 0
    counted = evaluate(
        method, shapes, episodes=12, compute=Compute(failed_episodes="count"), store=store
    )
    (inter, union), *_ = counted.episodes.query("failed")[["inter_fg", "union_fg"]].to_numpy()
    good = counted.record["failed"] == 1 and inter == 0 < union
    return Outcome(1, "" if good else f"counted as {inter} / {union}")


class _Failing(nn.Module):
    """Takes bright pixels for the way; one number of one of its answers is not finite."""

    input_size = 32

    def __init__(self, fails_at: int, value: float) -> None:
        super().__init__()
        self.fails_at, self.value, self.calls = fails_at, value, 0

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        way = query.mean(1) - 0.5
        logits = torch.stack([-way, way], dim=1)
        if self.calls == self.fails_at + 1:  # the first call counts what it costs
            logits[0, self.calls % 2, 3, 5] = self.value
        self.calls += 1
        return logits
