"""MSANet's files with VGG-16: their names of layers mean others than in those with a ResNet."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.msanet_names import HEAD, SOURCE, variant_of

FIRST_LAYERS = (0, 7, 14, 24, 34)
"""Where each published group of layers begins in timm's list."""
LAYERS = {
    f"layer{group}.{i}.": f"backbone.model.features.{first + i}."
    for group, first in enumerate(FIRST_LAYERS)
    for i in (0, 1, 3, 4, 6, 7)[: 4 if group < 2 else 6]
}


def _detect(state: State) -> Variant | None:
    return variant_of(state, "vgg16_bn_msanet") if "layer4.7.running_mean" in state else None


LAYOUT = Layout(
    method="msanet", source=SOURCE, protocol="bam", detect=_detect, renames={**HEAD, **LAYERS}
)
