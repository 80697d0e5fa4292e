"""A network's own names, as timm and torchvision save them.

Barlow Twins, VICReg, VICRegL and DINO publish their ResNets so too: see `vicregl_resnet` and
`dino_resnet`.
"""

from fss_bench.weight_layout import MOMENTUM, QUERY, WeightLayout, at_places

PLACES = ("state_dict", "model_state_dict", "model", "")
"""The file itself last: it may hold other tensors beside a state dict, such as a best score."""

LAYOUT = WeightLayout(
    "a network's own names, as timm and torchvision save them",
    "https://github.com/huggingface/pytorch-image-models",
    encoders=(
        *at_places(QUERY, PLACES),
        *at_places(MOMENTUM, ("state_dict_ema", "model_ema")),
    ),
    marks=(r"(state_dict|model_state_dict|model|state_dict_ema|model_ema)?/.+",),
    generic=True,
)
