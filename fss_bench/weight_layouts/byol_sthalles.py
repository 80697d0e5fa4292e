"""BYOL as sthalles' PyTorch-BYOL trains it: the backbone is a sequence of torchvision's parts."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.resnet_files import from_sequence
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "BYOL of PyTorch-BYOL",
    "https://github.com/sthalles/PyTorch-BYOL",
    encoders=(
        Encoder(QUERY, "online_network_state_dict/encoder."),
        Encoder(MOMENTUM, "target_network_state_dict/encoder."),
    ),
    marks=(r"online_network_state_dict/encoder\.0\.weight",),
    others={r"(online|target)_network_state_dict/projetion\..*": HEAD},
    trunk=from_sequence,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
