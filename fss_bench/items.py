"""What is kept of images between episodes, by name: known before the first pixel is read."""

from collections.abc import Sequence
from typing import NamedTuple

from fss_bench.annotations import annotation_key
from fss_bench.episodes import EpisodeSpec
from fss_bench.protocols import EvaluationProtocol


class Item(NamedTuple):
    """Something that is kept.

    Attributes:
        image: of which image.
        role: `query` or `support` of a method in parts; else empty: the whole image.
        annotation: of a support: equal for equal masks.
        method: number of the method that it is for, of those that share images.
    """

    image: str
    role: str = ""
    annotation: str = ""
    method: int = 0


class Want(NamedTuple):
    """An item, and where it is wanted first.

    Attributes:
        spec, way, shot: the support; of other items `way` is -1.
        protocol: whose rules make the support's mask.
    """

    item: Item
    spec: EpisodeSpec
    way: int
    shot: int
    protocol: EvaluationProtocol


def support_item(
    spec: EpisodeSpec, way: int, shot: int, protocol: EvaluationProtocol, method: int = 0
) -> Item:
    """The item of a support of a method in parts."""
    key = annotation_key(spec, way, shot, protocol)
    return Item(spec.supports[way][shot], "support", key, method)


def query_item(spec: EpisodeSpec, method: int = 0) -> Item:
    """The item of a query of a method in parts."""
    return Item(spec.query, "query", method=method)


def wants(
    spec: EpisodeSpec, protocol: EvaluationProtocol, parts: bool, method: int = 0
) -> list[Want]:
    """What an episode needs, each once.

    Args:
        spec: the episode.
        protocol: its rules.
        parts: whether the method is one in parts.
        method: its number.
    """
    if not parts:
        items = [Item(image, method=method) for image in dict.fromkeys(spec.images)]
        return [Want(item, spec, -1, -1, protocol) for item in items]
    found = [Want(query_item(spec, method), spec, -1, -1, protocol)]
    found += [
        Want(support_item(spec, way, shot, protocol, method), spec, way, shot, protocol)
        for way, images in enumerate(spec.supports)
        for shot in range(len(images))
    ]
    first: dict[Item, Want] = {}
    for want in found:
        first.setdefault(want.item, want)
    return list(first.values())


def in_good_order(specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
    """Episodes by class, and by query within a class: what they share comes up close together."""
    first: dict[object, int] = {}
    for n, spec in enumerate(specs):
        first.setdefault(spec.classes, n)
        first.setdefault(spec.query, n)
    return sorted(specs, key=lambda s: (first[s.classes], first[s.query], s.index))
