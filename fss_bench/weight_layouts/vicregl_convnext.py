"""VICRegL's published ConvNeXt: no layer scale, so timm's is set to one. arXiv 2210.01571."""

from fss_bench.backbone import IMAGENET_MEAN
from fss_bench.convnext_files import with_layer_scale
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "VICRegL's ConvNeXt",
    "https://github.com/facebookresearch/VICRegL",
    encoders=(Encoder(QUERY, "/"),),
    marks=(r"/downsample_layers\.0\.0\.weight",),
    lacks=(r"/stages\.0\.0\.gamma",),
    heads={r"head\..*": HEAD},
    trunk=with_layer_scale,
    mean=IMAGENET_MEAN,
    std=(0.228, 0.224, 0.225),
)
