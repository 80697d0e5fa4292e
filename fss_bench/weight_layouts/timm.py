"""A network's own names, as timm and torchvision save them.

Barlow Twins, VICReg, VICRegL and DINO publish their ResNets so too.
"""

from fss_bench.weight_layout import MOMENTUM, QUERY, Encoder, WeightLayout

PLACES = ("state_dict", "model_state_dict", "model", "")
"""The file itself last: it may hold other tensors beside a state dict, such as a best score."""

LAYOUT = WeightLayout(
    "a network's own names, as timm and torchvision save them",
    "https://github.com/huggingface/pytorch-image-models",
    encoders=(
        *(Encoder(QUERY, f"{place}/") for place in PLACES),
        Encoder(MOMENTUM, "state_dict_ema/"),
    ),
    marks=(r"(state_dict|model_state_dict|model|state_dict_ema)?/.+",),
    generic=True,
)
