"""What is checked: a method by its name, on a small backbone, and the episodes that it is given."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fss_bench.method import create_method
from fss_bench.registry import methods
from fss_bench.timm_backbone import create_backbone

TINY = "test_resnet"
"""timm's smallest ResNet: half a million parameters, all levels, here with random weights."""
SIDE = 64


class Episodes(NamedTuple):
    """The arguments of a method: [B, N, K, 3, S, S], [B, N, K, S, S] and [B, 3, S, S]."""

    support_images: Tensor
    support_masks: Tensor
    query_images: Tensor


def episodes(batch: int, ways: int, shots: int, side: int = SIDE, seed: int = 0) -> Episodes:
    """Random images, and masks that are noise of 0, 1 and 255."""
    generator = torch.Generator().manual_seed(seed)
    support = torch.rand(batch, ways, shots, 3, side, side, generator=generator)
    masks = torch.randint(0, 3, (batch, ways, shots, side, side), generator=generator)
    masks = torch.where(masks == 2, 255, masks).to(torch.uint8)
    return Episodes(support, masks, torch.rand(batch, 3, side, side, generator=generator))


@dataclass(frozen=True)
class Subject:
    """A method to check, made when it is first needed.

    Attributes:
        name: of a registered method.
        backbone: of a registered backbone or a timm model; its weights are random.
        options: the method's.
    """

    name: str
    backbone: str = TINY
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def method(self) -> nn.Module:
        """The method with the options."""
        return self.make(self.options)

    def make(self, options: Mapping[str, Any], start_seed: int = 0) -> nn.Module:
        """Another one, on a backbone of its own."""
        backbone = create_backbone(self.backbone, "none")
        return create_method(self.name, backbone, start_seed=start_seed, **options)

    @property
    def fixed_side(self) -> int | None:
        """The only side of images that the backbone takes, if there is one."""
        backbone = getattr(self.method, "backbone", None)
        side: int | None = getattr(backbone, "fixed_size", None)
        return side

    def small(self) -> Mapping[str, Any]:
        """The options, with a small input where the method lets one choose it."""
        takes = inspect.signature(methods.get(self.name)).parameters
        if self.fixed_side or "input_size" not in takes:
            return self.options
        return {"input_size": 96, **self.options}

    def episodes(self, batch: int, ways: int, shots: int, seed: int = 0) -> Episodes:
        """Episodes that this method takes."""
        return episodes(batch, ways, shots, self.fixed_side or SIDE, seed)

    def answer(self, given: Episodes) -> Tensor:
        """The method's logits, as in an evaluation without gradients."""
        with torch.no_grad():
            logits: Tensor = self.method(*given)
        return logits
