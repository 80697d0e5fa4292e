"""Fits a head to the supports of one episode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fss_bench.heads.head import Head
from fss_bench.heads.losses import class_shares, divergence, mean_entropy, weighted_cross_entropy


@dataclass(frozen=True)
class Supports:
    """What a head is fitted to.

    Attributes:
        maps: [S, C, h, w] a level, finest first.
        labels: [S, H, W] long: 0 background, way numbers, 255 ignore.
        weights: [S, H, W] of the pixels in the loss, 0 where ignored.
    """

    maps: Sequence[Tensor]
    labels: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Schedule:
    """How a head is fitted, by Adam.

    Attributes:
        steps: how often.
        lr: the learning rate.
        entropy: weight of the query's entropy, and of the divergence of its class shares from those
            believed; 0 leaves both out.
    """

    steps: int
    lr: float
    entropy: float = 0.0

    def estimates(self, informed: bool) -> set[int]:
        """Steps before which the query's class shares are estimated.

        After a fifth of the steps, and at the start as well where the head says something then.
        """
        return {0, self.steps // 5} if informed else {max(1, self.steps // 5)}


def fit(
    head: Head,
    supports: Supports,
    query: Sequence[Tensor],
    schedule: Schedule,
    deformed: Callable[[int], Supports] | None = None,
) -> None:
    """Fit a head in place; it ends in eval mode.

    The loss is cross entropy on the supports, and with `entropy` on the query's cells the terms of
    RePRI (Boudiaf et al., CVPR 2021): entropy alone would draw all cells to one class,
    which the divergence from the shares that the head itself estimated holds back. Before the first
    estimate there is cross entropy alone. On the query batch norm is as in evaluation.

    Args:
        head: new, on the device of the maps.
        supports: as they are.
        query: [1, C, h, w] a level.
        schedule: see there.
        deformed: the supports to fit to in a step, if not as they are.
    """
    optimiser = torch.optim.Adam(head.parameters(), lr=schedule.lr)
    estimates = schedule.estimates(head.informed) if schedule.entropy else set()
    believed: Tensor | None = None
    for step in range(schedule.steps):
        shown = deformed(step) if deformed else supports
        with torch.enable_grad():
            logits = head.train()(shown.maps)
            loss = weighted_cross_entropy(logits, shown.labels, shown.weights)
            if step in estimates:
                believed = class_shares(head.eval()(query)).detach()
            if believed is not None:
                loss = loss + schedule.entropy * query_terms(head.eval()(query), believed)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    settle_norms(head, supports.maps)


def query_terms(logits: Tensor, believed: Tensor) -> Tensor:
    """Entropy of logits [1, P, h, w] and divergence of their class shares from those believed."""
    return mean_entropy(logits) + divergence(class_shares(logits), believed)


def settle_norms(head: Head, maps: Sequence[Tensor]) -> None:
    """Give batch norms the statistics of the supports under the weights as they are now.

    Running means would lag behind after so few steps.
    """
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all that follows: one pass
    if norms:
        head.train()(maps)
    head.eval()
