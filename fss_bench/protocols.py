"""The evaluation protocol: every rule that must be equal for two numbers to compare.

Under each rule stands which published code has which value, and where that was read: `code` is the
released source of the method named, `#25` an issue of its repository. The repositories are listed
in docs/protocol-comparison.md.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.results import fingerprint

LARGEST_SEED = 2**32 - 1
"""That NumPy's legacy generator takes."""
LONGEST_LABEL = 120
"""Characters: a label is the name of a folder."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """Every rule of an evaluation. Frozen; `replace_rules` makes variants."""

    name: str
    """The named protocol it started from."""

    order: Literal["balanced", "hsnet", "pfenet", "panet", "oslsm", "revolver"] = "balanced"
    """Where the sequence of episodes comes from.

    `balanced`: `EpisodeSampler`, a pure function of seed, fold and number. `hsnet`: NumPy's legacy
    stream over the official lists, exact (HSNet, DCAMA, VAT, Matcher, GF-SAM, INSID3: code).
    `pfenet`: images in list order, cyclic; the published draws of class and supports depend on the
    number of workers, so they hash the seed here (PFENet, BAM, MSANet, HDMNet: code). `panet`:
    random classes; the published draws depend on the order of a folder, so they hash the seed
    (PANet: code). `oslsm`: shuffles of Python 2 over `random.Random(1385)` (OSLSM, SG-One: code).
    `revolver`: every pair of image and class once (guided networks: code).
    """

    class_draw: Literal["turns", "uniform", "pairs", "image", "lists"] = "turns"
    """How query and class of an episode are found.

    `turns`: classes take turns, the queries of each walk all its images. `uniform`: a random class,
    then a random image of it (PANet, FSSDINO: code). `pairs`: the (image, class) pairs one after
    the other (OSLSM, revolver: code). `image`: images one after the other, then one of the novel
    classes in it (PFENet, BAM, MSANet, HDMNet, SCCAN: code). `lists`: as HSNet's lists have it,
    `pairs` on PASCAL and `uniform` on COCO (HSNet, DCAMA, VAT, Matcher, GF-SAM: code).
    """

    support_draw: Literal["distinct", "repeat"] = "distinct"
    """Whether the K supports of a way may repeat: `distinct` (OSLSM, PANet, PFENet, BAM, SSP: code)
    or `repeat` (HSNet and all that share its loader; revolver: code)."""

    support_query: Literal["never", "possible"] = "never"
    """Whether a support may be the query itself: `never`, and `possible` in revolver alone
    (code)."""

    test_split: Literal["test", "train"] = "test"
    """Images that test episodes are made of: `train` is the pool that PANet as released draws from,
    `trainaug` and `train2014` (code; PFENet #27); `test` in all others."""

    episodes: int = 1000
    """Episodes a fold and run; 0 is every pair of image and class once (revolver: code). 1,000 in
    OSLSM, PANet, HSNet, BAM; 5,001 in PFENet, whose loop ends one late (code)."""

    coco_episodes: int | None = None
    """Episodes on COCO-20i where they differ: 20,001 in PFENet, 10,000 in HDMNet, 4,000 in SCCAN
    and SSP (code). None: as `episodes`."""

    runs: int = 1
    """Repetitions with other seeds, reported as mean and standard deviation and never as their
    best: 5 in PANet, BAM, MSANet and SSP, 10 in HDMNet (code; BAM prints the best as well)."""

    seeds: tuple[int, ...] = ()
    """Seeds of the runs: 0 in HSNet, 321 in PFENet, 510, 365, 382, 322 and 988 in BAM (NumPy's seed
    123 draws them), 1234 and on in PANet, 1385 in OSLSM, 1337 in revolver (code). Empty: `--seed`
    and the numbers after it."""

    min_pixels: int = 2048
    """An image qualifies for a class that covers this many of its pixels: 2,048 = 2 * 32 * 32 in
    PFENet, BAM, SSP and in HSNet's COCO lists; 1 in PANet, OSLSM and revolver (code). HSNet's
    PASCAL lists were filtered at 1/32 of the size: there the list decides."""

    min_pixels_of: Literal["class", "image"] = "class"
    """What `min_pixels` is asked of in a query: of the episode's `class`, or of any novel class of
    the `image`, so that the class drawn may be smaller (PFENet, BAM, MSANet: code). Supports always
    show their class at this size."""

    short_classes: Literal["error", "skip"] = "error"
    """A class with too few qualifying images for K shots is an `error`, or `skip`ped. Does not
    occur on the full datasets of any paper."""

    image_resize: Literal["warp", "pad", "native"] = "warp"
    """How an image reaches the method's input square of side S.

    `warp`: to S x S, aspect ratio not kept (HSNet, DCAMA, VAT, PANet, Matcher: code). `pad`: its
    longer side to S, both sides rounded down to multiples of 8, in the top left of a square of
    black, 0 before normalisation (PFENet, BAM, MSANet: code; RePRI pads too). `native`: not resized
    (SG-One, revolver, SSP: code); here in the top left of a black square that holds every image of
    the dataset, its side a multiple of 32, so that images can share a batch.
    """

    image_filter: Literal["pil-bilinear", "opencv-bilinear"] = "pil-bilinear"
    """Interpolation of images: `pil-bilinear`, which averages when it shrinks (HSNet, DCAMA, PANet:
    code), or `opencv-bilinear` on float pixels, which does not (PFENet, BAM, MSANet: code)."""

    mask_resize: Literal["nearest", "nearest-pil", "nearest-opencv"] = "nearest"
    """Interpolation of masks: `nearest`, torch's legacy one, source index floor(i * in / out) in
    float32 (HSNet, DCAMA, VAT: code); `nearest-pil`, Pillow's, which takes the pixel at the centre
    (PANet: code); `nearest-opencv`, OpenCV's, like torch's but in double, so that a few indices
    differ (PFENet, BAM, MSANet: code)."""

    support_ignore: Literal["excluded", "background"] = "excluded"
    """Pixels labelled 255 in supports: `excluded` from both foreground and background (PFENet, BAM:
    code), or `background` (HSNet, DCAMA, PANet, SG-One, OSLSM: code)."""

    support_others: Literal["background", "excluded"] = "background"
    """Pixels of the episode's other classes in a support of several ways: `background`, or
    `excluded` from it (PANet: code)."""

    annotation: Literal["mask", "box", "scribble", "points"] = "mask"
    """What is known of a support: its `mask` (nearly all), the bounding `box` of its largest object
    or a `scribble` (PANet's ablation: paper, section 4.4), or a few `points` (co-FCN, guided
    networks: papers). See `fss_bench.annotations`."""

    annotation_points: int = 5
    """Points on the class, and as many off it, for `annotation="points"` (any number in co-FCN and
    guided networks: papers)."""

    kshot: Literal["method", "vote", "or", "mean"] = "method"
    """How K supports make one prediction.

    `method`: by the method's own rule (mean prototype in PANet and PFENet, attention over all
    supports in DCAMA, learned weights in BAM and MSANet: code). The others segment with one support
    at a time: `vote`: a pixel is foreground with half as many votes as the pixel of its image that
    has most, each of several ways on its own (HSNet, VAT: code); `or`: with one vote, which is
    OSLSM's maximum of logits (OSLSM, SG-One's second script: code); `mean`: by the mean of the
    logits.
    """

    logits_resize: Literal["bilinear", "bilinear-corners"] = "bilinear"
    """Interpolation of logits to where IoU is computed: `bilinear`, corners not aligned (PANet,
    SG-One: code), or `bilinear-corners`, aligned (PFENet, BAM, MSANet, HSNet at original size:
    code)."""

    iou_at: Literal["original", "input"] = "original"
    """Resolution of the IoU: the query's `original` one (PFENet, BAM, MSANet, SG-One, revolver,
    INSID3, MSDNet: code), or the method's `input` (HSNet, DCAMA, VAT, PANet, Matcher: code; RePRI,
    without the pad). OSLSM's is 500 x 500 (code), which no rule here has."""

    query_ignore: Literal["excluded", "background"] = "excluded"
    """Pixels labelled 255 in the query: `excluded` (HSNet, PFENet and later, PANet, revolver:
    code), or counted as `background` (OSLSM, SG-One, CANet: code)."""

    vanished: Literal["counted", "dropped"] = "counted"
    """A way whose class has no pixel left in the query once its mask is resized: its false
    positives are `counted` (HSNet: code), or it is `dropped` with them (PANet: code)."""

    empty_class: Literal["skip", "zero", "clamp"] = "skip"
    """A class of the fold without an episode or pixel: `skip`ped in the mean (RePRI, SSP, PANet:
    code), counted as `zero` (PFENet, BAM, through a small term below the line: code), or with its
    union `clamp`ed to one pixel, which gives 0 too (HSNet, DCAMA, VAT: code)."""

    fb_iou: Literal["fold", "all-folds", "class-mean", "foreground"] = "fold"
    """What is reported as FB-IoU. `fold`: the mean of foreground and background IoU, pooled over a
    fold's episodes (HSNet, PFENet, PANet: code). `all-folds`: pooled over those of all folds
    (SG-One: code). `class-mean`: the mean of mean class IoU and background IoU (FSSDINO: code).
    `foreground`: its IoU alone ("positive IoU", revolver: code)."""

    fold_scheme: Literal["interleaved", "contiguous"] = "interleaved"
    """Folds of COCO-20i: `interleaved`, i+1, i+5, … (HSNet, PFENet's configuration, BAM and nearly
    all since), or `contiguous`, 20i+1 … 20i+20 (PANet, SSP's own rows, PFENet without
    `use_split_coco`: code)."""

    coco_overlap: Literal["later", "smaller", "both"] = "later"
    """Pixels of several COCO instances: the `later` annotation in the file wins (HSNet's and
    PFENet's masks), the `smaller` instance wins, or they belong to `both` classes (PANet: code)."""

    coco_crowd: Literal["ignore", "include", "background"] = "ignore"
    """COCO crowd regions outside all instances: `ignore`d as 255; `include`d in their class (PANet:
    code); or `background` (the masks of PFENet, BAM and RePRI, whose scripts skip them: code)."""

    base_images: Literal["drop", "background", "ignore"] = "drop"
    """Training images that hold a novel class: `drop`ped (BAM, MSANet, HDMNet, SCCAN: code), or
    kept with novel objects as `background` (OSLSM, PANet, PFENet, HSNet, DCAMA: code), or with them
    as 255, `ignore` (RePRI: code). Says what a method was trained on; `base_episodes` applies
    it."""

    train_ignore: Literal["method", "excluded", "background", "foreground"] = "method"
    """Pixels labelled 255 in training queries: as the `method` has it (`Method.void`), `excluded`
    from the loss (PANet, PFENet, BAM, revolver: code), `background` (HSNet, DCAMA: code) or
    `foreground` (SG-One: code)."""

    def replace_rules(self, rules: Mapping[str, Any]) -> "EvaluationProtocol":
        """A copy with some rules changed.

        Fewer `runs` keep the first `seeds`, and another number of `seeds` is as many `runs`.

        Raises:
            FssBenchError: an unknown rule (the nearest is suggested), a value it does not have, or
                rules that do not go together.
        """
        hints = get_type_hints(EvaluationProtocol)
        known = {f.name for f in fields(self)} - {"name"}
        checked: dict[str, Any] = {}
        for rule, value in rules.items():
            if rule not in known:
                raise UnknownNameError("protocol rule", rule, known)
            checked[rule] = _parse(rule, value, hints[rule])
        if "runs" in checked and "seeds" not in checked and self.seeds:
            checked["seeds"] = self.seeds[: checked["runs"]]
        elif checked.get("seeds") and "runs" not in checked:
            checked["runs"] = len(checked["seeds"])
        changed = replace(self, **checked)
        _check_together(changed)
        return changed

    @property
    def rules(self) -> dict[str, Any]:
        """Every rule with its value: all but the name."""
        return {rule: value for rule, value in asdict(self).items() if rule != "name"}

    @property
    def record(self) -> dict[str, Any]:
        """The protocol as a run keeps it: name, every rule, label; all as JSON has them."""
        rules = {k: list(v) if isinstance(v, tuple) else v for k, v in self.rules.items()}
        return {"name": self.name, **rules, "label": self.label}

    @property
    def changes(self) -> dict[str, Any]:
        """Rules that differ from the named protocol's; for one of your own, from `standard`'s."""
        origin = PROTOCOLS.get(self.name, EvaluationProtocol(self.name)).rules
        return {rule: value for rule, value in self.rules.items() if value != origin[rule]}

    @property
    def label(self) -> str:
        """The name and the rules that differ from the named protocol: `standard+episodes=200`.

        A protocol of your own is compared with the defaults. Where that is too long for the name of
        a folder, it is the number of the changes and a digest of them.
        """
        changes = sorted(self.changes.items())
        label = "+".join([self.name, *(f"{rule}={shown(value)}" for rule, value in changes)])
        if len(label) <= LONGEST_LABEL:
            return label
        return f"{self.name}+{len(changes)}-rules-{fingerprint(changes)[:8]}"


ORDER_RULES: dict[str, dict[str, tuple[str | int, ...]]] = {
    "hsnet": {  # its lists decide
        "class_draw": ("lists",),
        "support_query": ("never",),
        "test_split": ("test",),
        "min_pixels": (2048,),
        "short_classes": ("error",),
    },
    "pfenet": {"class_draw": ("image",)},
    "panet": {"class_draw": ("uniform",)},
    "oslsm": {
        "class_draw": ("pairs",),
        "support_draw": ("distinct",),
        "support_query": ("never",),
    },
    "revolver": {"class_draw": ("pairs",)},
}
"""Published order -> the values that other rules have in it."""


def _check_together(protocol: EvaluationProtocol) -> None:
    for rule, values in ORDER_RULES.get(protocol.order, {}).items():
        if getattr(protocol, rule) not in values:
            raise FssBenchError(
                f"rule {rule}={getattr(protocol, rule)}: order {protocol.order} has "
                f"{rule}={values[0]}: change that too, or take another order"
            )
    if protocol.class_draw == "lists" and protocol.order != "hsnet":
        raise FssBenchError(
            f"rule class_draw=lists: it goes with order=hsnet, this is {protocol.order}"
        )
    if len(set(protocol.seeds)) < len(protocol.seeds):
        raise FssBenchError(
            f"rule seeds={shown(protocol.seeds)}: a seed is there twice: every run needs its own"
        )
    if protocol.seeds and len(protocol.seeds) != protocol.runs:
        raise FssBenchError(
            f"rule runs={protocol.runs}: there are {len(protocol.seeds)} seeds "
            f"({shown(protocol.seeds)}): give as many, as in --rule seeds=1-2"
        )
    if protocol.episodes == 0 and protocol.order != "revolver":
        raise FssBenchError(
            f"rule episodes=0: it must be 1 or more (order revolver alone has an end, this is "
            f"{protocol.order})"
        )
    if protocol.min_pixels_of == "image" and protocol.class_draw != "image":
        raise FssBenchError(
            f"rule min_pixels_of=image: classes are drawn by {protocol.class_draw}: it goes with "
            "class_draw=image"
        )


def _parse(rule: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        parts = re.split(r"[-,\s]+", value.strip("[]() ")) if isinstance(value, str) else value
        parts = parts if isinstance(parts, list | tuple) else [parts]
        return tuple(
            _number(rule, part, 0, LARGEST_SEED) for part in parts if part not in ("", "none")
        )
    if kind is int:
        return _number(rule, value, 0 if rule == "episodes" else 1)
    if kind == int | None:
        return None if value in (None, "none") else _number(rule, value, 1)
    if value not in get_args(kind):
        raise FssBenchError(f"rule {rule}={value!r}: it must be one of {', '.join(get_args(kind))}")
    return value


def _number(rule: str, value: Any, least: int, most: int | None = None) -> int:
    number = _whole(value)
    if number is None:
        raise FssBenchError(f"rule {rule}={value!r}: it must be a whole number")
    if number < least:
        lowest = 1 if rule == "episodes" else least  # 0 episodes are for one order alone
        raise FssBenchError(f"rule {rule}={number}: it must be {lowest} or more")
    if most is not None and number > most:
        raise FssBenchError(f"rule {rule}={number}: it must be {most} or less")
    return number


def _whole(value: Any) -> int | None:
    """The number, or None for anything that `int` would have to cut or cannot take."""
    try:
        number = int(value)
        return None if isinstance(value, bool) or number != float(value) else number
    except (ValueError, TypeError, OverflowError):
        return None


def shown(value: Any) -> str:
    """A rule's value as `replace_rules` takes it, without comma or slash: labels have it so."""
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    return str(value).lower()


_HSNET = EvaluationProtocol(
    "hsnet",
    order="hsnet",
    class_draw="lists",
    support_draw="repeat",
    seeds=(0,),
    support_ignore="background",
    iou_at="input",
    empty_class="clamp",
    base_images="background",
    train_ignore="background",
)
_PFENET = EvaluationProtocol(
    "pfenet",
    order="pfenet",
    class_draw="image",
    episodes=5001,
    coco_episodes=20001,
    seeds=(321,),
    min_pixels_of="image",
    image_resize="pad",
    image_filter="opencv-bilinear",
    mask_resize="nearest-opencv",
    logits_resize="bilinear-corners",
    empty_class="zero",
    coco_crowd="background",
    base_images="background",
    train_ignore="excluded",
)
PROTOCOLS: dict[str, EvaluationProtocol] = {
    "standard": EvaluationProtocol("standard"),
    "hsnet": _HSNET,
    "hsnet-orig": replace(
        _HSNET, name="hsnet-orig", iou_at="original", logits_resize="bilinear-corners"
    ),
    "pfenet": _PFENET,
    "bam": replace(
        _PFENET,
        name="bam",
        episodes=1000,
        coco_episodes=None,
        runs=5,
        seeds=(510, 365, 382, 322, 988),
        base_images="drop",
    ),
    "panet": EvaluationProtocol(
        "panet",
        order="panet",
        class_draw="uniform",
        test_split="train",
        runs=5,
        seeds=(1234, 1235, 1236, 1237, 1238),
        min_pixels=1,
        mask_resize="nearest-pil",
        support_ignore="background",
        support_others="excluded",
        iou_at="input",
        vanished="dropped",
        fold_scheme="contiguous",
        coco_overlap="both",
        coco_crowd="include",
        base_images="background",
        train_ignore="excluded",
    ),
    "oslsm": EvaluationProtocol(
        "oslsm",
        order="oslsm",
        class_draw="pairs",
        seeds=(1385,),
        min_pixels=1,
        image_resize="native",
        support_ignore="background",
        query_ignore="background",
        fb_iou="all-folds",
        base_images="background",
        train_ignore="foreground",
    ),
    "revolver": EvaluationProtocol(
        "revolver",
        order="revolver",
        class_draw="pairs",
        support_draw="repeat",
        support_query="possible",
        episodes=0,
        seeds=(1337,),
        min_pixels=1,
        image_resize="native",
        fb_iou="foreground",
        base_images="background",
        train_ignore="excluded",
    ),
}
SUMMARIES = {
    "standard": "ours: balanced classes, distinct supports, IoU at the original size, 255 excluded",
    "hsnet": "HSNet, DCAMA, VAT, Matcher: the published order and lists, IoU at the input square",
    "hsnet-orig": "INSID3, MSDNet: as hsnet, IoU at the original size",
    "pfenet": "PFENet, CyCTR: class drawn by image, aspect ratio kept, 5,001 episodes",
    "bam": "BAM, MSANet: as pfenet with 5 seeds of 1,000, novel images out of training",
    "panet": "PANet as released: 5 runs over the training images, contiguous COCO folds",
    "oslsm": "SG-One, on OSLSM's episodes: Python 2's shuffles of seed 1385, 255 as background",
    "revolver": "guided networks: every pair of image and class once, a support may be the query",
}

ANNOTATIONS: tuple[str, ...] = get_args(get_type_hints(EvaluationProtocol)["annotation"])


def get_protocol(protocol: str | EvaluationProtocol) -> EvaluationProtocol:
    """A named protocol, one with changed rules, or an EvaluationProtocol whose values are checked.

    Args:
        protocol: a name; a name with rules, as a label shows it (`standard+episodes=200`); the path
            of a TOML file (see `fss_bench.protocol_files`); or a protocol of your own.

    Raises:
        UnknownNameError: no protocol of that name, or no such rule.
        FssBenchError: a rule has a value that does not exist, or the file cannot be used.
    """
    if isinstance(protocol, EvaluationProtocol):
        check_name(protocol.name)
        return protocol.replace_rules(protocol.rules)
    name, *changes = [protocol] if protocol.endswith(".toml") else protocol.split("+")
    if name.endswith(".toml"):
        from fss_bench.protocol_files import read_protocol

        found = read_protocol(name)
    elif name in PROTOCOLS:
        found = PROTOCOLS[name]
    else:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    if any("=" not in change for change in changes):
        raise FssBenchError(
            f"protocol {protocol!r}: after the name come rules, as in {name}+iou_at=input (a label "
            "with `-rules-` stands for many: give the file it came from)"
        )
    return found.replace_rules(dict(c.split("=", 1) for c in changes)) if changes else found


def check_name(name: object) -> None:
    """Raise FssBenchError unless a protocol's name can be that of a folder."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,39}", name):
        raise FssBenchError(
            f"protocol name {name!r} must be 1 to 40 letters, digits, dots, dashes or underscores"
        )
