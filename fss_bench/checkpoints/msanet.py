"""MSANet's files with a ResNet: https://github.com/AIVResearch/MSANet."""

from fss_bench.layout import Layout, State, Variant
from fss_bench.msanet_names import HEAD, SOURCE, variant_of

STEM = {f"layer0.{i}.": f"backbone.model.conv1.{i}." for i in (0, 1, 3, 4, 6)}
STAGES = {f"layer{i}.": f"backbone.model.layer{i}." for i in (1, 2, 3, 4)}
BACKBONES = {6: "resnet50_deepstem", 23: "resnet101_deepstem"}
"""Blocks of the third stage -> backbone."""


def _detect(state: State) -> Variant | None:
    blocks = sum(f"layer3.{i}.conv1.weight" in state for i in range(max(BACKBONES) + 1))
    return variant_of(state, BACKBONES[blocks]) if blocks in BACKBONES else None


LAYOUT = Layout(
    method="msanet",
    source=SOURCE,
    protocol="bam",
    detect=_detect,
    renames={**HEAD, **STEM, "layer0.7.": "backbone.model.bn1.", **STAGES},
)
