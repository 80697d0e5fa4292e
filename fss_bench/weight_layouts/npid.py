"""NPID (instance discrimination). Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978.

Its files pickle a module under `lemniscate`: the tensors come out by
`fss-bench convert --old-pickle`.
"""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "NPID",
    "https://github.com/zhirongw/lemniscate.pytorch",
    encoders=(Encoder(QUERY, "state_dict/"),),
    marks=("state_dict/conv1.weight", "lemniscate"),
    heads={r"fc\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
