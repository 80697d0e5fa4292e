"""BYOL as lucidrains' byol-pytorch trains it; the backbone is there twice."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, WeightLayout, at_places

PLACES = ("", "state_dict", "model")

LAYOUT = WeightLayout(
    "BYOL of byol-pytorch",
    "https://github.com/lucidrains/byol-pytorch",
    encoders=(
        *at_places(QUERY, PLACES, "online_encoder.net."),
        *at_places(QUERY, PLACES, "net."),
        *at_places(MOMENTUM, PLACES, "target_encoder.net."),
    ),
    marks=(r"(state_dict|model)?/online_encoder\.net\..*",),
    heads={r"(fc|head)\..*": HEAD},
    others={
        r"[^/]*/(online|target)_encoder\.projector\..*|[^/]*/online_predictor\..*": HEAD,
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
