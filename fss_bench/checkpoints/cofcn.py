"""revolver's co-FCN, cofeat-early and -late-lite-unshared: https://github.com/shelhamer/revolver."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.revolver import FIXED, encoder_renames


def _detect(state: State) -> Variant | None:
    if "supp_encoder.fc6.weight" in state and "qry_encoder.fc6.weight" in state:
        width = state["qry_encoder.fc6.weight"].shape[0]
        return Variant("vgg16_fcn32s", {"fusion": "early", "width": width}, "fine-tuned")
    head, layer = state.get("head.score.weight"), state.get("encoder.fc6.weight")
    if layer is not None and head is not None and head.shape[0] == 2:
        return Variant("vgg16_fcn32s", {"fusion": "late", "width": layer.shape[0]}, "fine-tuned")
    return None


LAYOUT = Layout(
    method="cofcn",
    source="https://github.com/shelhamer/revolver",
    protocol="revolver",
    detect=_detect,
    renames=encoder_renames("encoder.", "")
    | encoder_renames("qry_encoder.", "")
    | encoder_renames("supp_encoder.", "support_")
    | {"head.": ""},
    fixed=FIXED,
)
