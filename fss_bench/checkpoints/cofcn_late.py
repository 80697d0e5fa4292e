"""revolver's co-FCN with one encoder: cofeat-late-lite-unshared.

https://github.com/shelhamer/revolver
"""

from fss_bench.layout import Layout, State, Variant
from fss_bench.revolver import FIXED, SOURCE, encoder_renames


def _detect(state: State) -> Variant | None:
    head, layer = state.get("head.score.weight"), state.get("encoder.fc6.weight")
    if layer is None or head is None or head.shape[0] != 2:
        return None
    return Variant("vgg16_fcn32s", {"fusion": "late", "width": layer.shape[0]}, "fine-tuned")


LAYOUT = Layout(
    method="cofcn",
    source=SOURCE,
    protocol="revolver",
    detect=_detect,
    renames=encoder_renames("encoder.", "") | {"head.": ""},
    fixed=FIXED,
)
