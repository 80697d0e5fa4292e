"""SG-One's snapshots: https://github.com/xiaomengyc/SG-One."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.vgg_backbone import CONVOLUTIONS


def _detect(state: State) -> Variant | None:
    if "netB.side5_1.0.weight" not in state:
        return None
    return Variant("vgg16_sgone", weights="fine-tuned")


LAYOUT = Layout(
    method="sgone",
    source="https://github.com/xiaomengyc/SG-One",
    protocol="oslsm",
    detect=_detect,
    renames={
        f"netB.features_{block}.{2 * i}.": f"backbone.model.features.{place}."
        for block, places in CONVOLUTIONS.items()
        for i, place in enumerate(places)
    }
    | {
        "netB.cls.0.": "guidance.",
        "netB.side3_1.0.": "side3.",
        "netB.side4_1.0.": "side4.",
        "netB.side5_1.0.": "side5.",
        "classifier_6.0.": "classifier.",
        "exit_layer.": "exit.",
    },
)
