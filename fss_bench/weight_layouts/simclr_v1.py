"""SimCLR v1 as tonylins' converter writes it. Chen et al., ICML 2020, arXiv 2002.05709.

Its names are torchvision's; what tells it is their order: a block's `downsample` comes before its
convolutions, as TensorFlow made them. Files that sort their names, as safetensors do, have lost it.
Images are not normalised.
"""

from fss_bench.resnet_files import PLACES
from fss_bench.weight_layout import HEAD, QUERY, State, WeightLayout, at_places

SHORTCUT, FIRST = "layer1.0.downsample.0.weight", "layer1.0.conv1.weight"


def _shortcut_first(names: State) -> bool:
    order = {name: position for position, name in enumerate(names)}
    place = next(place for place in PLACES if f"{place}/{FIRST}" in names)
    return order[f"{place}/{SHORTCUT}"] < order[f"{place}/{FIRST}"]


LAYOUT = WeightLayout(
    "SimCLR v1",
    "https://github.com/tonylins/simclr-converter",
    encoders=at_places(QUERY, PLACES),
    marks=tuple(rf"(model|state_dict)?/{name}" for name in ("conv1.weight", SHORTCUT, FIRST)),
    lacks=(r"[^/]*/(projection_head|prototypes)\..*",),
    told=_shortcut_first,
    heads={r"fc\..*": HEAD},
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
