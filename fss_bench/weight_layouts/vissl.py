"""A ResNet's trunk trained by VISSL, as its model zoo has SimCLR, SwAV, NPID and others."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

PLACE = "classy_state_dict/base_model/model"

LAYOUT = WeightLayout(
    "a ResNet of VISSL",
    "https://github.com/facebookresearch/vissl",
    encoders=(Encoder(QUERY, f"{PLACE}/trunk/_feature_blocks."),),
    marks=(rf"{PLACE}/trunk/_feature_blocks\.conv1\.weight",),
    others={rf"{PLACE}/heads/.*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
