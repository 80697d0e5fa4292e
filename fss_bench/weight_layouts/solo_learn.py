"""A ResNet trained by solo-learn. da Costa et al., JMLR 2022."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "a ResNet of solo-learn",
    "https://github.com/vturrisi/solo-learn",
    encoders=(
        Encoder(QUERY, "state_dict/backbone."),
        Encoder(QUERY, "state_dict/encoder."),
        Encoder(MOMENTUM, "state_dict/momentum_backbone."),
        Encoder(MOMENTUM, "state_dict/momentum_encoder."),
    ),
    marks=(r"state_dict/(backbone|encoder)\.conv1\.weight",),
    lacks=(
        "meta",
        r"state_dict/(base_encoder|encoder_k|online_classifier)\..*",
        r"state_dict/(student|query|teacher)_backbone\..*",
    ),
    heads={r"fc\..*": HEAD},
    others={r"state_dict/(?!(momentum_)?(backbone|encoder)\.).*": HEAD + ", loss or memory"},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
