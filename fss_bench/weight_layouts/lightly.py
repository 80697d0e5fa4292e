"""A ResNet trained by a lightly module: torchvision's network without its classifier, in sequence.

Its module says `backbone` and `backbone_momentum`, that of DINO `student_` and `teacher_backbone`.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.lightly_files import has_plain_backbone
from fss_bench.resnet_files import from_sequence
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

PLACES = ("state_dict", "")

LAYOUT = WeightLayout(
    "a ResNet of lightly",
    "https://github.com/lightly-ai/lightly",
    encoders=(
        *(Encoder(MOMENTUM, f"{place}/teacher_backbone.") for place in PLACES),
        *(Encoder(QUERY, f"{place}/student_backbone.") for place in PLACES),
        *(Encoder(QUERY, f"{place}/backbone.") for place in PLACES),
        *(Encoder(MOMENTUM, f"{place}/backbone_momentum.") for place in PLACES),
    ),
    marks=(r"(state_dict)?/(student_|teacher_)?backbone\.0\.weight",),
    where=has_plain_backbone,
    others={r"[^/]*/(?!(student_|teacher_)?backbone).*": HEAD + ", loss or memory"},
    trunk=from_sequence,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
