"""revolver's co-FCN with two encoders, cofeat-early: https://github.com/shelhamer/revolver."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.revolver import FIXED, SOURCE, encoder_renames


def _detect(state: State) -> Variant | None:
    layer = state.get("qry_encoder.fc6.weight")
    if layer is None or "supp_encoder.fc6.weight" not in state:
        return None
    return Variant("vgg16_fcn32s", {"fusion": "early", "width": layer.shape[0]}, "fine-tuned")


LAYOUT = Layout(
    method="cofcn",
    source=SOURCE,
    protocol="revolver",
    detect=_detect,
    renames=encoder_renames("qry_encoder.", "")
    | encoder_renames("supp_encoder.", "support_")
    | {"head.": ""},
    fixed=FIXED,
)
