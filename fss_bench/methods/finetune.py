"""Fine-tuning: a head is fitted to the supports of each episode, then segments the query.

A baseline of several papers: the cosine classifier with entropy regularisation of Boudiaf et al.
(RePRI), CVPR 2021, https://arxiv.org/abs/2012.06166; U-Net (Ronneberger, Fischer and Brox, MICCAI
2015), SegNet (Badrinarayanan, Kendall and Cipolla, TPAMI 2017) and DeepLabV3+ (Chen et al., ECCV
2018), whose decoders start at random.

Differs from the papers: the backbone is frozen and only the head is fitted, with Adam, to all
supports in every step, 50 times unless told otherwise. The loss of all heads but the cosine
classifier is balanced as SegNet's. RePRI's classifier has a bias. U-Net's convolutions are padded
and have batch norm; no tiles. What else differs is said with the heads (`fss_bench/heads/`).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, cat

from fss_bench.backbone import Backbone, Features
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.heads.balance import median_frequency_weights
from fss_bench.heads.border import border_weights
from fss_bench.heads.cosine import CosineHead
from fss_bench.heads.deeplab import DeepLabHead
from fss_bench.heads.elastic import deform, displacements
from fss_bench.heads.fitting import Schedule, Supports, fit
from fss_bench.heads.head import Head
from fss_bench.heads.segnet import SegNetHead
from fss_bench.heads.unet import UNetHead
from fss_bench.method import Method, methods

CARD = {
    "paper": "Few-Shot Segmentation Without Meta-Learning: A Good Transductive Inference Is All "
    "You Need?",
    "year": 2021,
    "venue": "CVPR",
    "backbones": {"resnet50": 2048, "resnet101": 2048},
    "input_size": 417,
}
HEADS: dict[str, type[Head]] = {
    "cosine": CosineHead,
    "unet": UNetHead,
    "deeplabv3plus": DeepLabHead,
    "segnet": SegNetHead,
}
IMAGE = "image"


@methods.register("finetune")
class FineTune(Method):
    """Every episode has a new head, fitted on its own: no answer depends on the batch.

    Gradients are turned on inside `segment`. On a CPU the answers repeat bit for bit.

    Args:
        backbone: the feature extractor; it is never fitted.
        head: `cosine`, `unet`, `deeplabv3plus` or `segnet`.
        level: the levels it uses, joined by `+`; by default see `choose` of the head.
        steps: gradient steps an episode.
        lr: Adam's learning rate; by default the head's (0.025 for `cosine`, else 0.001).
        scale: factor on the cosines, of `head=cosine` alone; by default 20.
        entropy: weight of the query's entropy and class shares in the loss at one shot; at K shots
            it is divided by K. 0 leaves both out.
        border_weight: U-Net's weight of pixels between objects (10 in the paper); 0 leaves it out.
        elastic: deviation in pixels of U-Net's deformation of the supports (10 in the paper), anew
            in every step, for which they are encoded again; 0 leaves them as they are.
        seed: of the head's first weights and of the deformations.
        input_size: side of the input square; by default the backbone's (else 417).

    Raises:
        FssBenchError: a value out of range, or levels that the head cannot use.
    """

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(
        self,
        backbone: Backbone,
        head: str = "cosine",
        level: str | None = None,
        steps: int = 50,
        lr: float | None = None,
        scale: float | None = None,
        entropy: float = 0.0,
        border_weight: float = 0.0,
        elastic: float = 0.0,
        seed: int = 0,
        input_size: int | None = None,
    ) -> None:
        if head not in HEADS:
            raise UnknownNameError("head", head, HEADS)
        if scale is not None and head != "cosine":
            raise FssBenchError(f"option scale={scale:g} is of head=cosine, not {head}: drop it")
        kind = HEADS[head]
        super().__init__(backbone, level.split("+") if level else kind.choose(backbone), input_size)
        self.head, self.steps, self.seed = head, steps, seed
        self.lr = kind.lr if lr is None else lr
        self.head_options = {} if scale is None else {"scale": scale}
        self.entropy, self.border_weight, self.elastic = entropy, border_weight, elastic
        for name in ("steps", "entropy", "border_weight", "elastic"):
            _need(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _need("lr", self.lr, self.lr > 0, "above 0")
        _need("scale", scale or 1.0, scale is None or scale > 0, "above 0")
        self.levels = tuple(sorted(self.levels, key=lambda name: backbone.size_of(name).stride))
        self.new_head(2)  # levels it cannot use are told before the first image

    def encode(self, images: Tensor) -> Features:
        """Features of images [B, 3, H, W], and with `elastic` the images themselves."""
        features = super().encode(images)
        return {**features, IMAGE: images} if self.elastic else features

    def segment(self, support: Features, support_masks: Tensor, query: Features) -> Tensor:
        """Logits [B, 1 + N, h, w] at the size of the head's; fitted in fp32 at any precision."""
        ambient = ambient_autocast(support_masks.device.type)
        with torch.no_grad(), torch.autocast(support_masks.device.type, enabled=False):
            episodes = [
                self.segment_one(
                    {name: maps[b] for name, maps in support.items()},
                    support_masks[b],
                    {name: maps[b : b + 1] for name, maps in query.items()},
                    ambient,
                )
                for b in range(len(support_masks))
            ]
        return cat(episodes)

    def loss_terms(
        self,
        support_images: Tensor,
        support_masks: Tensor,
        query_images: Tensor,
        query_masks: Tensor,
    ) -> dict[str, Tensor]:
        """There are none.

        Raises:
            FssBenchError: always.
        """
        raise FssBenchError(
            "method finetune learns nothing from training episodes: it fits a new head to the "
            "supports of every episode; run fss-bench evaluate finetune without training it"
        )

    def segment_one(
        self, support: Features, masks: Tensor, query: Features, ambient: torch.autocast
    ) -> Tensor:
        """Logits [1, 1 + N, h, w] of one episode.

        Args:
            support: [N, K, C, h, w] a level.
            masks: [N, K, H, W] with 1 on the way's class, 0 off it, 255 ignore.
            query: [1, C, h, w] a level.
            ambient: the precision that images are encoded in.
        """
        ways, shots = masks.shape[:2]
        head = self.new_head(1 + ways).to(masks.device)
        shown = {name: maps.flatten(0, 1) for name, maps in support.items()}
        labels = way_labels(masks)
        supports = Supports(self._maps(shown), labels, self.weights(labels, 1 + ways))
        asked = self._maps(query)
        head.check(asked)
        head.begin(supports.maps, labels)
        deformed = self._deformer(supports, shown[IMAGE], ambient) if self.elastic else None
        fit(head, supports, asked, Schedule(self.steps, self.lr, self.entropy / shots), deformed)
        return head(asked)  # type: ignore[no-any-return]

    def new_head(self, classes: int) -> Head:
        """A head with the weights that the seed gives it, on the CPU."""
        sizes = [self.backbone.size_of(level) for level in self.levels]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return HEADS[self.head](sizes, classes, **self.head_options)

    def weights(self, labels: Tensor, classes: int) -> Tensor:
        """Weights [S, H, W] of the pixels of labels [S, H, W] in the loss, 0 where ignored.

        The class's (1 unless the head is balanced), plus U-Net's for what lies between objects.
        """
        valid = labels != 255
        weights = valid.float()
        if HEADS[self.head].balanced:
            balance = median_frequency_weights(labels, classes)
            weights = weights * balance[labels.masked_fill(~valid, 0)]
        if self.border_weight:
            shown = ((labels > 0) & valid).cpu().numpy()
            borders = torch.stack([torch.from_numpy(border_weights(mask)) for mask in shown])
            weights = weights + self.border_weight * borders.to(weights.device) * valid
        return weights

    def _maps(self, features: Features) -> list[Tensor]:
        return [features[level].float().contiguous() for level in self.levels]

    def _deformer(
        self, supports: Supports, images: Tensor, ambient: torch.autocast
    ) -> Callable[[int], Supports]:
        """What gives the supports of a step: images, labels and weights deformed alike."""

        def deformed(step: int) -> Supports:
            shift = displacements(images, supports.labels, self.elastic, self.seed, step)
            labels = deform(supports.labels[:, None].float(), shift, nearest=True)[:, 0].long()
            weights = deform(supports.weights[:, None], shift, nearest=True)[:, 0]
            with ambient:
                features = self.encode(deform(images, shift))
            return Supports(self._maps(features), labels, weights)

        return deformed


def way_labels(masks: Tensor) -> Tensor:
    """Masks [N, K, H, W] with 1 on the way's class to labels [N K, H, W] with its number, long."""
    numbers = torch.arange(1, 1 + len(masks), device=masks.device).view(-1, 1, 1, 1)
    return torch.where(masks == 1, numbers, masks.long()).flatten(0, 1)


def ambient_autocast(device_type: str) -> torch.autocast:
    """The autocast that is on where this is called, for use inside another."""
    return torch.autocast(
        device_type,
        dtype=torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
    )


def _need(name: str, value: float, holds: bool, wanted: str) -> None:
    if not holds or not math.isfinite(value):
        raise FssBenchError(f"option {name}={value:g}: it must be {wanted}")
