"""The promise that a method can be evaluated, and that how it is run changes no number."""

from fss_bench.compute import Compute
from fss_bench.contract.checking import ContractError
from fss_bench.contract.subject import Subject
from fss_bench.dataset import create_dataset
from fss_bench.evaluation import evaluate

COUNTS = ["inter_fg", "union_fg", "inter_bg", "union_bg"]
EPISODES = 5
ROUNDED = 1e-3
"""Share of pixels that rounding may move from one class to another: cells that are all but tied."""


def evaluation(subject: Subject) -> str:
    """`evaluate` counts the same pixels with episodes one by one and in batches of three."""
    method, dataset = subject.make(subject.small()), create_dataset("shapes")
    one, three = (
        evaluate(
            method,
            dataset,
            ways=2,
            shots=2,
            episodes=EPISODES,
            compute=Compute("cpu", batch_size=size),
        ).episodes[COUNTS]
        for size in (1, 3)
    )
    counted = int(one[["union_fg", "union_bg"]].sum().sum())
    moved = int((one - three).abs().sum().sum())
    if moved > ROUNDED * counted:
        raise ContractError(
            f"{moved:,} of {counted:,} counts differ", "no answer may depend on the batch"
        )
    rounding = f", but for {moved} by rounding" if moved else ""
    return f"{EPISODES} episodes of shapes, {counted:,} counts{rounding}"
