"""SimSiam. Chen and He, CVPR 2021, https://arxiv.org/abs/2011.10566. Its projector is in `fc`."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "SimSiam",
    "https://github.com/facebookresearch/simsiam",
    encoders=(Encoder(QUERY, "state_dict/encoder."),),
    marks=(
        r"state_dict/encoder\.conv1\.weight",
        r"state_dict/encoder\.fc\.6\.weight",
        r"state_dict/predictor\.0\.weight",
    ),
    heads={r"fc\..*": HEAD},
    others={r"state_dict/predictor\.[013]\..*": HEAD},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
