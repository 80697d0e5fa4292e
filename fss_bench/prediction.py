"""`predict`: segment one's own pictures, by the rules of protocol `standard`.

What is computed is what evaluation computes: an episode of these pictures gives the same labels.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fss_bench.checkpoint import Checkpoint, check_shots
from fss_bench.compute import Compute
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError
from fss_bench.evaluation import check_logits, image_store
from fss_bench.geometry import fit_logits, place_image, place_mask
from fss_bench.items import Want, wants
from fss_bench.method import input_size_of
from fss_bench.own_pictures import (
    Annotation,
    Picture,
    Pixels,
    Shown,
    Support,
    read_picture,
    read_supports,
    title,
)
from fss_bench.part_method import in_parts
from fss_bench.protocols import PROTOCOLS
from fss_bench.shots import label_map

STANDARD = PROTOCOLS["standard"]
POINTS = STANDARD.replace_rules({"annotation": "points"})
"""The same where supports are a few points, which are resized so that none is lost."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method says of a query, at the query's own size.

    Attributes:
        labels: [H, W] uint8: way number from 1, 0 background.
        probabilities: [1 + N, H, W] float32: softmax of the logits, background first.
        ways: names of the N ways.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    ways: tuple[str, ...]

    @cached_property
    def share(self) -> dict[str, float]:
        """Way -> which part of the pixels it has, 0 to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=1 + len(self.ways))
        return {
            way: int(count) / self.labels.size
            for way, count in zip(self.ways, counts[1:], strict=True)
        }

    @cached_property
    def score(self) -> float | None:
        """Mean probability of foreground over what is foreground here; None if nothing is."""
        on = self.labels > 0
        if not on.any():
            return None
        return float(1 - self.probabilities[0][on].mean(dtype=np.float64))


class Predictor:
    """A method that has been shown supports, and is asked for one query after the other.

    Supports are encoded once.

    Args:
        method: see `evaluate`; moved to the device and set to eval mode.
        shown: way -> its K supports.
        compute: its device and precision.

    Raises:
        FssBenchError: no such device, an object that is too small for the method's input, or a
            checkpoint for another number of shots.
    """

    def __init__(self, method: nn.Module, shown: Shown, compute: Compute | None = None) -> None:
        self._compute = compute or Compute()
        self._device, self._dtype = self._compute.torch_device(), self._compute.dtype()
        self.ways, rows = tuple(shown), [list(way) for way in shown.values()]
        checkpoint, shots = getattr(method, "checkpoint", None), len(rows[0])
        if isinstance(checkpoint, Checkpoint):
            check_shots(checkpoint, shots, f"{shots} supports a way")
        self._side = input_size_of(method)
        self._squares = [[place_image(s.pixels, self._side, STANDARD) for s in r] for r in rows]
        self._masks = [[self._mask(support) for support in row] for row in rows]
        self._images = image_store([method], self._compute)
        self._parts = in_parts(method)
        names = tuple(
            tuple(f"support {way} {shot}" for shot in range(len(row)))
            for way, row in enumerate(rows)
        )
        self._spec = EpisodeSpec(0, 0, tuple(range(1, 1 + len(rows))), "", names)

    def __call__(self, query: Picture) -> Prediction:
        """Segment a query.

        Raises:
            FssBenchError: it cannot be read, or the method returns no logits.
        """
        pixels = read_picture(query, "query")
        spec = replace(self._spec, query=f"query {title(query)}")
        with (
            torch.no_grad(),
            torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None),
        ):
            logits = self._logits(spec, pixels)
            shape = (pixels.shape[0], pixels.shape[1])
            scores = fit_logits(logits[0], shape, self._side, STANDARD)
            labels = label_map(scores)
            probabilities = scores.softmax(dim=0)
        return Prediction(labels.cpu().numpy(), probabilities.cpu().numpy(), self.ways)

    def _logits(self, spec: EpisodeSpec, pixels: Pixels) -> Tensor:
        """Logits [1, 1 + N, h, w] of the query; supports that are there are not made again."""
        needed = wants(spec, STANDARD, self._parts)
        shelf = self._images.shelf
        uses = {want.item: [0] for want in needed}
        kept = {item: use for item, use in uses.items() if item.image != spec.query}
        shelf.begin(kept, sys.maxsize, 0)  # the last query goes, be it of this one's name
        shelf.begin(uses, sys.maxsize, 0)
        squares = {
            name: square
            for names, row in zip(spec.supports, self._squares, strict=True)
            for name, square in zip(names, row, strict=True)
        }
        squares[spec.query] = place_image(pixels, self._side, STANDARD)
        missing = [want for want in needed if want.item not in shelf]
        images = {want.item.image: squares[want.item.image] for want in missing}
        items = {want.item: self._mask_for(want) for want in missing}
        self._images.add(images, items, [want.item for want in needed])
        size = (self._side, self._side)
        masks = None if self._parts else torch.stack([torch.stack(r) for r in self._masks])[None]
        logits = self._images.logits([spec], STANDARD, size, masks)[:, 0].float()
        check_logits(logits, [spec])
        if not torch.isfinite(logits).all():
            raise FssBenchError(
                f"the method returned NaN or infinite logits for {spec.query}: mend the method, or "
                "try --precision fp32"
            )
        return logits

    def _mask_for(self, want: Want) -> Tensor | None:
        return self._masks[want.way][want.shot] if want.item.role == "support" else None

    def _mask(self, support: Support) -> Tensor:
        mask = place_mask(support.mask, self._side, POINTS if support.sparse else STANDARD)
        if not (mask == 1).any():
            raise FssBenchError(
                f"the object of {support.name} is too small: nothing is left of it at the method's "
                f"{self._side}x{self._side} px: mark more of it, or crop the picture"
            )
        return mask


def predict(
    method: nn.Module,
    supports: Sequence[Picture],
    masks: Sequence[Annotation],
    query: Picture,
    *,
    ways: Sequence[str] = (),
    compute: Compute | None = None,
) -> Prediction:
    """Segment one's own picture; for many queries see `Predictor`.

    Args:
        method: see `evaluate`.
        supports: files or RGB pixels [H, W, 3] uint8.
        masks: what is known of each support: a mask's file, `box:x0,y0,x1,y1`,
            `points:x,y;x,y/x,y` or values [H, W]; see docs/predict.md.
        query: file or pixels.
        ways: of each support the name of its way; none if there is one way.
        compute: device and precision.

    Raises:
        FssBenchError: a mistake the user can mend.
    """
    return Predictor(method, read_supports(supports, masks, ways), compute)(query)
