"""BYOL as OpenSelfSup and the first mmselfsup train it: pairs of backbone and neck."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "BYOL of OpenSelfSup",
    "https://github.com/open-mmlab/OpenSelfSup",
    encoders=(
        Encoder(QUERY, "state_dict/online_net.0."),
        Encoder(QUERY, "state_dict/backbone."),
        Encoder(MOMENTUM, "state_dict/target_net.0."),
    ),
    marks=(r"state_dict/online_net\.0\.conv1\.weight",),
    others={r"state_dict/((online|target)_net\.1|neck|head)\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
