"""BYOL's official weights as byol-convert writes them. Grill et al., NeurIPS 2020.

https://arxiv.org/abs/2006.07733. Names are torchvision's; batch norms have no
`num_batches_tracked`, as in torchvision's files of 2017. The network pads as TensorFlow does,
more at the right and at the bottom.
"""

from typing import Any

from timm.layers import Conv2dSame, create_pool2d
from torch import nn

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.resnet_files import PLACES
from fss_bench.weight_layout import HEAD, QUERY, State, WeightLayout, at_places


def _pad_as_tensorflow(model: Any) -> None:
    """Give a timm ResNet TensorFlow's padding wherever it has a stride."""
    model.conv1 = _same(model.conv1)
    model.maxpool = create_pool2d("max", 3, stride=2, padding="same")
    for stage in (model.layer2, model.layer3, model.layer4):
        if stage[0].conv2.stride == (2, 2):  # else it is dilated
            stage[0].conv2 = _same(stage[0].conv2)


def _same(conv: nn.Conv2d) -> nn.Conv2d:
    same: nn.Conv2d = Conv2dSame(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, bias=False
    )
    same.weight = conv.weight
    return same


def _rivals(_: State) -> tuple[str, ...]:
    return ("timm",)


LAYOUT = WeightLayout(
    "BYOL",
    "https://github.com/ajtejankar/byol-convert",
    encoders=at_places(QUERY, PLACES),
    marks=tuple(
        rf"(model|state_dict)?/{name}\.weight" for name in ("conv1", r"layer3\.5\.conv3", "fc")
    ),
    lacks=(
        r".*num_batches_tracked",
        r"[^/]*/(layer3\.6|projection_head|prototypes)\..*",
        "lemniscate",
    ),
    heads={r"fc\..*": HEAD},
    adapt=_pad_as_tensorflow,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    rivals=_rivals,
)
