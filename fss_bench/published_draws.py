"""Published orders that are drawn from the data: PFENet and BAM, PANet, OSLSM, revolver.

What their codes fix is kept: which images are asked, in which order, and which may support. Draws
that depend there on the number of workers or on the order of a folder hash the published seed here,
so they are the same everywhere; shuffles of Python 2 are replayed. docs/protocols.md says for each
what is exact.
"""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from fss_bench.episodes import EpisodeSpec, check_one_way, digest_int, draw
from fss_bench.errors import EpisodeError, shorten
from fss_bench.protocols import EvaluationProtocol

T = TypeVar("T")


@dataclass(frozen=True)
class Listed:
    """What the draws of one fold are made from.

    Attributes:
        fold: copied into the specs, and part of every draw's key.
        present: image -> pixels of each novel class in it; images in the order of the list.
        protocol: its rules for drawing.
        names: class id -> name, for error messages.
    """

    fold: int
    present: Mapping[str, Mapping[int, int]]
    protocol: EvaluationProtocol
    names: Mapping[int, str]

    def pools(self) -> dict[int, list[str]]:
        """Class id -> the images that may support it, in the order of the list."""
        pools: dict[int, list[str]] = {}
        for image, pixels in self.present.items():
            for class_id, count in pixels.items():
                if count >= self.protocol.min_pixels:
                    pools.setdefault(class_id, []).append(image)
        return dict(sorted(pools.items()))

    def pairs(self, classes: Container[int]) -> list[tuple[str, int]]:
        """The qualifying (image, class) pairs of these classes, in the order of the list."""
        return [
            (image, c)
            for image, pixels in self.present.items()
            for c in sorted(pixels)
            if c in classes and pixels[c] >= self.protocol.min_pixels
        ]

    def usable_pools(self, supports: int) -> tuple[dict[int, list[str]], list[int]]:
        """`pools` of the classes with images for so many supports, and the classes without.

        Raises:
            EpisodeError: there are such classes, and rule `short_classes` is `error`; or no others.
        """
        protocol = self.protocol
        least = 1 if protocol.support_draw == "repeat" else supports
        least += protocol.support_query == "never"
        pools = self.pools()
        short = [c for c in self.names if len(pools.get(c, ())) < least]
        usable = {c: pool for c, pool in pools.items() if c not in short}
        if short and (protocol.short_classes == "error" or not usable):
            listed = [f"{self.names[c]} ({len(pools.get(c, ()))})" for c in short]
            cures = ["use fewer --shots"]
            cures += ["take --rule test_split=test"] * (protocol.test_split == "train")
            cures += ["leave such classes out with --rule short_classes=skip"] * bool(usable)
            raise EpisodeError(
                f"such episodes of protocol {protocol.name} need {least} images a class, fold "
                f"{self.fold} has fewer {protocol.test_split} images of {shorten(listed)}: "
                f"{', or '.join(cures)}"
            )
        return usable, short


Order = Callable[[Listed, int, int, int, int], tuple[list[EpisodeSpec], list[int]]]
"""(listed, ways, shots, episodes, seed) -> specs from 0 and the classes left out."""


def pfenet_episodes(
    listed: Listed, ways: int, shots: int, episodes: int, seed: int
) -> tuple[list[EpisodeSpec], list[int]]:
    """PFENet's: images in list order, cyclic; the class among the novel ones in the image.

    An image is asked if any novel class has `min_pixels` there (`min_pixels_of="image"`); the class
    drawn then may be smaller. BAM's are the same with its seeds. The lists are exact; class and
    supports hash the seed.
    """
    check_one_way(listed.protocol.name, ways)
    pools, short = listed.usable_pools(shots)
    least = 1 if listed.protocol.min_pixels_of == "image" else listed.protocol.min_pixels
    asked = [
        (image, sorted(c for c, count in pixels.items() if c in pools and count >= least))
        for image, pixels in listed.present.items()
        if any(pixels[c] >= listed.protocol.min_pixels for c in pixels if c in pools)
    ]
    specs = []
    for i in range(episodes):
        query, classes = asked[i % len(asked)]
        key = ("pfenet", seed, listed.fold, i)
        class_id = classes[draw(len(classes), *key, "class")]
        supports = _supports(pools[class_id], query, shots, listed.protocol, key)
        specs.append(EpisodeSpec(i, listed.fold, (class_id,), query, (supports,)))
    return specs, short


def panet_episodes(
    listed: Listed, ways: int, shots: int, episodes: int, seed: int
) -> tuple[list[EpisodeSpec], list[int]]:
    """PANet's: random classes, random images of them, the query of a random way.

    Names are sorted, since the published order of a class is that of a folder; draws hash the seed.

    Raises:
        EpisodeError: fewer classes than ways.
    """
    if len(listed.names) < ways:
        raise EpisodeError(
            f"{ways}-way episodes need {ways} classes, fold {listed.fold} has "
            f"{len(listed.names)}: use fewer --ways"
        )
    pools, short = listed.usable_pools(shots * ways)  # ways may show the same images
    if len(pools) < ways:
        raise EpisodeError(
            f"{ways}-way {shots}-shot episodes of protocol {listed.protocol.name} need {ways} "
            f"classes with {shots * ways + 1} images, fold {listed.fold} has {len(pools)}: use "
            "fewer --ways or --shots"
        )
    pools = {c: sorted(pool) for c, pool in pools.items()}
    specs = []
    for i in range(episodes):
        key = ("panet", seed, listed.fold, i)
        ranked = sorted(pools, key=lambda c: digest_int(*key, "class", c))
        classes = tuple(ranked[:ways])
        asked = classes[draw(ways, *key, "way")]
        query = pools[asked][draw(len(pools[asked]), *key, "query")]
        supports: list[tuple[str, ...]] = []
        used: set[str] = set()
        for class_id in classes:
            own = _supports(pools[class_id], query, shots, listed.protocol, (*key, class_id), used)
            supports.append(own)
            used.update(own if listed.protocol.support_draw == "distinct" else ())
        specs.append(EpisodeSpec(i, listed.fold, classes, query, tuple(supports)))
    return specs, short


def oslsm_episodes(
    listed: Listed, ways: int, shots: int, episodes: int, seed: int
) -> tuple[list[EpisodeSpec], list[int]]:
    """OSLSM's: the (image, class) pairs, shuffled anew for every pass, with Python 2's shuffle.

    The supports are the first K of the shuffled images of the class that are not the query. One
    stream serves all shuffles, so an episode depends on all before it.
    """
    check_one_way(listed.protocol.name, ways)
    pools, short = listed.usable_pools(shots)
    pairs = listed.pairs(pools)
    stream = Random(seed)
    specs: list[EpisodeSpec] = []
    while len(specs) < episodes:
        shuffle_as_python2(pairs, stream)
        for query, class_id in pairs[: episodes - len(specs)]:
            pool = list(pools[class_id])
            shuffle_as_python2(pool, stream)
            supports = tuple([image for image in pool if image != query][:shots])
            specs.append(EpisodeSpec(len(specs), listed.fold, (class_id,), query, (supports,)))
    return specs, short


def revolver_episodes(
    listed: Listed, ways: int, shots: int, episodes: int, seed: int
) -> tuple[list[EpisodeSpec], list[int]]:
    """Revolver's: every (image, class) pair once; random supports, the query among them.

    Args:
        listed, ways, shots, seed: see `Order`.
        episodes: the first so many pairs, cyclic; 0 for all of them once.
    """
    check_one_way(listed.protocol.name, ways)
    pools, short = listed.usable_pools(shots)
    pairs = listed.pairs(pools)
    specs = []
    for i in range(episodes or len(pairs)):
        query, class_id = pairs[i % len(pairs)]
        key = ("revolver", seed, listed.fold, i)
        supports = _supports(pools[class_id], query, shots, listed.protocol, key)
        specs.append(EpisodeSpec(i, listed.fold, (class_id,), query, (supports,)))
    return specs, short


ORDERS: dict[str, Order] = {
    "pfenet": pfenet_episodes,
    "panet": panet_episodes,
    "oslsm": oslsm_episodes,
    "revolver": revolver_episodes,
}
"""Rule `order` -> the episodes of one run."""


def shuffle_as_python2(items: list[T], stream: Random) -> None:
    """Shuffle in place as `random.shuffle` of Python 2 did.

    From the last place down to the second, each is swapped with place int(random() * (place + 1)).
    Python 3 draws the place from bits instead; the floats of `random` are the same in both.
    """
    for place in range(len(items) - 1, 0, -1):
        other = int(stream.random() * (place + 1))
        items[place], items[other] = items[other], items[place]


def _supports(
    pool: Sequence[str],
    query: str,
    shots: int,
    protocol: EvaluationProtocol,
    key: tuple[object, ...],
    used: Collection[str] = (),
) -> tuple[str, ...]:
    """K images of a pool under the rules `support_draw` and `support_query`, none of them used."""
    chosen: list[str] = []
    taken = {*used} if protocol.support_query == "possible" else {*used, query}
    attempt = 0
    while len(chosen) < shots:  # a pool may be long, and few of it are taken: so draw again
        image = pool[draw(len(pool), *key, "support", attempt)]
        attempt += 1
        if image not in taken:
            chosen.append(image)
            taken.update([image] if protocol.support_draw == "distinct" else ())
    return tuple(chosen)
