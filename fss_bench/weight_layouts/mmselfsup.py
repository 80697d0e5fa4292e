"""A ResNet trained by mmselfsup or mmpretrain; momentum encoders have names of their own.

https://github.com/open-mmlab/mmselfsup
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MEMORY, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "a ResNet of mmselfsup",
    "https://github.com/open-mmlab/mmselfsup",
    encoders=(
        Encoder(QUERY, "state_dict/backbone."),
        Encoder(MOMENTUM, "state_dict/target_net.module.0."),
        Encoder(MOMENTUM, "state_dict/encoder_k.module.0."),
    ),
    marks=("meta", r"state_dict/backbone\.conv1\.weight"),
    lacks=(r"state_dict/(encoder_q|online_net)\..*",),
    others={
        r"state_dict/(neck|head|(target_net|encoder_k)\.module\.1)\..*": HEAD,
        r"state_dict/(target_net|encoder_k)\.steps": "a counter",
        r"state_dict/((data_preprocessor|memory_bank)\..*|queue2?(_ptr)?)": MEMORY,
    },
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
