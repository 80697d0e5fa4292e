"""Checkpoints of the published DCAMA code; one file serves every number of shots."""

from fss_bench.layout import Layout, State, Variant

BACKBONES = {
    (4, 6, 3): Variant("resnet50", weights="a1h"),
    (4, 23, 3): Variant("resnet101", weights="a1h"),
    (2, 18, 2): Variant("swin_base_patch4_window12_384", weights="ms_in22k_ft_in1k"),
}
"""Blocks of the stages at strides 8, 16 and 32 -> what a file was made for."""


def detect(state: State) -> Variant | None:
    """Which backbone a DCAMA file has, by the blocks that its convolutions take; else None."""
    names = [f"model.conv{stage}.0.weight" for stage in (3, 2, 1)]
    if "model.DCAMA_blocks.0.linears.0.weight" not in state or any(n not in state for n in names):
        return None
    n3, n4, n5 = (state[name].shape[1] for name in names)
    return BACKBONES.get((n3, n4, n5))


PROJECTIONS = ("query", "key")

LAYOUT = Layout(
    method="dcama",
    source="https://github.com/pawn-sxy/DCAMA",
    protocol="hsnet",
    detect=detect,
    renames={
        "feature_extractor.": "backbone.model.",
        # timm has a Swin's patch merging at the start of a stage, the published code at the end
        **{
            f"feature_extractor.layers.{stage}.downsample.": (
                f"backbone.model.layers.{stage + 1}.downsample."
            )
            for stage in range(3)
        },
        **{
            f"model.DCAMA_blocks.{stage}.linears.{i}.": f"attentions.{stage}.{name}."
            for stage in range(3)
            for i, name in enumerate(PROJECTIONS)
        },
        "model.conv1.": "conv_c5.",
        "model.conv2.": "conv_c4.",
        "model.conv3.": "conv_c3.",
        "model.conv4.": "merge_c4.",
        "model.conv5.": "merge_c3.",
        "model.mixer": "mixer",
    },
    drops={
        r"feature_extractor\.(fc|head|norm)\..*": "the backbone's classifier is not used",
        r"model\.pe\.\d\.pe": "position encoding, computed when needed",
        r"feature_extractor\..*\.attn_mask": "constant of the backbone, computed when built",
        r"feature_extractor\..*\.relative_position_index": (
            "constant of the backbone, computed when built"
        ),
    },
    ordered=True,
)
