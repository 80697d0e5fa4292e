"""DeepCluster of 2018: AlexNet, or VGG-16 on two Sobel filters. Caron et al., ECCV 2018."""

from fss_bench.weight_layout import QUERY, Encoder, State, WeightLayout


def _no_twin(_: State) -> str:
    return "AlexNet and networks on Sobel filters have no twin in timm: take DeepCluster-v2's file"


LAYOUT = WeightLayout(
    "DeepCluster of 2018",
    "https://github.com/facebookresearch/deepcluster",
    encoders=(Encoder(QUERY, "state_dict/"),),
    marks=(r"state_dict/features\.module\.0\.weight",),
    refuses=_no_twin,
)
