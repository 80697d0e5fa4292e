"""How answers are put together: of several supports (the rule `kshot`), and of several ways."""

import torch
from torch import Tensor, stack


def merge_shots(logits: Tensor, kshot: str) -> Tensor:
    """One prediction of K supports: scores [1 + N, H, W] whose largest channel it is.

    Args:
        logits: [K, 1 + N, H, W], each of one support a way.
        kshot: `vote`, `or` or `mean`: see `EvaluationProtocol`.
    """
    if kshot == "mean":
        return logits.mean(dim=0)
    if kshot == "or":
        margins = (logits[:, 1:] - logits[:, :1]).amax(dim=0)
        return torch.cat([torch.zeros_like(margins[:1]), margins])
    ways = [
        vote_logits(stack([_others(logits, way).amax(dim=1), logits[:, way]], dim=1))
        for way in range(1, logits.shape[1])
    ]
    return merge_ways(torch.cat(ways))


def label_map(scores: Tensor) -> Tensor:
    """The largest channel of scores [P, H, W], as uint8; of equal ones the first.

    The same as argmax, at a tenth of its time for few channels on a CPU.
    """
    best, labels = scores[0], torch.zeros_like(scores[0], dtype=torch.uint8)
    for channel in range(1, len(scores)):
        labels.masked_fill_(scores[channel] > best, channel)
        best = torch.maximum(best, scores[channel])
    return labels


def merge_ways(logits: Tensor) -> Tensor:
    """Two-channel logits of every way, [N, 2, h, w], to one episode's [1 + N, h, w].

    One way is left as it is. Of several, background scores 0 and a way scores its foreground minus
    its background: a pixel is of the way that is surest, if any is surer of foreground.
    """
    if len(logits) == 1:
        return logits[0]
    odds = logits[:, 1] - logits[:, 0]
    return torch.cat([torch.zeros_like(odds[:1]), odds])


def vote_logits(logits: Tensor, official: bool = True) -> Tensor:
    """Scores [1, 2, H, W] whose larger channel is the shots' vote.

    A pixel is foreground where V / m >= 1/2, for V shots that say so; m is the largest V of the
    image (at least 1) if `official`, else the number of shots. Between ways of equal votes the mean
    logits decide.

    Args:
        logits: [K, 2, H, W].
        official: what V is divided by.
    """
    shots = len(logits)
    votes = logits.argmax(dim=1).sum(dim=0)
    share = votes / (votes.max().clamp(min=1) if official else shots)
    # of ways with equal shares the surest should win: a nudge of less than half of what two shares
    # can differ by, which is 1 / (K (K - 1))
    margin = (logits[:, 1] - logits[:, 0]).float().mean(dim=0)
    nudge = (margin.sigmoid() - 0.5) / (4 * shots**2)
    # shares below 1/2 are at most 1/2 - 1 / (2 K): this lies between, nudges and all
    return stack([torch.full_like(share, 0.5 - 1 / (4 * shots)), share + nudge])[None]


def _others(logits: Tensor, way: int) -> Tensor:
    """The channels [K, N, H, W] that are not the way's."""
    return torch.cat([logits[:, :way], logits[:, way + 1 :]], dim=1)
