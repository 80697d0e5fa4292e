"""PANet's snapshots: https://github.com/kaixin96/PANet."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.vgg_backbone import CONVOLUTIONS


def _detect(state: State) -> Variant | None:
    if "encoder.backbone.features.8.4.weight" not in state:
        return None
    return Variant("vgg16_panet", weights="fine-tuned")


LAYOUT = Layout(
    method="panet",
    source="https://github.com/kaixin96/PANet",
    protocol="panet",
    detect=_detect,
    renames={
        f"encoder.backbone.features.{2 * (block - 1)}.{2 * i}.": f"backbone.model.features.{place}."
        for block, places in CONVOLUTIONS.items()
        for i, place in enumerate(places)
    },
    ordered=True,
)
