"""DINOv3's vision transformers for satellite images. Siméoni et al., 2025, arXiv 2508.10104.

Their images have statistics of their own. What tells a ViT-L of them is a norm for local
crops; both 7B models have it.
"""

from fss_bench.transformer_files import MASKED, PLACES, fit_dinov3
from fss_bench.weight_layout import MOMENTUM, WeightLayout, at_places

LAYOUT = WeightLayout(
    "DINOv3 for satellite images",
    "https://github.com/facebookresearch/dinov3",
    encoders=at_places(MOMENTUM, PLACES),
    marks=(
        r"(model|state_dict)?/storage_tokens",
        r"(model|state_dict)?/blocks\.0\.attn\.qkv\.weight",
        r"(model|state_dict)?/local_cls_norm\.weight",
    ),
    heads={
        **MASKED,
        r"local_cls_norm\..*": "the norm of local crops, used in training alone",
    },
    fit=fit_dinov3,
    mean=(0.430, 0.411, 0.296),
    std=(0.213, 0.156, 0.143),
)
