"""What published files of ResNets have in common."""

from torch import Tensor

from fss_bench.weight_layout import State, renamed

PLACES = ("model", "state_dict", "")
"""Where files have a ResNet under torchvision's names."""
BARE_RESNET = tuple(
    rf"(model|state_dict)?/{name}\.weight" for name in ("conv1", r"layer1\.0\.conv1")
)
SEQUENCE = {
    r"0\.": "conv1.",
    r"1\.": "bn1.",
    r"4\.": "layer1.",
    r"5\.": "layer2.",
    r"6\.": "layer3.",
    r"7\.": "layer4.",
}
"""Places in `nn.Sequential(*resnet.children())` that have tensors -> torchvision's names."""


def never_told(_: State) -> bool:
    """For files that look like those of others, which are published as often."""
    return False


def from_sequence(state: State) -> dict[str, Tensor]:
    """A ResNet that was made a sequence of its parts, under its own names."""
    return renamed(state, SEQUENCE)
