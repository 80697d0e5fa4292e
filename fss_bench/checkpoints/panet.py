"""PANet's snapshots: https://github.com/kaixin96/PANet."""

from fss_bench.layout import Layout, State, Variant

PLACES = {0: (0, 2), 2: (5, 7), 4: (10, 12, 14), 6: (17, 19, 21), 8: (24, 26, 28)}
"""Their block -> its convolutions in torchvision's VGG-16; theirs count 0, 2, 4 in the block."""


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
        f"encoder.backbone.features.{block}.{2 * i}.": f"backbone.model.features.{place}."
        for block, places in PLACES.items()
        for i, place in enumerate(places)
    },
    ordered=True,
)
