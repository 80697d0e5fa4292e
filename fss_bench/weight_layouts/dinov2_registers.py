"""DINOv2 with registers. Darcet et al., ICLR 2024, https://arxiv.org/abs/2309.16588."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import MASKED, PLACES, from_dinov2
from fss_bench.weight_layout import MOMENTUM, WeightLayout, at_places

LAYOUT = WeightLayout(
    "DINOv2 with registers",
    "https://github.com/facebookresearch/dinov2",
    encoders=at_places(MOMENTUM, PLACES),
    marks=(
        r"(model|state_dict)?/register_tokens",
        r"(model|state_dict)?/pos_embed",
        r"(model|state_dict)?/blocks\.0\.ls1\.gamma",
    ),
    heads=MASKED,
    trunk=from_dinov2,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
