"""The evaluation protocol: every rule that must be equal for two numbers to compare."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from fss_bench.errors import FssBenchError, UnknownNameError


@dataclass(frozen=True)
class EvaluationProtocol:
    """Every rule of an evaluation. Frozen; `replace_rules` makes variants.

    Attributes:
        name: the named protocol it started from.
        order: which episodes. `balanced`: `EpisodeSampler`. `hsnet`: the order of HSNet's published
            code (NumPy's legacy stream from seed 0 over the official lists; supports may repeat).
        episodes: episodes a fold.
        min_pixels: an (image, class) pair qualifies when the class covers this many pixels.
        short_classes: a class with fewer than K + 1 qualifying images is an `error`, or `skip`ped.
        empty_class: a class of the fold without an episode or without a pixel: `skip`ped in the
            mean, or counted as `zero` (HSNet, PFENet).
        image_resize: how images reach the method's input square: aspect ratio not kept, PIL's
            antialiased bilinear filter.
        mask_resize: how masks reach the square: torch's legacy nearest, index floor(i * in / out)
            in float32.
        iou_at: IoU at the query's `original` size (logits resized bilinearly, then argmax), or at
            the method's `input` square.
        query_ignore: pixels labelled 255 in the query are `excluded`, or counted as `background`.
        support_ignore: pixels labelled 255 in supports are `excluded` from both foreground and
            background, or counted as `background`.
        annotation: what is known of a support: its `mask` (nearly all published code), the bounding
            `box` of its largest object or a `scribble` on and off the class (both PANet's
            ablation), or a few `points` on and off it (co-FCN, guided networks). The rest is
            unlabelled, 255. See `fss_bench.annotations`.
        annotation_points: points on the class, and as many off it, for `annotation="points"`.
        kshot: how K supports make one prediction: the method's own rule.
        fold_scheme: COCO-20i only: `interleaved` (i+1, i+5, …) or `contiguous` (20i+1 … 20i+20).
        coco_overlap: pixels of several instances: the `later` annotation in the file wins, the
            `smaller` instance wins, or they belong to `both` classes.
        coco_crowd: crowd regions not covered by an instance are `ignore`d (255), belong to their
            class (`include`), or are `background`.
        base_images: training images that contain a novel class: `drop`ped (BAM), or kept with it as
            `background` (HSNet, PFENet).
    """

    name: str
    order: Literal["balanced", "hsnet"] = "balanced"
    episodes: int = 1000
    min_pixels: int = 2048
    short_classes: Literal["error", "skip"] = "error"
    empty_class: Literal["skip", "zero"] = "skip"
    image_resize: Literal["warp-pil-bilinear"] = "warp-pil-bilinear"
    mask_resize: Literal["nearest"] = "nearest"
    iou_at: Literal["original", "input"] = "original"
    query_ignore: Literal["excluded", "background"] = "excluded"
    support_ignore: Literal["excluded", "background"] = "excluded"
    annotation: Literal["mask", "box", "scribble", "points"] = "mask"
    annotation_points: int = 5
    kshot: Literal["method"] = "method"
    fold_scheme: Literal["interleaved", "contiguous"] = "interleaved"
    coco_overlap: Literal["later", "smaller", "both"] = "later"
    coco_crowd: Literal["ignore", "include", "background"] = "ignore"
    base_images: Literal["drop", "background"] = "drop"

    def replace_rules(self, rules: Mapping[str, Any]) -> "EvaluationProtocol":
        """A copy with some rules changed.

        Raises:
            FssBenchError: an unknown rule (the nearest is suggested) or a value it does not have.
        """
        hints = get_type_hints(EvaluationProtocol)
        known = {f.name for f in fields(self)} - {"name"}
        checked: dict[str, Any] = {}
        for rule, value in rules.items():
            if rule not in known:
                raise UnknownNameError("protocol rule", rule, known)
            checked[rule] = _parse(rule, value, hints[rule])
        return replace(self, **checked)

    @property
    def label(self) -> str:
        """The name and the rules that differ from the named protocol: `standard+episodes=200`.

        A protocol of your own is compared with the defaults.
        """
        origin = asdict(PROTOCOLS.get(self.name, EvaluationProtocol(self.name)))
        changed = {k: v for k, v in asdict(self).items() if v != origin[k]}
        return "+".join([self.name, *(f"{k}={v}" for k, v in sorted(changed.items()))])


def _parse(rule: str, value: Any, kind: Any) -> Any:
    if kind is int:
        number = _whole(value)
        if number is None:
            raise FssBenchError(f"rule {rule}={value!r}: it must be a whole number")
        if number < 1:
            raise FssBenchError(f"rule {rule}={number}: it must be 1 or more")
        return number
    if value not in get_args(kind):
        raise FssBenchError(f"rule {rule}={value!r}: it must be one of {', '.join(get_args(kind))}")
    return value


def _whole(value: Any) -> int | None:
    """The number, or None for anything that `int` would have to cut or cannot take."""
    try:
        number = int(value)
        return None if isinstance(value, bool) or number != float(value) else number
    except (ValueError, TypeError, OverflowError):
        return None


PROTOCOLS: dict[str, EvaluationProtocol] = {
    "standard": EvaluationProtocol("standard"),
    "hsnet": EvaluationProtocol(
        "hsnet",
        order="hsnet",
        empty_class="zero",
        iou_at="input",
        support_ignore="background",
        base_images="background",
    ),
}
SUMMARIES = {
    "standard": "ours: balanced classes, distinct supports, IoU at the original size, 255 excluded",
    "hsnet": "HSNet, DCAMA, VAT, Matcher: the published order and lists, IoU at the input square",
}


ANNOTATIONS: tuple[str, ...] = get_args(get_type_hints(EvaluationProtocol)["annotation"])


def get_protocol(protocol: str | EvaluationProtocol) -> EvaluationProtocol:
    """A named protocol, or an EvaluationProtocol whose values are checked.

    Raises:
        UnknownNameError: no protocol of that name.
        FssBenchError: a rule of the EvaluationProtocol has a value that does not exist.
    """
    if isinstance(protocol, EvaluationProtocol):
        return protocol.replace_rules({k: v for k, v in asdict(protocol).items() if k != "name"})
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol]
