"""A setting: dataset, fold, ways, shots, protocol and seed, resolved to a list of episodes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fss_bench.dataset import SegDataset
from fss_bench.episodes import (
    EpisodeSampler,
    EpisodeSpec,
    check_counts,
    check_one_way,
    episodes_sha256,
)
from fss_bench.errors import DatasetError, EpisodeError, FssBenchError
from fss_bench.protocols import LARGEST_SEED, PROTOCOLS, EvaluationProtocol, get_protocol
from fss_bench.published_draws import ORDERS, Listed
from fss_bench.published_orders import HSNetLists, hsnet_episodes, read_hsnet_lists

COCO = "coco20i"
"""The dataset that the rule `coco_episodes` is about."""
DATASET_RULES = ("fold_scheme", "coco_overlap", "coco_crowd")
"""Rules that a dataset decides when it is opened."""


@dataclass(frozen=True)
class Setting:
    """What one run is about.

    Attributes:
        dataset: the data.
        protocol: resolved: the named protocol, what the dataset changes, what the user changes.
        fold, ways, shots, seed: see the glossary.
        specs: the episodes.
        classes: class ids that mIoU is a mean over.
        skipped: novel classes left out for lack of images.
    """

    dataset: SegDataset
    protocol: EvaluationProtocol
    fold: int
    ways: int
    shots: int
    seed: int
    specs: Sequence[EpisodeSpec]
    classes: Sequence[int]
    skipped: Sequence[int] = ()

    @cached_property
    def sha256(self) -> str:
        """Digest of the episode list."""
        return episodes_sha256(self.specs)


def create_setting(
    dataset: SegDataset,
    protocol: str | EvaluationProtocol = "standard",
    *,
    fold: int = 0,
    ways: int = 1,
    shots: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    rules: Mapping[str, Any] | None = None,
    split_lists: Path | None = None,
) -> Setting:
    """Resolve the protocol and draw the test episodes.

    Args:
        dataset: the data.
        protocol: name, or a protocol of your own.
        fold, ways, shots, seed: see the glossary in docs/architecture.md.
        episodes: number of episodes; by default the protocol's.
        rules: changed protocol rules.
        split_lists: folder of published lists, for protocols that read them.

    Raises:
        FssBenchError: a fold out of range, an unknown rule, or too few images.
    """
    novel = dataset.novel_classes(fold)
    protocol = resolve_protocol(dataset, protocol, rules or {}, episodes)
    check_counts(ways, shots)
    _check_seed(protocol, seed)
    runs: list[Sequence[EpisodeSpec]] = []
    for run_seed in protocol.seeds or range(seed, seed + protocol.runs):
        draws = _Draws(dataset, protocol, fold, ways, shots, run_seed, split_lists)
        drawn, skipped = draws.episodes()
        runs.append(drawn)
    classes = [c for c in novel if c not in skipped]
    return Setting(dataset, protocol, fold, ways, shots, seed, _numbered(runs), classes, skipped)


def _numbered(runs: Iterable[Sequence[EpisodeSpec]]) -> list[EpisodeSpec]:
    """The episodes of several runs after each other, numbered through."""
    specs = [spec for run in runs for spec in run]
    return [s if s.index == i else replace(s, index=i) for i, s in enumerate(specs)]


@dataclass(frozen=True)
class _Draws:
    """What one run's episodes are drawn from."""

    dataset: SegDataset
    protocol: EvaluationProtocol
    fold: int
    ways: int
    shots: int
    seed: int
    split_lists: Path | None

    def episodes(self) -> tuple[Sequence[EpisodeSpec], Sequence[int]]:
        """The specs, and the classes left out for lack of images."""
        protocol = self.protocol
        count = episodes_of(protocol, self.dataset)
        if protocol.order == "hsnet":
            return self._hsnet(count), ()
        if protocol.order != "balanced":
            draw_order = ORDERS[protocol.order]
            return draw_order(self._listed(), self.ways, self.shots, count, self.seed)
        sampler = self._sampler()
        return sampler.take(count), sampler.skipped

    def _sampler(self) -> EpisodeSampler:
        index, protocol = self.dataset.index, self.protocol
        novel = self.dataset.novel_classes(self.fold)
        present = None
        if protocol.min_pixels_of == "image":
            present = {
                image: sorted(pixels)
                for image, pixels in index.class_pixels(protocol.test_split, novel).items()
                if max(pixels.values()) >= protocol.min_pixels
            }
        return EpisodeSampler(
            index.pools(protocol.test_split, novel, protocol.min_pixels),
            fold=self.fold,
            ways=self.ways,
            shots=self.shots,
            seed=self.seed,
            names=self.dataset.class_names,
            short_classes=protocol.short_classes,
            class_draw=protocol.class_draw,
            support_draw=protocol.support_draw,
            support_query=protocol.support_query,
            present=present,
        )

    def _listed(self) -> Listed:
        novel = self.dataset.novel_classes(self.fold)
        pixels = self.dataset.index.class_pixels(self.protocol.test_split, novel)
        ordered = {image: pixels[image] for image in sorted(pixels)}  # as VOC's and BAM's lists are
        names = {c: self.dataset.class_names[c] for c in novel}
        return Listed(self.fold, ordered, self.protocol, names)

    def _hsnet(self, count: int) -> list[EpisodeSpec]:
        protocol, dataset = self.protocol, self.dataset
        check_one_way(protocol.name, self.ways)
        if self.split_lists is None:
            raise DatasetError(
                f"protocol {protocol.name} replays published lists: pass their folder with "
                "--split-lists"
            )
        if protocol.fold_scheme != "interleaved":
            raise EpisodeError(f"protocol {protocol.name} has lists for interleaved folds only")
        lists = read_hsnet_lists(self.split_lists, dataset.name, self.fold)
        lists = lists.restricted_to(dataset.images("test"))
        if not any(lists.by_class.values()):
            raise DatasetError(
                "none of the images of the official list is among the test images of "
                f"{dataset.identity}: use the data that the list was made for"
            )
        return _hsnet_episodes(lists, protocol, self.fold, self.shots, count, self.seed)


def episodes_of(protocol: EvaluationProtocol, dataset: SegDataset | str) -> int:
    """Episodes a fold and run of a protocol on a dataset; 0 is all pairs once."""
    name = dataset if isinstance(dataset, str) else dataset.name
    own = protocol.coco_episodes if name == COCO else None
    return protocol.episodes if own is None else own


def protocol_dataset_options(
    protocol: str | EvaluationProtocol,
    dataset: type[SegDataset],
    root: Path | None,
    rules: Mapping[str, Any],
) -> dict[str, Any]:
    """Options that open a dataset as a protocol asks for it, such as its folds.

    Args:
        protocol: see `get_protocol`.
        dataset: the dataset's class, whose `rule_options` tells which rules are its own.
        root: its folder.
        rules: changed rules.
    """
    resolved = get_protocol(protocol).replace_rules(rules)
    return {option: getattr(resolved, rule) for rule, option in dataset.rule_options(root).items()}


def resolve_protocol(
    dataset: SegDataset,
    protocol: str | EvaluationProtocol,
    rules: Mapping[str, Any],
    episodes: int | None = None,
) -> EvaluationProtocol:
    """The named protocol, then what the dataset changes, then what the user changes.

    Raises:
        FssBenchError: an unknown protocol or rule, or one that does not go with the dataset.
    """
    resolved = get_protocol(protocol)
    for rule in DATASET_RULES:
        if rule in resolved.changes and rule in dataset.rules:
            _check_opened(dataset, rule, getattr(resolved, rule))
    resolved = resolved.replace_rules(_applicable(dataset.rules, resolved))
    if "coco_episodes" in rules and dataset.name != COCO:
        raise FssBenchError(
            f"rule coco_episodes={rules['coco_episodes']}: it is about {COCO}, this is "
            f"{dataset.name}: leave it out"
        )
    own_count = dataset.name == COCO and resolved.coco_episodes is not None
    if own_count and "episodes" in rules:
        raise FssBenchError(
            f"rule episodes={rules['episodes']}: on {COCO} protocol {resolved.name} goes by "
            f"coco_episodes={resolved.coco_episodes}: use --episodes {rules['episodes']}"
        )
    resolved = _changed(resolved, rules, dataset)
    _check_points(resolved)
    if episodes is not None:
        resolved = resolved.replace_rules({"coco_episodes" if own_count else "episodes": episodes})
    return resolved


def _applicable(rules: Mapping[str, Any], protocol: EvaluationProtocol) -> dict[str, Any]:
    """A dataset's rules; those for drawing touch neither published lists nor a user's own rules."""
    kept = set(protocol.changes) if protocol.order != "hsnet" else {"min_pixels", "short_classes"}
    return {k: v for k, v in rules.items() if k in DATASET_RULES or k not in kept}


def _changed(
    protocol: EvaluationProtocol, rules: Mapping[str, Any], dataset: SegDataset
) -> EvaluationProtocol:
    """The protocol with a user's rules; those that a dataset decided when opened cannot change."""
    changed = protocol.replace_rules(rules)
    for rule in DATASET_RULES:
        value = getattr(changed, rule)
        if value != getattr(protocol, rule):
            if rule not in dataset.rules:
                raise FssBenchError(
                    f"rule {rule}={value}: it changes nothing of {dataset.name}: leave it out"
                )
            _check_opened(dataset, rule, value)
    return changed


def _check_opened(dataset: SegDataset, rule: str, value: str) -> None:
    if dataset.rules[rule] != value:
        raise FssBenchError(
            f"rule {rule}={value}: {dataset.name} was opened with {dataset.rules[rule]}: give it "
            f"as --dataset-option {rule.removeprefix('coco_')}={value} instead"
        )


def _check_points(protocol: EvaluationProtocol) -> None:
    """Refuse a rule without effect: equal numbers would be ranked apart."""
    usual = PROTOCOLS.get(protocol.name, protocol).annotation_points
    if protocol.annotation != "points" and protocol.annotation_points != usual:
        raise FssBenchError(
            f"rule annotation_points={protocol.annotation_points}: the annotation is "
            f"{protocol.annotation}: add --annotation points, or leave it out"
        )


def listed_episodes(
    dataset: str,
    protocol: str | EvaluationProtocol,
    split_lists: Path,
    *,
    fold: int,
    shots: int,
    ways: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    rules: Mapping[str, Any] | None = None,
) -> list[EpisodeSpec]:
    """Episodes of a published order over the whole of its lists; needs no data.

    Raises:
        DatasetError: a list is missing or not the official one.
        EpisodeError: the protocol reads no lists, or has none for this dataset and fold.
    """
    resolved = get_protocol(protocol).replace_rules(dict(rules or {}))
    if episodes is not None:
        resolved = resolved.replace_rules({"episodes": episodes})
    _check_seed(resolved, seed)
    if resolved.order != "hsnet":
        raise EpisodeError(
            f"protocol {resolved.name} draws episodes from the data: pass its folder with "
            "--data-root"
        )
    check_counts(ways, shots)
    check_one_way(resolved.name, ways)
    lists = read_hsnet_lists(split_lists, dataset, fold)
    runs = [
        _hsnet_episodes(lists, resolved, fold, shots, episodes_of(resolved, dataset), run_seed)
        for run_seed in resolved.seeds or range(seed, seed + resolved.runs)
    ]
    return _numbered(runs)


def _hsnet_episodes(
    lists: HSNetLists,
    protocol: EvaluationProtocol,
    fold: int,
    shots: int,
    episodes: int,
    seed: int,
) -> list[EpisodeSpec]:
    repeats = protocol.support_draw == "repeat"
    return hsnet_episodes(
        lists, fold=fold, shots=shots, episodes=episodes, seed=seed, repeats=repeats
    )


def _check_seed(protocol: EvaluationProtocol, seed: int) -> None:
    if protocol.seeds and seed:
        raise EpisodeError(
            f"--seed {seed}: protocol {protocol.name} has its own seeds: drop it, or change them "
            f"with --rule seeds={seed}"
        )
    if protocol.order == "hsnet" and not 0 <= seed <= LARGEST_SEED:
        raise EpisodeError(f"--seed {seed}: order hsnet takes 0 to {LARGEST_SEED}")
