"""DINOv3's vision transformers. Siméoni et al., 2025, https://arxiv.org/abs/2508.10104."""

from fss_bench.backbone import IMAGENET_MEAN, IMAGENET_STD
from fss_bench.transformer_files import fit_dinov3
from fss_bench.weight_layout import MOMENTUM, Encoder, State, WeightLayout

LARGEST = 4096
"""Width of the 7B models, of which that for photographs has a norm of local crops too."""


def _of_photographs(names: State) -> bool:
    width = names["/storage_tokens"].shape[-1]
    return "/local_cls_norm.weight" not in names or width == LARGEST


LAYOUT = WeightLayout(
    "DINOv3",
    "https://github.com/facebookresearch/dinov3",
    encoders=(Encoder(MOMENTUM, "/"),),
    marks=("/storage_tokens", r"/blocks\.0\.attn\.qkv\.weight"),
    where=_of_photographs,
    heads={
        "mask_token": "the token of masked patches, used in training alone",
        r"local_cls_norm\..*": "the norm of local crops, used in training alone",
    },
    fit=fit_dinov3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
