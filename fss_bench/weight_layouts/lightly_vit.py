"""A vision transformer trained by a lightly module, which wraps timm's model as `backbone.vit`."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.lightly_files import has_plain_backbone
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

PLACES = ("state_dict", "")

LAYOUT = WeightLayout(
    "a vision transformer of lightly",
    "https://github.com/lightly-ai/lightly",
    encoders=(
        *(Encoder(MOMENTUM, f"{place}/teacher_backbone.vit.") for place in PLACES),
        *(Encoder(QUERY, f"{place}/student_backbone.vit.") for place in PLACES),
        *(Encoder(QUERY, f"{place}/backbone.vit.") for place in PLACES),
        *(Encoder(MOMENTUM, f"{place}/backbone_momentum.vit.") for place in PLACES),
    ),
    marks=(r"(state_dict)?/(student_|teacher_)?backbone\.vit\.cls_token",),
    where=has_plain_backbone,
    heads={r"(head|fc)\..*": HEAD},
    others={
        r"[^/]*/[a-z_]*backbone(_momentum)?\.mask_token": "the token of masked patches",
        r"[^/]*/(?!(student_|teacher_)?backbone).*": HEAD + ", loss or memory",
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
