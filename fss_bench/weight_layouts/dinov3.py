"""DINOv3's vision transformers. Siméoni et al., 2025, https://arxiv.org/abs/2508.10104."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import MASKED, PLACES, fit_dinov3, has, tensor_in
from fss_bench.weight_layout import MOMENTUM, State, WeightLayout, at_places

LARGEST = 4096
"""Width of the 7B models, of which that for photographs has a norm of local crops too."""


def _of_photographs(names: State) -> bool:
    width = tensor_in(names, "storage_tokens").shape[-1]
    return not has(names, "local_cls_norm.weight") or width == LARGEST


LAYOUT = WeightLayout(
    "DINOv3",
    "https://github.com/facebookresearch/dinov3",
    encoders=at_places(MOMENTUM, PLACES),
    marks=(
        r"(model|state_dict)?/storage_tokens",
        r"(model|state_dict)?/blocks\.0\.attn\.qkv\.weight",
    ),
    where=_of_photographs,
    heads={
        **MASKED,
        r"local_cls_norm\..*": "the norm of local crops, used in training alone",
    },
    fit=fit_dinov3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
