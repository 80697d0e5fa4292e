"""A lightly module whose `backbone` is the moving average, as its benchmarks of MoCo v2 and DINO.

ResNets are torchvision's, whole or in sequence; vision transformers timm's, as `backbone.vit`.
"""

from torch import Tensor

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.lightly_files import TRANSFORMERS_OTHERS
from fss_bench.resnet_files import from_sequence
from fss_bench.weight_layout import HEAD, MASK, MOMENTUM, QUERY, State, WeightLayout, at_places

PLACES = ("state_dict", "")


def _trunk(state: State) -> dict[str, Tensor]:
    found = {name.removeprefix("vit."): value for name, value in state.items()}
    return from_sequence(found) if "0.weight" in found else found


LAYOUT = WeightLayout(
    "lightly, with the moving average as backbone",
    "https://github.com/lightly-ai/lightly/tree/master/benchmarks/imagenet",
    encoders=(
        *at_places(MOMENTUM, PLACES, "backbone."),
        *at_places(QUERY, PLACES, "student_backbone."),
        *at_places(QUERY, PLACES, "query_backbone."),
    ),
    marks=(r"(state_dict)?/backbone\..*", r"(state_dict)?/(student|query)_backbone\..*"),
    lacks=(r"(state_dict)?/teacher_backbone\..*",),
    heads={r"(vit\.head|fc)\..*": HEAD, "mask_token": MASK},
    others=TRANSFORMERS_OTHERS,
    trunk=_trunk,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
