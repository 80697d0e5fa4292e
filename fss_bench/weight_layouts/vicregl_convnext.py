"""VICRegL's published ConvNeXt: no layer scale, so timm's is set to one. arXiv 2210.01571.

ConvNeXt V2 has none either, and response norms in its place: that is timm's.
"""

from fss_bench.backbone import IMAGENET_MEAN
from fss_bench.convnext_files import FIRST, PLACES, with_layer_scale
from fss_bench.weight_layout import HEAD, QUERY, WeightLayout, at_places

LAYOUT = WeightLayout(
    "VICRegL's ConvNeXt",
    "https://github.com/facebookresearch/VICRegL",
    encoders=at_places(QUERY, PLACES),
    marks=(FIRST,),
    lacks=(r"[^/]*/stages\.\d+\.\d+\.(gamma|grn\..*)",),
    heads={r"head\..*": HEAD},
    trunk=with_layer_scale,
    mean=IMAGENET_MEAN,
    std=(0.228, 0.224, 0.225),
)
