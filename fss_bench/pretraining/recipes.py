"""What a paper fixes about a pretraining run, one recipe a method and version.

Under each field stands what it is; beside each number of `RECIPES` where it was read: `paper` and
its section, or `code`, the release of the paper's authors. No torch here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.options import construct
from fss_bench.pretraining.recipe_options import check_used, complaint, read_shares


@dataclass(frozen=True)
class Recipe:
    """Every number of a pretraining run. Frozen; `replace_options` makes variants."""

    method: str
    """`moco`, `simclr` or `npid`."""

    version: int
    """Of the method: MoCo has 1, 2 and 3."""

    epochs: int
    """Passes over the images."""

    batch_size: int
    """Images of one forward over all processes."""

    image_size: int
    """Side of a view, px."""

    optimiser: Literal["sgd", "lars", "adamw"]
    """What takes the steps."""

    lr: float
    """Learning rate for `lr_batch` images a step; it grows in proportion to them."""

    weight_decay: float
    """Of the parameters that `decay` names."""

    schedule: Literal["steps", "cosine"]
    """Whether the learning rate falls in `decay_at` steps or along half a cosine."""

    temperature: float
    """That logits are divided by."""

    dim: int
    """Length of an embedding."""

    lr_batch: int = 256
    """Images a step that `lr` is for."""

    sgd_momentum: float = 0.9
    """Of sgd and lars."""

    decay: Literal["all", "matrices"] = "all"
    """Parameters that decay: `all`, or those with more than one dimension (`matrices`: neither
    biases nor batch norm; lars does not rescale the others either)."""

    lars_trust: float = 0.001
    """Trust coefficient of lars."""

    lars_lr: Literal["outside", "inside"] = "outside"
    """Whether the momentum of lars gathers steps without the learning rate or with it."""

    schedule_by: Literal["epoch", "step"] = "step"
    """Whether the cosine moves every epoch or every step."""

    decay_at: tuple[float, ...] = ()
    """Shares of the epochs at which `steps` multiplies the learning rate by `decay_factor`."""

    decay_factor: float = 0.1
    """See `decay_at`."""

    warmup_epochs: float = 0.0
    """Epochs of linear growth from 0, before the schedule."""

    queue_size: int = 0
    """Keys in the queue of MoCo v1 and v2; a multiple of the batch, at most the images."""

    momentum: float = 0.0
    """Share that the momentum encoder keeps in a step; 0 where there is none."""

    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """Whether `momentum` stays, or rises to 1 along half a cosine."""

    bn_groups: int = 0
    """Equal parts of a process's batch that the batch norm of MoCo v1 and v2 sees on their own, the
    keys in a shuffled order. 0: 8, 4 or 2, the most that leaves 4 images each; 1 where there are
    several processes. The papers have 8 GPUs of 32 images."""

    negatives: int = 0
    """Images drawn as negatives from the memory bank of NPID."""

    memory_momentum: float = 0.0
    """Share that an entry of NPID's memory bank keeps when its image is seen."""

    hidden: int = 0
    """Width of the hidden layers of the MLP heads; 0 is the backbone's own."""

    crop_min: float = 0.2
    """Smallest share of the image's area that a crop takes; the largest is 1."""

    @property
    def label(self) -> str:
        """Such as `moco-v2`."""
        return f"{self.method}-v{self.version}"

    @property
    def record(self) -> dict[str, Any]:
        """Every field, as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def replace_options(self, options: Mapping[str, Any]) -> "Recipe":
        """A copy with some numbers changed.

        Raises:
            UnknownNameError: an option that recipes do not have; the nearest is suggested.
            FssBenchError: a value of another type, one that cannot be, or one of no use here.
        """
        given = dict(options)
        if "decay_at" in given:
            given["decay_at"] = read_shares(given["decay_at"])
        fixed = {"method": self.method, "version": self.version}
        own = {k: v for k, v in vars(self).items() if k not in fixed}
        changed = construct(Recipe, f"recipe {self.label}", fixed, {**own, **given})
        check_used(changed, options)
        _check(changed)
        return changed


_MOCO_V1 = Recipe(
    "moco",
    1,
    epochs=200,  # paper (He et al., CVPR 2020, arXiv 1911.05722), section 4
    batch_size=256,  # paper, section 4
    image_size=224,  # paper, section 3.3
    optimiser="sgd",  # paper, section 4
    lr=0.03,  # paper, section 4
    weight_decay=1e-4,  # paper, section 4; code: of all parameters
    schedule="steps",  # paper, section 4
    decay_at=(0.6, 0.8),  # paper, section 4: 120 and 160 of 200 epochs
    temperature=0.07,  # paper, section 3.3
    dim=128,  # paper, section 3.3
    queue_size=65536,  # paper, section 4.1
    momentum=0.999,  # paper, section 4.1
    crop_min=0.2,  # code
)

_MOCO_V2 = replace(
    _MOCO_V1,
    version=2,
    temperature=0.2,  # paper (Chen et al., 2020, arXiv 2003.04297), section 3
    schedule="cosine",  # paper, section 3
    schedule_by="epoch",  # code
    decay_at=(),
)

_MOCO_V3 = Recipe(
    "moco",
    3,
    epochs=100,  # paper (Chen et al., ICCV 2021, arXiv 2104.02057), table 1
    batch_size=4096,  # paper, section 4.1
    image_size=224,  # paper, appendix A
    optimiser="lars",  # paper, appendix A
    lr=0.6,  # code, for 100 epochs; 0.3 for 300 and 1000
    weight_decay=1e-6,  # code; 1.5e-6 for 1000 epochs
    decay="matrices",  # code
    schedule="cosine",  # paper, section 3
    warmup_epochs=10,  # code
    temperature=1.0,  # code
    dim=256,  # paper, section 3
    momentum=0.99,  # code; 0.996 for 1000 epochs
    momentum_schedule="cosine",  # code
    hidden=4096,  # paper, section 3
    crop_min=0.2,  # code
)

_MOCO_V3_VIT = replace(
    _MOCO_V3,
    epochs=300,  # paper, table 4
    optimiser="adamw",  # paper, section 4.4
    lr=1.5e-4,  # code
    weight_decay=0.1,  # code
    decay="all",  # code
    warmup_epochs=40,  # paper, section 4.4
    temperature=0.2,  # code
    crop_min=0.08,  # code
)

_SIMCLR = Recipe(
    "simclr",
    1,
    epochs=100,  # paper (Chen et al., ICML 2020, arXiv 2002.05709), section 2.2
    batch_size=4096,  # paper, section 2.2
    image_size=224,  # paper, appendix A
    optimiser="lars",  # paper, section 2.2
    lr=0.3,  # paper, section 2.2
    weight_decay=1e-6,  # paper, section 2.2
    decay="matrices",  # code
    lars_lr="inside",  # code
    schedule="cosine",  # paper, section 2.2
    warmup_epochs=10,  # paper, section 2.2
    temperature=0.1,  # paper, section 5.1; code
    dim=128,  # paper, section 2.2
    crop_min=0.08,  # paper, appendix A
)

_NPID = Recipe(
    "npid",
    1,
    epochs=200,  # paper (Wu et al., CVPR 2018, arXiv 1805.01978), section 4.2
    batch_size=256,  # paper, section 4.2
    image_size=224,  # code
    optimiser="sgd",  # paper, section 4.2
    lr=0.03,  # paper, section 4.2
    weight_decay=1e-4,  # code
    schedule="steps",  # paper, section 4.2
    decay_at=(0.6, 0.8),  # code: 120 and 160 of 200 epochs
    temperature=0.07,  # paper, section 4.2
    dim=128,  # paper, section 4.2
    negatives=4096,  # paper, section 4.2
    memory_momentum=0.5,  # code
    crop_min=0.2,  # code
)

RECIPES: dict[tuple[str, int], Recipe] = {
    ("moco", 1): _MOCO_V1,
    ("moco", 2): _MOCO_V2,
    ("moco", 3): _MOCO_V3,
    ("simclr", 1): _SIMCLR,
    ("npid", 1): _NPID,
}
"""Method and version -> its recipe; of MoCo v3 that for convolutional networks."""

VIT_RECIPES = {("moco", 3): _MOCO_V3_VIT}
"""Those that differ for vision transformers."""

DEFAULT_VERSIONS = {"moco": 2, "simclr": 1, "npid": 1}
"""Method -> the version that is meant where none is given."""


def recipe_for(method: str, version: int | None = None, vit: bool = False) -> Recipe:
    """The recipe of a method.

    Args:
        method: `moco`, `simclr` or `npid`.
        version: by default that of `DEFAULT_VERSIONS`.
        vit: whether the backbone is a vision transformer.

    Raises:
        UnknownNameError: no such method.
        FssBenchError: no such version of it.
    """
    if method not in DEFAULT_VERSIONS:
        raise UnknownNameError("pretraining method", method, DEFAULT_VERSIONS)
    key = method, DEFAULT_VERSIONS[method] if version is None else version
    if key not in RECIPES:
        known = ", ".join(str(v) for m, v in RECIPES if m == method)
        raise FssBenchError(f"--version {version}: {method} has {known}")
    return VIT_RECIPES.get(key, RECIPES[key]) if vit else RECIPES[key]


def _check(recipe: Recipe) -> None:
    """Raise FssBenchError for a number that cannot be; 0 stays allowed where a method has none."""
    own = VIT_RECIPES.get((recipe.method, recipe.version)), RECIPES[recipe.method, recipe.version]
    for name, kind in get_type_hints(Recipe).items():
        value = getattr(recipe, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            known = ", ".join(get_args(kind))
            raise FssBenchError(f"option {name}={value!r}: it must be one of {known}")
        unchanged = any(r is not None and getattr(r, name) == value for r in own)
        unchanged = unchanged and name != "warmup_epochs"  # whose bound is another number
        text = None if unchanged else complaint(recipe, name, value)
        if text is not None:
            raise FssBenchError(f"option {name}={value}: it must be {text}")
