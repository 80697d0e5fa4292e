"""The backbone of a lightly module saved alone: torchvision's ResNet in sequence, by number."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.resnet_files import from_sequence
from fss_bench.weight_layout import QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "a ResNet of lightly, alone",
    "https://github.com/lightly-ai/lightly",
    encoders=(Encoder(QUERY, "/"),),
    marks=(r"/0\.weight", r"/4\.0\.conv1\.weight"),
    trunk=from_sequence,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
