"""How much each protocol rule changes mIoU: pairs of results that differ in one rule alone."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fss_bench.comparison import (
    Difference,
    common_classes,
    compare_folds,
    left_out,
    with_all_rules,
)
from fss_bench.errors import FssBenchError
from fss_bench.leaderboard import Row, build_rows
from fss_bench.protocols import ORDER_RULES, EvaluationProtocol, get_protocol, shown
from fss_bench.results import ResultStore, Run, fingerprint
from fss_bench.setting import DATASET_RULES

SEED = "seed"
"""A rule in name only: the same rules on other episodes, the yardstick of episode noise."""
FOLDS = "fold_scheme"
"""The rule under which a fold holds other classes."""
GIVEN = {"episodes", "coco_episodes", "short_classes", "min_pixels", *DATASET_RULES}
"""Rules that a base may have otherwise than its protocol: a dataset gives them, or --episodes."""
ENTRANT = "method method_options backbone backbone_options precision ways shots".split()


@dataclass(frozen=True)
class Effect:
    """What one changed rule did to one method's mIoU; scores are fractions.

    Attributes:
        rule: its name, or `seed`.
        before, after: its value in the base and in the changed protocol.
        base: label of the base's protocol.
        further: rules of the base that are not the base protocol's: `("iou_at=input",)`.
        origin: `base` without these, under which the effect is listed.
        base_seed: seed of the base.
        method, backbone, weights: as in the leaderboard.
        dataset: identity of the base's data.
        ways, shots: see the glossary.
        folds: how many folds both have.
        dataset_folds: how many the dataset has.
        episodes: of the changed result, over these folds.
        runs_base, runs_changed: ids of the runs compared, in fold order.
        episodes_sha256_base, episodes_sha256_changed: digest over their episode lists', as in the
            leaderboard.
        difference: mIoU of both, over the classes that both average, and the interval of their
            difference.
        remarks: what else differs between the two.
    """

    rule: str
    before: Any
    after: Any
    base: str
    further: tuple[str, ...]
    origin: str
    base_seed: tuple[int, ...]
    method: str
    backbone: str
    weights: str
    dataset: str
    ways: int
    shots: int
    folds: int
    dataset_folds: int
    episodes: int
    runs_base: str
    runs_changed: str
    episodes_sha256_base: str
    episodes_sha256_changed: str
    difference: Difference
    remarks: tuple[str, ...] = ()

    @property
    def setting(self) -> tuple[str, int, int, str]:
        """What a panel is about: dataset, ways, shots, origin."""
        return self.dataset, self.ways, self.shots, self.origin

    @property
    def entrant(self) -> tuple[str, str, str]:
        """Method, backbone, weights."""
        return self.method, self.backbone, self.weights

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorting: a group's largest effects first, seeds last."""
        size = -round(abs(self.difference.value), 4)
        values = (self.rule, shown(self.before), shown(self.after), self.further)
        return (*self.setting, *self.entrant, self.base_seed, self.rule == SEED, size, values)


@dataclass(frozen=True)
class _Result:
    """One row of the leaderboard with all that its protocol says."""

    row: Row

    @cached_property
    def record(self) -> dict[str, Any]:
        return with_all_rules(next(iter(self.row.folds.values())).record)

    @cached_property
    def rules(self) -> dict[str, Any]:
        """Every rule, with the seeds that the runs were in fact drawn from."""
        return _resolved(self.record["protocol"], self.record["seed"])

    @cached_property
    def group(self) -> str:
        """What is the same in all results that are compared with each other."""
        record, checkpoint = self.record, self.record["checkpoint"]
        return fingerprint(
            [record[key] for key in ENTRANT],
            _plain(record["dataset"]["name"]),
            checkpoint.get("series") or checkpoint["path"] if checkpoint else record["weights"],
        )

    @property
    def worth(self) -> tuple[bool, str]:
        """Of two results under the same rules the complete, then the later one counts."""
        return self.row.complete, max(run.record["finished"] for run in self.row.folds.values())


def effects_in(
    store: ResultStore,
    base: str | EvaluationProtocol = "standard",
    skipped: Callable[[str], None] | None = None,
) -> list[Effect]:
    """The effects found among the runs of a results folder.

    Args:
        store: the results folder.
        base: a protocol.
        skipped: told about each run that cannot be read; by default such a run raises.

    Raises:
        ResultsError: a run cannot be read.
        FssBenchError: there is no such protocol or folder, or no two results that tell a rule's
            effect.
    """
    protocol = get_protocol(base)
    if not store.root.is_dir():
        raise FssBenchError(
            f"results folder {store.root} does not exist: run `fss-bench evaluate` first, or pass "
            "--results"
        )
    effects = find_effects(store.runs(skipped), protocol)
    if not effects:
        typed = base if isinstance(base, str) else protocol.label
        raise FssBenchError(
            f"no two results in {store.root} differ in one rule from {typed}: evaluate one method "
            f"under both, as with {_commands(typed, protocol)}"
        )
    return effects


def find_effects(runs: Iterable[Run], base: str | EvaluationProtocol = "standard") -> list[Effect]:
    """All pairs of results of which one changes a rule of the base protocol and nothing else.

    Base results have the rules of `base` but for those that a dataset gives, the number of episodes
    and the seed. A result is compared with the base result whose rules, seeds included, are its own
    but for one. Where it changes several rules it is compared with the results that change all of
    these but one, for that one's effect; not with those of another order. Only folds and classes
    that both have count.

    Args:
        runs: finished runs.
        base: a protocol.

    Raises:
        FssBenchError: there is no such protocol.
    """
    protocol = get_protocol(base)
    reference = _resolved(protocol.rules, 0)
    groups: dict[str, dict[str, _Result]] = defaultdict(dict)
    for result in sorted(map(_Result, build_rows(runs)), key=lambda r: r.worth):
        identity = fingerprint(result.rules, result.record["dataset"])
        groups[result.group][identity] = result
    effects = [
        effect
        for results in groups.values()
        for before, after, rule in _pairs(list(results.values()), reference)
        for effect in _effects(before, after, rule, protocol)
    ]
    return sorted(effects, key=lambda effect: effect.order)


def _resolved(protocol: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Rules as plain values; `seeds` become `seed`, those that the repetitions are drawn from."""
    rules = {k: v for k, v in protocol.items() if k not in ("name", "label", "seeds")}
    return {**rules, SEED: list(protocol["seeds"] or range(seed, seed + protocol["runs"]))}


def _changed_rules(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Rules that somebody changed; not those that another change brings with it."""
    changed = {rule for rule in {**before, **after} if before.get(rule) != after.get(rule)}
    if "runs" in changed:  # more repetitions have more seeds; the common ones are the same
        seeds = zip(before[SEED], after[SEED], strict=False)
        changed -= {SEED} if all(a == b for a, b in seeds) else set()
    if "order" in changed:  # a published order fixes other rules
        changed -= set(ORDER_RULES.get(after["order"], ()))
    return changed


def _pairs(
    results: Sequence[_Result], reference: Mapping[str, Any]
) -> Iterator[tuple[_Result, _Result, str]]:
    """Base result, changed result, and the rule."""
    for before in results:
        further = _further(before.rules, reference)
        if "order" in further:
            continue  # another published protocol, to be asked for as --base
        for after in results:
            changed = _changed_rules(before.rules, after.rules)
            if len(changed) != 1 or any(after.rules.get(r) != v for r, v in further.items()):
                continue
            (rule,) = changed
            away = before.rules[rule] == reference.get(rule)
            if rule == SEED:  # the noise of the base protocol alone is the yardstick
                away = not further and before.rules[SEED] == _lowest_seed(before, results)
            if away and _same_data(before, after, rule):
                yield before, after, rule


def _further(rules: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Rules that are not the base protocol's, but for those that any base may have otherwise."""
    free = {*GIVEN, SEED}
    return {k: v for k, v in rules.items() if k not in free and v != reference.get(k)}


def _lowest_seed(result: _Result, results: Sequence[_Result]) -> list[int]:
    """Among the results with these rules, the seed that others are compared with."""
    alike = [r for r in results if _changed_rules(result.rules, r.rules) <= {SEED}]
    seeds: list[int] = min(r.rules[SEED] for r in alike if _same_data(result, r, SEED))
    return seeds


def _same_data(before: _Result, after: _Result, rule: str) -> bool:
    """Whether the data are the same, but for what the rule does to them."""
    one, other = before.record["dataset"], after.record["dataset"]
    if rule not in DATASET_RULES:
        keys = ("name", "fingerprint", "classes_sha256")
        return all(one[key] == other[key] for key in keys)
    same_folds = rule == FOLDS or one["classes_sha256"] == other["classes_sha256"]
    same_size = one.get("test_images") == other.get("test_images")
    return same_folds and same_size and _plain(one["name"]) == _plain(other["name"])


def _effects(
    before: _Result, after: _Result, rule: str, protocol: EvaluationProtocol
) -> Iterator[Effect]:
    """The effect of a pair; none if they have no fold in common."""
    folds = sorted(before.row.folds.keys() & after.row.folds.keys())
    total = before.row.dataset_folds
    if rule == FOLDS and len(folds) < total:
        return  # fold 0 of the one holds other classes than fold 0 of the other
    sides = [before.row.folds, after.row.folds]
    if rule != FOLDS:
        folds = [f for f in folds if any(common_classes(*([side[f]] for side in sides)))]
    if not folds:
        return
    rows = [Row({fold: side[fold] for fold in folds}) for side in sides]
    first, second = ([*row.folds.values()] for row in rows)
    classes = None if rule == FOLDS else common_classes(first, second)
    remarks = [*_remarks(before.record, after.record)]
    if classes and left_out(first, second):
        remarks.append(f"{sum(map(len, classes))} classes of both")
    further = _changed_rules(_resolved(protocol.rules, 0), before.rules) - {*GIVEN, SEED}
    method, backbone, weights = before.row.names
    yield Effect(
        rule=rule,
        before=before.rules[rule],
        after=after.rules[rule],
        base=before.record["protocol"]["label"],
        further=tuple(f"{name}={shown(before.rules[name])}" for name in sorted(further)),
        origin=_origin(before.record["protocol"], protocol, further),
        base_seed=tuple(before.rules[SEED]),
        method=method,
        backbone=backbone,
        weights=weights,
        dataset=before.record["dataset"]["name"],
        ways=before.record["ways"],
        shots=before.record["shots"],
        folds=len(folds),
        dataset_folds=total,
        episodes=sum(len(run.episodes) for run in second),
        runs_base=rows[0].run_ids,
        runs_changed=rows[1].run_ids,
        episodes_sha256_base=rows[0].episodes_sha256,
        episodes_sha256_changed=rows[1].episodes_sha256,
        difference=compare_folds(first, second, classes=classes),
        remarks=tuple(remarks),
    )


def _origin(base: Mapping[str, Any], protocol: EvaluationProtocol, further: set[str]) -> str:
    """Label of the base without its further changes."""
    if not further:
        return str(base["label"])
    kept = {rule: base[rule] for rule in GIVEN}
    if "runs" not in further:
        kept["seeds"] = tuple(base["seeds"])
    return replace(protocol, **kept).label


def _commands(typed: str, protocol: EvaluationProtocol) -> str:
    """What to run for an effect of a rule that the protocol does not have so already."""
    change = "query_ignore=background"
    if protocol.query_ignore == "background":
        change = f"iou_at={'input' if protocol.iou_at == 'original' else 'original'}"
    both = shlex.quote(f"{typed},{typed}+{change}")
    return f"`fss-bench evaluate panet --protocol {both}`"


def _remarks(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for key, what in (("code_sha256", "code"), ("device_type", "device")):
        if before[key] != after[key]:
            yield f"other {what}"


def _plain(name: str) -> str:
    """The dataset's name without what tells its trees apart."""
    return name.partition("@")[0]
