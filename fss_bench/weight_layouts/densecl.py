"""DenseCL and MoCo trained by OpenSelfSup or mmselfsup. Wang et al., CVPR 2021, arXiv 2011.09157.

Encoders are pairs of backbone and neck; `backbone` is the query encoder's second name.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "DenseCL, or MoCo of OpenSelfSup and mmselfsup",
    "https://github.com/WXinlong/DenseCL",
    encoders=(
        Encoder(QUERY, "state_dict/encoder_q.0."),
        Encoder(QUERY, "state_dict/backbone."),
        Encoder(MOMENTUM, "state_dict/encoder_k.0."),
    ),
    marks=(r"state_dict/encoder_q\.0\.conv1\.weight",),
    others={
        r"state_dict/(encoder_[qk]\.1|neck|head)\..*": HEAD,
        r"state_dict/queue2?(_ptr)?": "the queues of keys",
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
