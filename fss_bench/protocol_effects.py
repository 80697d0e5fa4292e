"""What protocol rules were measured to change: by others, or by counting in the published lists.

Scores are mIoU in percent. A rule without an entry has no known size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

LISTS = "counted from the published lists"


@dataclass(frozen=True)
class Effect:
    """A measured effect.

    Attributes:
        text: what was measured on what, with its numbers, in one line.
        source: who measured it, or where it can be read.
        values: values of the rule that it is about. With two, it tells one from the other; with
            one, that from any other; with none it is about the rule at large.
    """

    text: str
    source: str
    values: tuple[str, ...] = ()


_SCCAN = Effect(
    "Image size and IoU resolution together, SCCAN with the same weights, pad first, then warp: "
    "COCO ResNet-50 45.1 and 46.3 (1-shot), 52.3 and 53.9 (5-shot), ResNet-101 47.0 and 48.2, 55.1 "
    "and 57.0; PASCAL 67.0 and 66.8, 70.3 and 70.3",
    "table image in SCCAN's repository",
)
_SINGLE_EPISODE = Effect(
    "COCO: a class with a single episode moves a fold's mIoU by up to 5 points", LISTS
)

EFFECTS: dict[str, tuple[Effect, ...]] = {
    "order": (
        Effect(
            "PASCAL test pairs, folds 0 to 3: 346, 451, 725 and 346 in HSNet's lists, 365, 467, "
            "734 and 357 in PFENet's, of them 343, 451, 717 and 345 in both",
            LISTS,
            ("hsnet", "pfenet"),
        ),
    ),
    "class_draw": (
        Effect(
            "COCO fold 0, the first 1,000 images of BAM's list: about 630 of 1,000 episodes are "
            "person, and 4 of 20 classes have fewer than 5; with a uniform class each has 33 to 68",
            LISTS,
            ("image",),
        ),
        Effect(
            "PASCAL fold 2, HSNet's pairs in turn: 541 of 1,000 episodes are person, which changes "
            "the spread of mIoU but not its mean, and dominates FB-IoU",
            LISTS,
            ("pairs",),
        ),
    ),
    "support_draw": (
        Effect(
            "5-shot episodes of 1,000 with fewer than 5 distinct supports in HSNet's order, folds"
            " 0 to 3: PASCAL 133, 112, 53 and 133; COCO 22, 16, 39 and 27",
            LISTS,
            ("distinct", "repeat"),
        ),
    ),
    "episodes": (_SINGLE_EPISODE,),
    "coco_episodes": (_SINGLE_EPISODE,),
    "runs": (
        Effect(
            "BAM's released weights, ResNet-50, PASCAL 1-shot, folds 0 to 3: 68.77, 73.48, 67.18 "
            "and 60.27 run again, 68.97, 73.59, 67.55 and 61.13 in the paper",
            "BAM issue 33",
        ),
    ),
    "image_resize": (replace(_SCCAN, values=("pad", "warp")),),
    "image_filter": (
        Effect(
            "Pixels differ by 1.7 grey levels in the mean and by up to 15 when an image shrinks "
            "from 500 to 241",
            "Pillow and OpenCV run side by side",
            ("pil-bilinear", "opencv-bilinear"),
        ),
    ),
    "annotation": (
        Effect(
            "PANet, VGG-16, PASCAL: 48.1 with masks, 45.1 with boxes (1-shot), 55.7 and 52.8 "
            "(5-shot)",
            "PANet's paper, ablation",
            ("mask", "box"),
        ),
        Effect(
            "PANet, VGG-16, PASCAL: 48.1 with masks, 44.8 with scribbles (1-shot), 55.7 and 54.6 "
            "(5-shot)",
            "PANet's paper, ablation",
            ("mask", "scribble"),
        ),
    ),
    "kshot": (
        Effect(
            "HSNet: where no pixel of an image has more than 2 of 5 votes, 1 vote makes foreground",
            "HSNet's code",
            ("vote",),
        ),
    ),
    "logits_resize": (
        Effect(
            "SG-One: probabilities change by up to .39 if its last upsampling aligns corners",
            "its network run both ways",
            ("bilinear", "bilinear-corners"),
        ),
    ),
    "iou_at": (
        _SCCAN,
        Effect(
            "On unified lists, PASCAL: HSNet ResNet-50 64.0 becomes 63.5 (1-shot) and 69.5 becomes "
            "69.3 (5-shot), VAT 65.3 becomes 65.0",
            "a re-evaluation, its place not noted",
        ),
    ),
    "query_ignore": (
        Effect(
            "PFENet, ResNet-50, PASCAL 1-shot: 60.8 with 255 excluded, 56.2 with it as background",
            "PFENet issue 25, by HSNet's author",
            ("excluded", "background"),
        ),
    ),
    "empty_class": (
        Effect(
            "COCO with few episodes: up to 5 points for each class that has none",
            LISTS,
            ("skip",),
        ),
    ),
    "fold_scheme": (
        Effect(
            "SSP, ResNet-50, COCO 1-shot, the same checkpoints: 33.6 on contiguous folds, 37.4 on "
            "interleaved ones, where 15 of a fold's 20 test classes were trained on",
            "SSP's code and the class lists",
            ("interleaved", "contiguous"),
        ),
    ),
    "base_images": (
        Effect(
            "PFENet trained again without images of novel classes (backbone weights may differ as "
            "well): PASCAL ResNet-50 60.8 becomes 66.35 (1-shot) and 61.9 becomes 71.20 (5-shot), "
            "VGG-16 58.0 becomes 63.35; COCO VGG-16 36.3 becomes 41.97",
            "table image in SVF's repository",
            ("drop", "background"),
        ),
        Effect(
            "BAM, ResNet-50, PASCAL, with such images kept: 67.81 becomes 64.7 (1-shot) and 70.91 "
            "becomes 68.2 (5-shot)",
            "BAM issue 45",
            ("drop", "background"),
        ),
        Effect("HDMNet, COCO, kept: 1.3 points less", "HDMNet issue 8", ("drop", "background")),
        Effect("BAM's author: little impact", "BAM issues 10 and 44", ("drop", "background")),
        Effect(
            "PASCAL training images, folds 0 to 3: 4,760, 4,588, 4,097 and 5,108 with them, 4,208, "
            "3,726, 2,752 and 4,510 without",
            LISTS,
            ("drop", "background"),
        ),
    ),
}
"""Rule -> its measured effects."""

SCOPES = {
    "support_draw": "several shots only",
    "coco_episodes": "COCO only",
    "support_others": "several ways only",
    "annotation_points": "annotation=points only",
    "kshot": "several shots only",
    "fold_scheme": "COCO only",
    "coco_overlap": "COCO only",
    "coco_crowd": "COCO only",
    "base_images": "training only",
    "train_ignore": "training only",
}
"""Rule -> where alone it matters."""


def effects_between(rule: str, a: Any, b: Any) -> Sequence[Effect]:
    """Measured effects of a rule that bear on the difference of two values."""
    return [effect for effect in EFFECTS.get(rule, ()) if set(effect.values) <= {str(a), str(b)}]
