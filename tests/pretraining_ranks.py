"""Tiny recipes and networks for the tests of pretraining, and processes that talk to each other."""

import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fss_bench.pretraining.recipes import Recipe, recipe_for

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tiny_recipe(method: str, version: int | None = None, **changes: Any) -> Recipe:
    return replace(recipe_for(method, version), **changes)


def trunk(name: str = "test_resnet", seed: int = 0, **options: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name, num_classes=0, **options)


def images(count: int, seed: int = 0, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def on_ranks(work: Callable[[int], Any], folder: Path, world: int = 2) -> list[Any]:
    """What `work(rank)` returns on each of `world` processes joined by gloo."""
    context = get_context("fork")
    processes = [
        context.Process(target=_run, args=(work, folder, rank, world)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert not process.is_alive(), "the ranks wait for each other"
    found = [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]
    for answer in found:
        assert "error" not in answer, answer["error"]
    return [answer["value"] for answer in found]


def _run(work: Callable[[int], Any], folder: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)  # a forked OpenMP pool would hang
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
        )
        answer = {"value": work(rank)}
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:
        answer = {"error": traceback.format_exc()}
    torch.save(answer, folder / f"rank{rank}.pt")
