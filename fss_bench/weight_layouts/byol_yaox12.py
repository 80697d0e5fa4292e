"""BYOL as yaox12's BYOL-PyTorch trains it: the backbone is a sequence of torchvision's parts."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.resnet_files import from_sequence
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "BYOL of BYOL-PyTorch",
    "https://github.com/yaox12/BYOL-PyTorch",
    encoders=(
        Encoder(QUERY, "model/online_network.encoder."),
        Encoder(MOMENTUM, "model/target_network.encoder."),
    ),
    marks=(r"model/online_network\.encoder\.0\.weight",),
    others={r"model/((online|target)_network\.projetion|predictor)\..*": HEAD},
    trunk=from_sequence,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
