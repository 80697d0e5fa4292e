"""What an evaluation costs, stage by stage, and how near it comes to what the machine can do."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench import cost
from fss_bench.compute import Compute
from fss_bench.episodes import Episode
from fss_bench.evaluation import Evaluation, Progress
from fss_bench.items import Item, wants
from fss_bench.method import splits
from fss_bench.profiled import CONVOLUTION, PRODUCT, ROLES, Profile
from fss_bench.setting import Setting
from fss_bench.stage_clock import STAGES, StageClock

REPEATS = 5
COUNTED = 4
"""Episodes whose FLOPs are counted: they depend on the masks where cells off them are left out."""
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
    gflops = _mean_gflops(evaluation, setting)
    kept = {
        want.item for spec in setting.specs for want in wants(spec, setting.protocol, parts=True)
    }
    backbone = getattr(evaluation.method, "backbone", None)
    return Profile(
        record=run.record,
        images=len({image for spec in setting.specs for image in spec.images}),
        encoded=evaluation.images.encoded,
        episodes=len(setting.specs),
        params_m=cost.parameters_m(evaluation.method),
        trainable_m=_trainable_m(evaluation.method),
        backbone_m=cost.parameters_m(backbone) if isinstance(backbone, nn.Module) else 0.0,
        queries=_count(kept, "query") if evaluation.parts else 0,
        supports=_count(kept, "support") if evaluation.parts else 0,
        gflops_image=gflops[0],
        gflops_query=gflops[1],
        gflops_support=gflops[2],
        gflops_episode=gflops[3],
        made={role: evaluation.images.made(role) for role in ROLES},
        seconds={stage: clock.seconds().get(stage, 0.0) for stage in STAGES},
        wall=work[-1].end - work[0].start,
        peak_mb=cost.peak_mb(evaluation.device),
        machine_gflops=rate,
        spans=sorted(clock.spans, key=lambda span: span.end),
    )


def _count(items: Iterable[Item], role: str) -> int:
    return sum(item.role == role for item in items)


def machine_gflops(compute: Compute) -> float:
    """GFLOP a second (2 a multiply-add): the best of large matrix products and convolutions."""
    device, dtype = compute.torch_device(), compute.dtype() or torch.float32
    one = torch.ones(PRODUCT, PRODUCT, device=device, dtype=dtype)
    channels, side = CONVOLUTION
    maps = torch.ones(1, channels, side, side, device=device, dtype=dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    kernel = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype)
    products = 2 * PRODUCT**3 / _seconds(partial(torch.mm, one, one), device)
    convolve = partial(F.conv2d, maps, kernel, padding=1)
    convolutions = 2 * 9 * channels**2 * side**2 / _seconds(convolve, device)
    return max(products, convolutions) / 1e9


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """Of one time, the best of several attempts."""
    _wait_for(work, device)
    best = float("inf")
    with torch.no_grad():
        for _ in range(ATTEMPTS):
            start = time.perf_counter()
            for _ in range(REPEATS):
                _wait_for(work, device)
            best = min(best, (time.perf_counter() - start) / REPEATS)
    return best


def _wait_for(work: Callable[[], Tensor], device: torch.device) -> None:
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _trainable_m(method: nn.Module) -> float:
    return sum(p.numel() for p in method.parameters() if p.requires_grad) / 1e6


class _Calls(nn.Module):
    """A function of a module as a module."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def _mean_gflops(evaluation: Evaluation, setting: Setting) -> list[float]:
    """To encode an image, reduce a query, reduce a support, and segment an episode of these."""
    specs = setting.specs[:: max(1, len(setting.specs) // COUNTED)][:COUNTED]
    counted = [_gflops(evaluation, evaluation.loader.episode(spec)) for spec in specs]
    return [sum(each) / len(counted) for each in zip(*counted, strict=True)]


def _gflops(evaluation: Evaluation, episode: Episode) -> tuple[float, float, float, float]:
    """See `_mean_gflops`, of one episode."""
    method: Any = evaluation.method
    images, masks, query = (
        given[None].to(evaluation.device)
        for given in (episode.support_images, episode.support_masks, episode.query_image)
    )
    whole = evaluation.count_gflops(images, masks, query)
    if not splits(method):
        return 0.0, 0.0, 0.0, whole
    supports = list(zip(images.flatten(0, 2), masks.flatten(0, 2), strict=True))
    with torch.no_grad():
        encoding, asking, showing = cost.gflops(_Calls(method, method.encode), (query,)), 0.0, 0.0
        if evaluation.parts:
            asking = cost.gflops(_Calls(method, method.query_part), (method.encode(query),))
            showing = sum(
                cost.gflops(_Calls(method, method.support_part), (method.encode(i[None]), mask))
                for i, mask in supports
            )
    rest = whole - (1 + len(supports)) * encoding - asking - showing
    return encoding, asking, showing / len(supports), max(0.0, rest)
