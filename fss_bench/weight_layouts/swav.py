"""SwAV, DeepCluster-v2 and SeLa-v2. Caron et al., NeurIPS 2020, arXiv 2006.09882.

The first convolution pads 1 and then 2, which is the 3 of others. The red channel's deviation is
0.228 in the code that trained them.
"""

from fss_bench.backbone import IMAGENET_MEAN
from fss_bench.weight_layout import HEAD, QUERY, Encoder, WeightLayout

LAYOUT = WeightLayout(
    "SwAV or DeepCluster-v2",
    "https://github.com/facebookresearch/swav",
    encoders=(Encoder(QUERY, "state_dict/"), Encoder(QUERY, "/")),
    marks=(r"(state_dict)?/conv1\.weight", r"(state_dict)?/(projection_head|prototypes)\..*"),
    heads={r"projection_head\..*": HEAD, r"prototypes\..*": "prototypes of clusters"},
    mean=IMAGENET_MEAN,
    std=(0.228, 0.224, 0.225),
)
