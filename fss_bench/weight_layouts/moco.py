"""MoCo v1 and v2. He et al., CVPR 2020; Chen et al., 2020, https://arxiv.org/abs/2003.04297."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "MoCo v1 or v2",
    "https://github.com/facebookresearch/moco",
    encoders=(
        Encoder(QUERY, "state_dict/encoder_q."),
        Encoder(MOMENTUM, "state_dict/encoder_k."),
    ),
    marks=(r"state_dict/encoder_q\.conv1\.weight",),
    heads={r"fc\..*": HEAD},
    others={r"state_dict/queue(_ptr)?": "the queue of keys"},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
