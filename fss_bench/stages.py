"""Block maps of a backbone by stage, for methods that use every block of several levels."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from fss_bench.backbone import Backbone
from fss_bench.errors import FssBenchError, shorten


def block_stages(
    backbone: Backbone, levels: Sequence[str], method: str
) -> tuple[tuple[str, ...], ...]:
    """Names of the block maps of each level, shallow to deep; they can be asked for as levels.

    Args:
        backbone: the feature extractor.
        levels: levels that the method cannot do without.
        method: the method's name, for messages.

    Raises:
        FssBenchError: a level is missing, or its blocks differ in channels.
    """
    backbone.need_levels(levels, method)
    for level in levels:
        widths = sorted({backbone.size_of(name).channels for name in backbone.blocks[level]})
        if len(widths) > 1:
            raise FssBenchError(
                f"{method} needs blocks of one width, those of {level} in backbone "
                f"{backbone.name} have {shorten(widths, 8)} channels: choose another backbone, "
                "such as resnet50"
            )
    return tuple(backbone.blocks[level] for level in levels)


def similarity_groups(backbone: Backbone) -> tuple[bool, tuple[tuple[str, ...], ...]]:
    """Whether pools end a backbone's stages, and the names of the maps compared, by group."""
    finest = min(backbone.size_of(name).stride for name in backbone.blocks["c4"])
    pooled = finest < backbone.levels["c4"].stride
    blocks = backbone.blocks
    if pooled:
        return True, (blocks["c4"], blocks["c5"], ("c5",))
    return False, (blocks["c3"], blocks["c4"], blocks["c5"])


def stacks(backbone: Backbone, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Names in order, those in a row whose maps have one form together."""
    for _, alike in groupby(names, key=backbone.size_of):
        yield tuple(alike)
