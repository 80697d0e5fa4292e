"""SimCLR v1 as tonylins' converter writes it. Chen et al., ICML 2020, arXiv 2002.05709.

Its names are torchvision's; what tells it is their order: a block's `downsample` comes before its
convolutions, as TensorFlow made them. Images are not normalised.
"""

from fss_bench.weight_layout import HEAD, QUERY, Encoder, State, WeightLayout


def _shortcut_first(names: State) -> bool:
    order = list(names)
    shortcut, first = (f"state_dict/layer1.0.{n}.weight" for n in ("downsample.0", "conv1"))
    return order.index(shortcut) < order.index(first)


LAYOUT = WeightLayout(
    "SimCLR v1",
    "https://github.com/tonylins/simclr-converter",
    encoders=(Encoder(QUERY, "state_dict/"),),
    marks=(
        "state_dict/conv1.weight",
        r"state_dict/layer1\.0\.downsample\.0\.weight",
        r"state_dict/layer1\.0\.conv1\.weight",
    ),
    where=_shortcut_first,
    heads={r"fc\..*": HEAD},
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
