"""SimCLR v2 as Separius' converter writes it. Chen et al., NeurIPS 2020, arXiv 2006.10029.

Images are not normalised.
"""

from torch import Tensor

from fss_bench.weight_layout import HEAD, QUERY, Encoder, State, WeightLayout, renamed

BLOCK = r"net\.(\d)\.blocks\.(\d+)\."
RENAMES = {
    r"net\.0\.0\.": "conv1.",
    r"net\.0\.1\.0\.": "bn1.",
    rf"{BLOCK}projection\.shortcut\.": r"layer\1.\2.downsample.0.",
    rf"{BLOCK}projection\.bn\.0\.": r"layer\1.\2.downsample.1.",
    rf"{BLOCK}net\.0\.": r"layer\1.\2.conv1.",
    rf"{BLOCK}net\.1\.0\.": r"layer\1.\2.bn1.",
    rf"{BLOCK}net\.2\.": r"layer\1.\2.conv2.",
    rf"{BLOCK}net\.3\.0\.": r"layer\1.\2.bn2.",
    rf"{BLOCK}net\.4\.": r"layer\1.\2.conv3.",
    rf"{BLOCK}net\.5\.0\.": r"layer\1.\2.bn3.",
}
"""A name's beginning -> timm's. Each batch norm is the first of a pair with its activation."""


def _trunk(state: State) -> dict[str, Tensor]:
    return renamed(state, RENAMES)


def _no_selective_kernels(state: State) -> str | None:
    if any("mixing_conv" in name for name in state):
        return "its selective kernels have no twin in timm: take an sk0 file"
    return None


LAYOUT = WeightLayout(
    "SimCLR v2",
    "https://github.com/Separius/SimCLRv2-Pytorch",
    encoders=(Encoder(QUERY, "resnet/"),),
    marks=(r"resnet/net\.0\.0\.weight",),
    heads={r"fc\..*": HEAD},
    trunk=_trunk,
    refuses=_no_selective_kernels,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
