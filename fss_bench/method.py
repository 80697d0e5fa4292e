"""The method contract: supports and a query in, logits out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fss_bench.backbone import DEFAULT_INPUT_SIZE, Backbone, Features
from fss_bench.errors import FssBenchError
from fss_bench.ops import cross_entropy
from fss_bench.options import construct
from fss_bench.registry import methods
from fss_bench.training_batch import TrainingBatch

EPISODES = "episodes"
"""The stage of methods that have one."""

__all__ = ["EPISODES", "Method", "create_method", "input_size_of", "methods", "splits"]


class Method(nn.Module):
    """A few-shot segmentation method on a backbone, split into `encode` and `segment`.

    Every image is encoded once a run, since encoding knows nothing of the episode; `forward` is the
    composition. A method that cannot be split is any `nn.Module` with this `forward`.

    Args:
        backbone: the feature extractor.
        levels: the levels it uses.
        input_size: side of the square that images are warped to; by default the backbone's where
            it has one, else `paper_size`.
        paper_size: the side in the method's paper.
    """

    shots_commute = True
    """Whether another order of the shots gives the same answer."""
    void: int = 255
    """What ignored pixels of the query count for in training: a channel, or 255 for nothing."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {EPISODES: {}}
    """Stages of training in their order -> what each changes of the default recipe."""
    foreground_weight: float = 1.0
    """What a way's pixels count for in the loss of the query; training sets it (`Recipe`)."""
    weighs_foreground: ClassVar[bool] = False
    """Whether a `loss_terms` of its own takes `foreground_weight` into account."""
    needs_base_masks: ClassVar[bool] = False
    """Whether training episodes come with the labels of all base classes."""
    segment: Callable[[Features, Tensor, Features], Tensor]
    """(support features [B, N, K, C, h, w] a level, support masks [B, N, K, H, W] with 1 on the
    way's class, 0 off it, 255 ignore, query features [B, C, h, w] a level) -> logits [B, 1 + N, h,
    w]."""

    def __init__(
        self,
        backbone: Backbone,
        levels: Sequence[str],
        input_size: int | None = None,
        paper_size: int = DEFAULT_INPUT_SIZE,
    ) -> None:
        super().__init__()
        backbone.check_levels(levels)
        if input_size is not None and input_size < 1:
            raise FssBenchError(f"input_size={input_size}: it must be 1 or more")
        self.backbone, self.levels = backbone, tuple(levels)
        self.input_size = input_size or backbone.default_size or paper_size

    def encode(self, images: Tensor) -> Features:
        """Features of images [B, 3, H, W] in [0, 1]: level -> [B, C, h, w]."""
        features: Features = self.backbone(images, self.levels)
        return features

    def forward(
        self, support_images: Tensor, support_masks: Tensor, query_images: Tensor
    ) -> Tensor:
        """Logits [B, 1 + N, h, w], background first.

        Args:
            support_images: [B, N, K, 3, H, W] RGB in [0, 1].
            support_masks: [B, N, K, H, W]: 1 on the way's class, 0 off it, 255 ignore.
            query_images: [B, 3, H, W] RGB in [0, 1].
        """
        shape = support_images.shape[:3]
        support = self.encode(support_images.flatten(0, 2))
        support = {k: v.reshape(*shape, *v.shape[1:]) for k, v in support.items()}
        return self.segment(support, support_masks, self.encode(query_images))

    def loss_terms(
        self,
        support_images: Tensor,
        support_masks: Tensor,
        query_images: Tensor,
        query_masks: Tensor,
    ) -> dict[str, Tensor]:
        """Training loss by terms, scalars whose sum is minimised; here cross entropy alone.

        Args:
            support_images, support_masks, query_images: see `forward`.
            query_masks: [B, H, W] way number, 0 elsewhere, 255 ignore.
        """
        logits = self(support_images, support_masks, query_images)
        loss = cross_entropy(logits, query_masks, self.void, self.foreground_weight)
        return {"query": loss}

    def start_stage(self, stage: str) -> None:
        """Make ready for a stage of training: what does not learn in it gets no gradients."""

    def stage_terms(self, stage: str, batch: TrainingBatch) -> dict[str, Tensor]:
        """Loss terms of a batch in a stage of training; by default those of its episodes."""
        return self.loss_terms(
            batch.support_images, batch.support_masks, batch.query_images, batch.query_masks
        )

    def loss(self, *episodes: Tensor, **further: Tensor) -> Tensor:
        """Sum of `loss_terms` of the same arguments."""
        return torch.stack([*self.loss_terms(*episodes, **further).values()]).sum()


def splits(method: nn.Module) -> bool:
    """Whether a method offers `encode` and `segment`, and its `forward` is their composition."""
    if isinstance(method, Method) and type(method).forward is not Method.forward:
        return False
    return callable(getattr(method, "encode", None)) and callable(getattr(method, "segment", None))


def input_size_of(method: nn.Module) -> int:
    """Side of the square that a method's images are warped to."""
    return int(getattr(method, "input_size", DEFAULT_INPUT_SIZE))


def create_method(
    name: str, backbone: Backbone, *, start_seed: int = 0, **options: Any
) -> nn.Module:
    """A registered method; what it does not take from the backbone starts random, always the same.

    Args:
        name: such as `"panet"`.
        backbone: see `create_backbone`.
        start_seed: another one, other random weights.
        **options: the method's keyword arguments.

    Raises:
        UnknownNameError: no method of that name, or an option that it does not have.
        FssBenchError: it is no module, or cannot be made of a backbone and these options.
    """
    cls = methods.get_derived(name, nn.Module)
    if cls.__init__ is nn.Module.__init__:
        raise FssBenchError(
            f"method {name!r} has no constructor: write __init__(self, backbone, …)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start_seed)
        method: nn.Module = construct(cls, f"method {name!r}", {"backbone": backbone}, options)
    method.registered_name, method.options = name, options  # type: ignore[assignment]
    return method.eval()
