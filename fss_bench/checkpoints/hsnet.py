"""Checkpoints of the published HSNet code; one file serves every number of shots."""

from fss_bench.layout import Layout, State, Variant

BACKBONES = {
    (4, 6, 3): Variant("resnet50", weights="tv_in1k"),
    (4, 23, 3): Variant("resnet101", weights="tv_in1k"),
    (3, 3, 1): Variant("vgg16", weights="tv_in1k"),
}
"""Blocks of the stages at strides 8, 16 and 32 -> what a file was made for."""


def detect(state: State) -> Variant | None:
    """Which backbone an HSNet file has, by the blocks its encoders take; else None."""
    names = [f"hpn_learner.encoder_layer{stage}.0.conv1.weight" for stage in (2, 3, 4)]
    if any(name not in state for name in names):
        return None
    n3, n4, n5 = (state[name].shape[1] for name in names)
    return BACKBONES.get((n3, n4, n5))


LAYOUT = Layout(
    method="hsnet",
    source="https://github.com/juhongm999/hsnet",
    protocol="hsnet",
    detect=detect,
    renames={
        "backbone.": "backbone.model.",
        "hpn_learner.encoder_layer4.": "encoder_c5.",
        "hpn_learner.encoder_layer3.": "encoder_c4.",
        "hpn_learner.encoder_layer2.": "encoder_c3.",
        "hpn_learner.encoder_layer4to3.": "merge_c4.",
        "hpn_learner.encoder_layer3to2.": "merge_c3.",
        "hpn_learner.decoder": "decoder",
    },
    drops={r"backbone\.(fc|classifier)\..*": "the backbone's classifier is not used"},
)
