"""From logits to rows of the episode table: the rules that only touch scores.

Settings that differ in nothing else share one segmentation, and each is scored under its own.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fss_bench.episodes import EpisodeSpec
from fss_bench.geometry import fit_logits
from fss_bench.metrics import TWIN, confusion, episode_counts
from fss_bench.protocols import EvaluationProtocol
from fss_bench.results import fingerprint
from fss_bench.setting import Setting
from fss_bench.shots import label_map, merge_shots

Row = dict[str, Any]
Labels = NDArray[np.uint8]

SCORING_RULES = (
    "iou_at",
    "logits_resize",
    "query_ignore",
    "vanished",
    "empty_class",
    "fb_iou",
    "base_images",
    "train_ignore",
)
"""Rules that change nothing of what a method is given."""
DRAWING_RULES = (
    "order",
    "class_draw",
    "support_draw",
    "support_query",
    "test_split",
    "episodes",
    "coco_episodes",
    "runs",
    "seeds",
    "min_pixels",
    "min_pixels_of",
    "short_classes",
    "fold_scheme",
)
"""Rules that show in the list of episodes, which is compared itself."""


def segmentation_key(setting: Setting) -> str:
    """Equal for settings whose episodes are segmented alike and may share the work."""
    left_out = (*SCORING_RULES, *DRAWING_RULES)
    rules = {k: v for k, v in setting.protocol.rules.items() if k not in left_out}
    return fingerprint(
        setting.dataset.name,
        setting.dataset.index.fingerprint,
        setting.fold,
        setting.ways,
        setting.shots,
        setting.sha256,
        rules,
    )


@dataclass
class Answers:
    """A step's logits, and what they come to at each resolution that is asked for.

    Attributes:
        logits: [B, K', 1 + N, h, w]: K' is K where every support answers on its own, else 1.
        side: of the input square.
    """

    logits: Tensor
    side: int
    _labels: dict[tuple[str, str], tuple[list[Labels], float]] = field(default_factory=dict)

    def labels(
        self, masks: Sequence[Tensor], protocol: EvaluationProtocol
    ) -> tuple[list[Labels], float]:
        """Way numbers of every episode at its mask's size, and the seconds that they took."""
        key = protocol.iou_at, protocol.logits_resize
        if key not in self._labels:
            start = time.perf_counter()
            found = [
                self._label(shots, (mask.shape[-2], mask.shape[-1]), protocol)
                for shots, mask in zip(self.logits, masks, strict=True)
            ]
            self._labels[key] = found, time.perf_counter() - start
        return self._labels[key]

    def _label(self, shots: Tensor, shape: tuple[int, int], protocol: EvaluationProtocol) -> Labels:
        fitted = torch.stack([fit_logits(one, shape, self.side, protocol) for one in shots])
        scores = fitted[0] if len(fitted) == 1 else merge_shots(fitted, protocol.kshot)
        return label_map(scores).cpu().numpy()


def score_row(
    spec: EpisodeSpec,
    prediction: Labels,
    target: Labels,
    protocol: EvaluationProtocol,
    milliseconds: float,
) -> Row:
    """One row of the episode table; `prediction` and `target` [H, W] hold way numbers."""
    matrix = confusion(prediction, target, len(spec.classes))
    drop = protocol.vanished == "dropped"
    as_background = episode_counts(matrix, ignore_as_background=True, drop_vanished=drop)
    counts = as_background
    if protocol.query_ignore == "excluded":
        counts = episode_counts(matrix, drop_vanished=drop)
    return {
        "index": spec.index,
        "class_ids": list(spec.classes),
        "query": spec.query,
        "supports": [list(way) for way in spec.supports],
        **counts.columns(),
        **as_background.columns(TWIN),
        "iou_fg": counts.inter_fg / counts.union_fg if counts.union_fg else None,
        "ms": milliseconds,
    }
