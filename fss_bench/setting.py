"""A setting: dataset, fold, ways, shots, protocol and seed, resolved to a list of episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSampler, EpisodeSpec, check_counts, episodes_sha256
from fss_bench.errors import DatasetError, EpisodeError, FssBenchError
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol, get_protocol
from fss_bench.published_orders import hsnet_episodes, read_hsnet_lists

DATASET_RULES = ("fold_scheme", "coco_overlap", "coco_crowd")


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
    protocol = get_protocol(protocol)
    protocol = protocol.replace_rules(_applicable(dataset.rules, protocol))
    protocol = _changed(protocol, rules or {}, dataset)
    _check_points(protocol)
    if episodes is not None:
        protocol = protocol.replace_rules({"episodes": episodes})
    if protocol.order == "hsnet":
        specs = _hsnet_specs(dataset, protocol, fold, ways, shots, split_lists)
        return Setting(dataset, protocol, fold, ways, shots, seed, specs, novel)
    sampler = EpisodeSampler(
        dataset.index.pools("test", novel, protocol.min_pixels),
        fold=fold,
        ways=ways,
        shots=shots,
        seed=seed,
        names=dataset.class_names,
        short_classes=protocol.short_classes,
    )
    specs = sampler.take(protocol.episodes)
    return Setting(
        dataset, protocol, fold, ways, shots, seed, specs, sampler.classes, sampler.skipped
    )


def train_sampler(
    dataset: SegDataset,
    protocol: EvaluationProtocol,
    *,
    fold: int,
    ways: int = 1,
    shots: int = 1,
    seed: int = 0,
) -> EpisodeSampler:
    """Training episodes: base classes and training images; never a novel class.

    Under `base_images="drop"` images with any novel pixel are left out; under `"background"` they
    stay, and masks of base classes show novel objects as background.
    """
    novel = dataset.novel_classes(fold)
    pools = dataset.index.pools(
        "train",
        dataset.base_classes(fold),
        protocol.min_pixels,
        without=novel if protocol.base_images == "drop" else (),
    )
    return EpisodeSampler(
        pools,
        fold=fold,
        ways=ways,
        shots=shots,
        seed=seed,
        names=dataset.class_names,
        short_classes=protocol.short_classes,
    )


def _applicable(rules: Mapping[str, Any], protocol: EvaluationProtocol) -> dict[str, Any]:
    """A dataset's rules; those for drawing episodes do not touch a published order."""
    drawing = {"min_pixels", "short_classes"}
    published = protocol.order != "balanced"
    return {k: v for k, v in rules.items() if not (published and k in drawing)}


def _changed(
    protocol: EvaluationProtocol, rules: Mapping[str, Any], dataset: SegDataset
) -> EvaluationProtocol:
    """The protocol with a user's rules; those that a dataset decided when opened cannot change."""
    changed = protocol.replace_rules(rules)
    for rule in DATASET_RULES:
        if getattr(changed, rule) != getattr(protocol, rule):
            raise FssBenchError(
                f"rule {rule}={getattr(changed, rule)}: {dataset.name} was opened with "
                f"{getattr(protocol, rule)}: give it as --dataset-option "
                f"{rule.removeprefix('coco_')}={getattr(changed, rule)} instead"
            )
    return changed


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
    if resolved.order != "hsnet":
        raise EpisodeError(
            f"protocol {resolved.name} draws episodes from the data: pass its folder with "
            "--data-root"
        )
    _check_one_way(resolved, ways, shots)
    lists = read_hsnet_lists(split_lists, dataset, fold)
    return hsnet_episodes(lists, fold=fold, shots=shots, episodes=resolved.episodes)


def _hsnet_specs(
    dataset: SegDataset,
    protocol: EvaluationProtocol,
    fold: int,
    ways: int,
    shots: int,
    split_lists: Path | None,
) -> list[EpisodeSpec]:
    _check_one_way(protocol, ways, shots)
    if split_lists is None:
        raise DatasetError(
            f"protocol {protocol.name} replays published lists: pass their folder with "
            "--split-lists"
        )
    if protocol.fold_scheme != "interleaved":
        raise EpisodeError(f"protocol {protocol.name} has lists for interleaved folds only")
    lists = read_hsnet_lists(split_lists, dataset.name, fold)
    lists = lists.restricted_to(dataset.images("test"))
    if not any(lists.by_class.values()):
        raise DatasetError(
            "none of the images of the official list is among the test images of "
            f"{dataset.identity}: use the data that the list was made for"
        )
    return hsnet_episodes(lists, fold=fold, shots=shots, episodes=protocol.episodes)


def _check_one_way(protocol: EvaluationProtocol, ways: int, shots: int) -> None:
    check_counts(ways, shots)
    if ways != 1:
        raise EpisodeError(f"protocol {protocol.name} is 1-way: --ways {ways} is not possible")
