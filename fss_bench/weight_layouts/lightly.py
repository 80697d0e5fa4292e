"""A ResNet trained by a lightly module: torchvision's network without its classifier, in sequence.

Its module says `backbone` and `backbone_momentum`, that of DINO `student_` and `teacher_backbone`.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.lightly_files import OTHERS, has_plain_backbone
from fss_bench.resnet_files import from_sequence
from fss_bench.weight_layout import MOMENTUM, QUERY, WeightLayout, at_places

PLACES = ("state_dict", "")

LAYOUT = WeightLayout(
    "a ResNet of lightly",
    "https://github.com/lightly-ai/lightly",
    encoders=(
        *at_places(MOMENTUM, PLACES, "teacher_backbone."),
        *at_places(QUERY, PLACES, "student_backbone."),
        *at_places(QUERY, PLACES, "backbone."),
        *at_places(MOMENTUM, PLACES, "backbone_momentum."),
    ),
    marks=(r"(state_dict)?/(student_|teacher_)?backbone\.0\.weight",),
    where=has_plain_backbone,
    others=OTHERS,
    trunk=from_sequence,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
