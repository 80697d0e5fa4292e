"""BYOL as lucidrains' byol-pytorch trains it; the backbone is there twice."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

PLACES = ("", "state_dict", "model")

LAYOUT = WeightLayout(
    "BYOL of byol-pytorch",
    "https://github.com/lucidrains/byol-pytorch",
    encoders=(
        *(Encoder(QUERY, f"{place}/online_encoder.net.") for place in PLACES),
        *(Encoder(MOMENTUM, f"{place}/target_encoder.net.") for place in PLACES),
    ),
    marks=(r"(state_dict|model)?/online_encoder\.net\..*",),
    heads={r"(fc|head)\..*": HEAD},
    others={
        r"[^/]*/(online|target)_encoder\.projector\..*|[^/]*/online_predictor\..*": HEAD,
        r"[^/]*/net\..*": "the query encoder's second name",
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
