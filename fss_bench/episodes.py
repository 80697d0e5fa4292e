"""Episodes: specs (names only), tensors, the standard sampler, JSONL lists, digests."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fss_bench.errors import EpisodeError, shorten

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class EpisodeSpec:
    """One episode by names: N classes, K support images for each, one query. Does no I/O."""

    index: int
    fold: int
    classes: tuple[int, ...]
    query: str
    supports: tuple[tuple[str, ...], ...]

    @property
    def images(self) -> tuple[str, ...]:
        """Distinct images of the episode, query first."""
        return tuple(dict.fromkeys((self.query, *(s for way in self.supports for s in way))))


@dataclass(frozen=True)
class Episode:
    """One episode as tensors.

    Attributes:
        spec: the names behind it.
        support_images: [N, K, 3, H, W] float in [0, 1], RGB.
        support_masks: [N, K, H, W] uint8: 1 on the way's class, 0 off it, 255 ignore or
            unlabelled.
        query_image: [3, H, W] float in [0, 1].
        query_mask: [H', W'] uint8 at the resolution of the IoU: way number, 0 elsewhere, 255
            ignore.
    """

    spec: EpisodeSpec
    support_images: "Tensor"
    support_masks: "Tensor"
    query_image: "Tensor"
    query_mask: "Tensor"


def digest_int(*key: object) -> int:
    """A 64-bit number that depends on `key` alone: no state, no library, no version."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def draw(n: int, *key: object) -> int:
    """A number in range(n) that depends on `key` alone."""
    return digest_int(*key) % n


class EpisodeSampler:
    """The standard episodes, as a pure function: `sampler[i]` for any i >= 0.

    Classes take turns (i mod number of classes). The queries of a class walk a shuffled order of
    all its images before one repeats. Supports are distinct and never the query. The first K
    supports of an episode are the same for every shot count above K, so 1-shot and 5-shot share
    queries. Every draw hashes (seed, fold, i, …), so any worker or machine makes any episode in
    any order. Each of these rules can be changed on its own.

    Args:
        pools: class id -> its qualifying images.
        fold: part of the key, and copied into the specs.
        ways: classes an episode, N.
        shots: support images a class, K.
        seed: another seed, other episodes.
        names: class id -> name, for error messages.
        short_classes: what to do with a class of fewer than K + 1 images: `"error"`, or `"skip"`.
        class_draw, support_draw, support_query: see `EvaluationProtocol`.
        present: image -> the classes that may be drawn once it is the query, in their order; for
            `class_draw="image"`. By default the classes whose pools it is in.

    Raises:
        EpisodeError: too few images or classes, with the class, the count and the cure.
    """

    def __init__(
        self,
        pools: Mapping[int, Sequence[str]],
        *,
        fold: int,
        ways: int = 1,
        shots: int = 1,
        seed: int = 0,
        names: Mapping[int, str] | None = None,
        short_classes: str = "error",
        class_draw: str = "turns",
        support_draw: str = "distinct",
        support_query: str = "never",
        present: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        check_counts(ways, shots)
        self.fold, self.ways, self.shots, self.seed = fold, ways, shots, seed
        self._class_draw = class_draw
        self._repeats, self._may_be_query = support_draw == "repeat", support_query == "possible"
        self._names = names or {}
        pools = {c: sorted(set(pools[c])) for c in sorted(pools)}
        least = (1 if self._repeats else shots) + (not self._may_be_query)
        self.skipped = tuple(c for c in pools if len(pools[c]) < least)
        if self.skipped and short_classes == "error":
            raise EpisodeError(self._too_few(self.skipped[0], pools, least))
        self._pools = {c: pools[c] for c in pools if c not in self.skipped}
        self.classes = tuple(self._pools)
        if len(self.classes) < ways:
            raise EpisodeError(
                f"{ways}-way {shots}-shot episodes of fold {fold} need {ways} classes with at "
                f"least {least} qualifying images, found {len(self.classes)}: use fewer "
                "--ways or --shots"
            )
        self._orders: dict[tuple[int, int], list[str]] = {}
        self._present = self._classes_of_images(present)
        self._queries = list(self._present)
        self._pairs = [(image, c) for image, found in self._present.items() for c in found]

    def __getitem__(self, i: int) -> EpisodeSpec:
        primary, query = self._class_and_query(i)
        ways = self._ways(primary, i)
        chosen: list[list[str]] = [[] for _ in ways]
        used = set() if self._may_be_query else {query}
        for shot in range(self.shots):
            for way, class_id in enumerate(ways):
                image = self._support(class_id, i, shot, used)
                chosen[way].append(image)
                if not self._repeats:
                    used.add(image)
        return EpisodeSpec(i, self.fold, ways, query, tuple(tuple(way) for way in chosen))

    def take(self, episodes: int) -> list[EpisodeSpec]:
        """The first episodes, in order."""
        return [self[i] for i in range(episodes)]

    def _class_and_query(self, i: int) -> tuple[int, str]:
        if self._class_draw == "turns":
            primary = self.classes[i % len(self.classes)]
            return primary, self._query(primary, i // len(self.classes))
        if self._class_draw == "uniform":
            primary = self.classes[draw(len(self.classes), self.seed, self.fold, i, "class")]
            pool = self._pools[primary]
            return primary, pool[draw(len(pool), self.seed, self.fold, i, "query", primary)]
        if self._class_draw == "pairs":
            query, primary = self._pairs[i % len(self._pairs)]
            return primary, query
        query = self._queries[i % len(self._queries)]
        found = self._present[query]
        return found[draw(len(found), self.seed, self.fold, i, "class", query)], query

    def _classes_of_images(
        self, present: Mapping[str, Sequence[int]] | None
    ) -> dict[str, list[int]]:
        """Image -> classes that may be drawn in it, images in the order of their names."""
        if self._class_draw not in ("pairs", "image"):
            return {}
        if present is None:
            found: dict[str, list[int]] = {}
            for class_id, pool in self._pools.items():
                for image in pool:
                    found.setdefault(image, []).append(class_id)
        else:
            found = {i: [c for c in own if c in self._pools] for i, own in present.items()}
        return {image: found[image] for image in sorted(found) if found[image]}

    def _ways(self, primary: int, i: int) -> tuple[int, ...]:
        if self.ways == 1:  # nothing to draw: hashing all the others takes half of the time
            return (primary,)

        def chosen(class_id: int) -> int:
            return digest_int(self.seed, self.fold, i, "way", class_id)

        def place(class_id: int) -> int:  # a key of its own: no place may hint at the query's class
            return digest_int(self.seed, self.fold, i, "place", class_id)

        others = sorted((c for c in self.classes if c != primary), key=chosen)[: self.ways - 1]
        return tuple(sorted((primary, *others), key=place))

    def _query(self, class_id: int, turn: int) -> str:
        lap, position = divmod(turn, len(self._pools[class_id]))
        if (class_id, lap) not in self._orders:
            self._orders[class_id, lap] = sorted(
                self._pools[class_id],
                key=lambda image: digest_int(self.seed, self.fold, class_id, "query", lap, image),
            )
        return self._orders[class_id, lap][position]

    def _support(self, class_id: int, i: int, shot: int, used: set[str]) -> str:
        pool = self._pools[class_id]
        if len(pool) <= len(used) and used.issuperset(pool):
            raise EpisodeError(
                f"episode {i}: all {len(pool)} images of {self._label(class_id)} are used by its "
                "other ways or as the query: use fewer --ways or --shots"
            )
        attempt = 0
        while True:
            key = (self.seed, self.fold, i, "support", class_id, shot, attempt)
            image = pool[draw(len(pool), *key)]
            if image not in used:
                return image
            attempt += 1

    def _label(self, class_id: int) -> str:
        name = self._names.get(class_id)
        return f"class {class_id} ({name})" if name else f"class {class_id}"

    def _too_few(self, class_id: int, pools: Mapping[int, Sequence[str]], least: int) -> str:
        rest = [self._label(c) for c in self.skipped if c != class_id]
        also = f" (also too few: {shorten(rest)})" if rest else ""
        return (
            f"{self._label(class_id)} has {len(pools[class_id])} qualifying images, "
            f"{self.shots}-shot episodes need {least}{also}: use fewer --shots, add "
            "images, lower --rule min_pixels=N, or leave such classes out with --rule "
            "short_classes=skip"
        )


def check_counts(ways: int, shots: int) -> None:
    """Raise EpisodeError unless both are at least 1."""
    for name, value in (("ways", ways), ("shots", shots)):
        if value < 1:
            raise EpisodeError(f"--{name} is {value}: it must be 1 or more")


def check_one_way(protocol: str, ways: int) -> None:
    """Raise EpisodeError for more ways than a published order has."""
    if ways != 1:
        raise EpisodeError(f"protocol {protocol} is 1-way: --ways {ways} is not possible")


def to_jsonl(specs: Iterable[EpisodeSpec]) -> Iterator[str]:
    """The lines of an episode list, each ending in a newline; keys in the order of the format."""
    for spec in specs:
        row = {
            "index": spec.index,
            "fold": spec.fold,
            "classes": spec.classes,
            "query": spec.query,
            "supports": spec.supports,
        }
        yield json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n"


def episodes_sha256(specs: Iterable[EpisodeSpec]) -> str:
    """Hex sha256 over the bytes of the JSONL list."""
    digest = hashlib.sha256()
    for line in to_jsonl(specs):
        digest.update(line.encode())
    return digest.hexdigest()
