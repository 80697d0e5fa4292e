"""A vision transformer trained by a lightly module, which wraps timm's model as `backbone.vit`."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.lightly_files import TRANSFORMERS_OTHERS, has_plain_backbone
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, WeightLayout, at_places

PLACES = ("state_dict", "")

LAYOUT = WeightLayout(
    "a vision transformer of lightly",
    "https://github.com/lightly-ai/lightly",
    encoders=(
        *at_places(MOMENTUM, PLACES, "teacher_backbone.vit."),
        *at_places(QUERY, PLACES, "student_backbone.vit."),
        *at_places(QUERY, PLACES, "backbone.vit."),
        *at_places(MOMENTUM, PLACES, "backbone_momentum.vit."),
    ),
    marks=(r"(state_dict)?/(student_|teacher_)?backbone\.vit\.cls_token",),
    where=has_plain_backbone,
    heads={r"(head|fc)\..*": HEAD},
    others=TRANSFORMERS_OTHERS,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
