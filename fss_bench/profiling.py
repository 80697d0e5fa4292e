"""What an evaluation costs, stage by stage, and how near it comes to what the machine can do."""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fss_bench import cost
from fss_bench.compute import Compute
from fss_bench.evaluation import Evaluation, Progress
from fss_bench.method import splits
from fss_bench.profiled import PRODUCT, Profile
from fss_bench.setting import Setting
from fss_bench.stage_clock import STAGES, StageClock

REPEATS = 5
ATTEMPTS = 3


def profile(
    method: nn.Module, setting: Setting, compute: Compute, progress: Progress | None = None
) -> Profile:
    """Evaluate, measure, and keep no run.

    Args:
        method, compute, progress: see `Evaluation`.
        setting: the episodes.

    Raises:
        FssBenchError: see `Evaluation`.
    """
    rate = machine_gflops(compute)
    device = compute.torch_device()
    waits = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
    clock = StageClock(waits)
    evaluation = Evaluation(method, [setting], compute, progress, clock=clock)
    run = evaluation.run()[0]
    work = [span for span in clock.spans if span.stage != "load"]
    per_image = _encoding_gflops(evaluation)
    shown = 1 + setting.ways * setting.shots
    backbone = getattr(evaluation.method, "backbone", None)
    return Profile(
        record=run.record,
        images=len({image for spec in setting.specs for image in spec.images}),
        encoded=evaluation.images.encoded,
        episodes=len(setting.specs),
        params_m=cost.parameters_m(evaluation.method),
        trainable_m=_trainable_m(evaluation.method),
        backbone_m=cost.parameters_m(backbone) if isinstance(backbone, nn.Module) else 0.0,
        gflops_image=per_image,
        gflops_episode=max(0.0, evaluation.gflops - shown * per_image),
        seconds={stage: clock.seconds().get(stage, 0.0) for stage in STAGES},
        wall=work[-1].end - work[0].start,
        peak_mb=cost.peak_mb(evaluation.device),
        machine_gflops=rate,
        spans=sorted(clock.spans, key=lambda span: span.end),
    )


def machine_gflops(compute: Compute) -> float:
    """GFLOP a second (2 a multiply-add) of the best of several large matrix products."""
    device, dtype = compute.torch_device(), compute.dtype() or torch.float32
    one = torch.ones(PRODUCT, PRODUCT, device=device, dtype=dtype)
    best = float("inf")
    _product(one, device)
    for _ in range(ATTEMPTS):
        start = time.perf_counter()
        for _ in range(REPEATS):
            _product(one, device)
        best = min(best, (time.perf_counter() - start) / REPEATS)
    return 2 * PRODUCT**3 / best / 1e9


def _product(one: Tensor, device: torch.device) -> None:
    torch.mm(one, one)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _trainable_m(method: nn.Module) -> float:
    return sum(p.numel() for p in method.parameters() if p.requires_grad) / 1e6


class _Encoder(nn.Module):
    """A method's `encode` as a module."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Any:
        return self.method.encode(images)


def _encoding_gflops(evaluation: Evaluation) -> float:
    if not splits(evaluation.method):
        return 0.0
    image = torch.zeros(1, 3, evaluation.side, evaluation.side, device=evaluation.device)
    with torch.no_grad():
        return cost.gflops(_Encoder(evaluation.method), (image,))
