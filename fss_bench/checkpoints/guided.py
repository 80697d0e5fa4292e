"""revolver's guided networks, cofeat-late and -lite: https://github.com/shelhamer/revolver."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.revolver import FIXED, SOURCE, encoder_renames


def _detect(state: State) -> Variant | None:
    head, layer = state.get("head.score.weight"), state.get("encoder.fc6.weight")
    if layer is None or head is None or head.shape[0] != 1 or "head.fc7.weight" not in state:
        return None
    if state["head.fc7.weight"].shape[1] != 2 * layer.shape[0]:
        return None
    # interactive-late has the same names, but for the guide that guided networks hold
    made = "fine-tuned" if "z" in state else "fine-tuned, perhaps interactive-late: no guide z"
    return Variant("vgg16_fcn32s", {"width": layer.shape[0]}, made)


LAYOUT = Layout(
    method="guided",
    source=SOURCE,
    protocol="revolver",
    detect=_detect,
    renames=encoder_renames("encoder.", "") | {"head.": ""},
    drops={"z|num_z": "the guide of the last episode"},
    fixed=FIXED,
)
