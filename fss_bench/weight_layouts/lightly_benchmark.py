"""A torchvision ResNet trained by lightly's ImageNet benchmarks, whose checkpoints are public."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.lightly_files import OTHERS
from fss_bench.weight_layout import HEAD, MOMENTUM, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "a ResNet of lightly's benchmarks",
    "https://github.com/lightly-ai/lightly/tree/master/benchmarks/imagenet",
    encoders=(
        Encoder(QUERY, "state_dict/backbone."),
        Encoder(MOMENTUM, "state_dict/teacher_backbone."),
    ),
    marks=(r"state_dict/backbone\.conv1\.weight", r"state_dict/online_classifier\..*"),
    lacks=(r"state_dict/(student|query)_backbone\..*",),
    heads={r"fc\..*": HEAD},
    others=OTHERS,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
