"""A backbone that OpenSelfSup extracted: DenseCL's released files and others."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "a backbone extracted by OpenSelfSup, such as DenseCL's",
    "https://github.com/WXinlong/DenseCL",
    encoders=(Encoder(QUERY, "state_dict/"),),
    marks=("state_dict/conv1.weight", "author"),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
