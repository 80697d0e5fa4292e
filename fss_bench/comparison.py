"""Paired comparison of runs: difference of mIoU, its interval, and how likely chance makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss_bench.comparability import differences
from fss_bench.errors import FssBenchError
from fss_bench.metrics import class_counts, run_tables
from fss_bench.protocols import EvaluationProtocol
from fss_bench.results import ResultStore, Run, fingerprint
from fss_bench.statistics import bootstrap_difference, holm, permutation_p, pooled_mean_iou

if TYPE_CHECKING:
    import pandas as pd

SETTING = {"dataset.name": "dataset differs", "dataset.fingerprint": "dataset's index differs"}
SETTING |= {"dataset.classes_sha256": "class lists of the folds differ"}
SETTING |= {"ways": "ways differ", "shots": "shots differ"}
ENTRANT = "method method_options backbone backbone_options weights checkpoint precision".split()

ClassIds = frozenset[int]


@dataclass(frozen=True)
class Difference:
    """The mIoU of two sets of folds, fractions.

    Attributes:
        first, second: the mIoUs.
        ci95: 95 % bootstrap interval of the second less the first.
        paired: whether both are of the same episodes, which were then resampled together.
        p: two-sided p-value of a paired permutation test; None where it was not asked for or says
            nothing, as of different episodes or rules.
    """

    first: float
    second: float
    ci95: tuple[float, float]
    paired: bool
    p: float | None = None

    @property
    def value(self) -> float:
        """The second less the first."""
        return self.second - self.first


@dataclass(frozen=True)
class Compared:
    """A run beside the first one.

    Attributes:
        run: the run.
        difference: to the first run, on the same episodes.
        p: `difference.p`, corrected by Holm's method for the number of runs compared.
        notes: what else differs between the two.
    """

    run: Run
    difference: Difference
    p: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Counts of a set of folds, and the classes that the mean of each is over."""

    runs: Sequence[Run]
    classes: Sequence[ClassIds]

    @cached_property
    def tables(self) -> "list[pd.DataFrame]":
        """One row an (episode, way) of these classes, a table a fold and repetition."""
        return [
            _counts(table, kept)
            for run, kept in zip(self.runs, self.classes, strict=True)
            for table in run_tables(_in_order(run), run.record["protocol"].get("runs", 1))
        ]

    @cached_property
    def averaged(self) -> list[int | None]:
        """Number of classes averaged, a table each; None for those with a pixel.

        By the run's own rule `empty_class`. Under `skip` it is no constant: a resample may have
        pixels of other classes.
        """
        return [
            None if rules["empty_class"] == "skip" else len(kept)
            for rules, kept in zip(self.rules, self.classes, strict=True)
            for _ in range(rules["runs"])
        ]

    @property
    def miou(self) -> float:
        """Mean over folds and repetitions."""
        return pooled_mean_iou(self.tables, self.averaged)

    @cached_property
    def rules(self) -> list[dict[str, Any]]:
        """What the protocols of the runs say."""
        protocols = [with_all_rules(run.record)["protocol"] for run in self.runs]
        kept = [{k: v for k, v in p.items() if k not in ("name", "label")} for p in protocols]
        return [{**rules, "seeds": list(rules["seeds"])} for rules in kept]

    @property
    def area(self) -> int:
        """Pixels that IoU is computed on, where these depend on the method; else 1."""
        record = self.runs[0].record
        at_input = record["protocol"].get("iou_at") == "input"
        return int(record.get("input_size") or 1) ** 2 if at_input else 1

    def scaled(self, factor: int) -> "list[pd.DataFrame]":
        """The tables with all counts multiplied, which changes no IoU."""
        return [t.assign(inter=t["inter"] * factor, union=t["union"] * factor) for t in self.tables]

    def shares_episodes(self, other: "Sample") -> bool:
        """Whether all episodes are the same, and the same of them count."""
        return self.classes == other.classes and all(
            _same_episodes(one, two) for one, two in zip(self.runs, other.runs, strict=True)
        )


def compare_folds(
    first: Sequence[Run],
    second: Sequence[Run],
    *,
    classes: Sequence[ClassIds] | None = None,
    p_value: bool = False,
) -> Difference:
    """Compare two results over the same folds, paired where they are of the same episodes.

    Args:
        first, second: a run a fold, in the order of folds.
        classes: ids of the classes that a fold's mean is over on both sides, as `common_classes`
            gives them; by default each side has its own.
        p_value: also test the difference; possible of the same episodes alone.
    """
    before, after = (Sample(runs, classes or _class_ids(runs)) for runs in (first, second))
    paired = before.shares_episodes(after)
    averaged = (before.averaged, after.averaged)
    p = None
    # counts under two protocols are no like things: of other pixels, at another size, …
    if p_value and paired and before.rules == after.rules:
        tables = before.scaled(after.area), after.scaled(before.area)
        p = permutation_p(*tables, averaged)
    interval = bootstrap_difference(before.tables, after.tables, averaged, paired=paired)
    return Difference(before.miou, after.miou, interval, paired, p)


def compare_runs(runs: Sequence[Run]) -> list[Compared]:
    """Compare every run with the first, on the same episodes.

    Raises:
        FssBenchError: fewer than two runs, one of them twice, or two that do not compare; says
            what differs.
    """
    if len(runs) < 2:
        raise FssBenchError(f"{len(runs)} run to compare: give two or more")
    for one, other in combinations(runs, 2):
        if fingerprint(one.record) == fingerprint(other.record):
            raise FssBenchError(f"run {one.record['run_id']} is given twice: leave one out")
    first, *others = runs
    notes = [check_runs(first, run) for run in others]
    found = [
        compare_folds([first], [run], classes=common_classes([first], [run]), p_value=True)
        for run in others
    ]
    corrected = iter(holm([d.p for d in found if d.p is not None]))
    return [
        Compared(run, difference, None if difference.p is None else next(corrected), tuple(note))
        for run, difference, note in zip(others, found, notes, strict=True)
    ]


def common_classes(first: Sequence[Run], second: Sequence[Run]) -> list[ClassIds]:
    """Ids of the classes that both average over, a set a fold."""
    return [a & b for a, b in zip(_class_ids(first), _class_ids(second), strict=True)]


def left_out(first: Sequence[Run], second: Sequence[Run]) -> bool:
    """Whether one of the two averages over a class that the other does not."""
    return _class_ids(first) != _class_ids(second)


def check_runs(first: Run, second: Run) -> list[str]:
    """What differs between two runs that compare all the same, in words.

    Raises:
        FssBenchError: they do not compare: another setting, other episodes, episode tables that do
            not match, or another protocol and another entrant at once, whose effects cannot be told
            apart.
    """
    records = [with_all_rules(run.record) for run in (first, second)]
    _check_setting(records)
    if not _same_episodes(first, second):
        lengths = _both([f"{len(run.episodes)} rows" for run in (first, second)])
        raise FssBenchError(
            f"{_pair(records)} do not compare: their episode lists are equal, the rows of their "
            f"episode tables are not {lengths}: one is damaged: delete its folder and evaluate it "
            "again"
        )
    found = differences(records)
    rules = {
        key.removeprefix("protocol."): values
        for key, values in found.items()
        if key.startswith("protocol.") and key != "protocol.label"
    }
    notes = []
    if rules:
        listed = ", ".join(f"{rule} {_both(values)}" for rule, values in rules.items())
        entrant = [key for key in ENTRANT if records[0].get(key) != records[1].get(key)]
        if entrant:
            raise FssBenchError(
                f"{_pair(records)} do not compare: their protocols differ in {listed}, and so do "
                f"{', '.join(entrant)}: evaluate both under one protocol"
            )
        notes.append(
            f"the protocols differ: {listed}; that makes the difference; no p-value, since "
            "swapping episodes would mix unlike counts"
        )
    if left_out([first], [second]):
        number = len(common_classes([first], [second])[0])
        notes.append(f"averaged over the classes of both alone ({number})")
    if records[0]["code_sha256"] != records[1]["code_sha256"]:
        digests = _both([record["code_sha256"][:12] for record in records])
        notes.append(f"evaluated by other code {digests}; the file of a plug-in counts as code")
    if records[0]["device_type"] != records[1]["device_type"]:
        kinds = _both([record["device_type"] for record in records])
        notes.append(f"evaluated on other devices {kinds}")
    return notes


def with_all_rules(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the default of every protocol rule that it is older than."""
    defaults = EvaluationProtocol("").rules
    return {**record, "protocol": {**defaults, **record["protocol"]}}


def find_run(name: str, results: Path) -> Run:
    """A run by its folder, or by its id in a results folder.

    Raises:
        ResultsError: the run cannot be read.
        FssBenchError: there is no such run.
    """
    store = ResultStore(results)
    folder = Path(name)
    if (folder / "run.json").is_file():
        return store.load(folder)
    files = sorted((results / "runs").rglob("run.json"))
    found = [f.parent for f in files if name and f.parent.name.endswith(f"-{name}")]
    if not found:
        raise FssBenchError(
            f"run {name!r} is neither the folder of a run nor an id under {results / 'runs'}: see "
            "column `runs` of leaderboard.csv, or pass --results"
        )
    if len(found) > 1:
        raise FssBenchError(
            f"run {name!r} is the end of {len(found)} names under {results / 'runs'}: give its "
            f"folder, such as {found[0]}"
        )
    return store.load(found[0])


def _class_ids(runs: Sequence[Run]) -> list[ClassIds]:
    return [frozenset(s.class_id for s in run.metrics.per_class.values()) for run in runs]


def _in_order(run: Run) -> "pd.DataFrame":
    return run.episodes.sort_values("index", kind="stable")


def _same_episodes(first: Run, second: Run) -> bool:
    """Whether the lists are one list, repeated as often, and the tables have its rows."""
    records = [with_all_rules(run.record) for run in (first, second)]
    lists = [(record["episodes_sha256"], record["protocol"]["runs"]) for record in records]
    if lists[0] != lists[1]:
        return False
    tables = [_in_order(run) for run in (first, second)]
    same = all(tables[0][key].tolist() == tables[1][key].tolist() for key in ("index", "query"))
    classes = [[list(ids) for ids in table["class_ids"]] for table in tables]
    return same and classes[0] == classes[1]


def _counts(table: "pd.DataFrame", classes: ClassIds) -> "pd.DataFrame":
    """`class_counts` of these classes."""
    rows = class_counts(table)
    return rows[rows["class_id"].isin(classes)]


def _check_setting(records: Sequence[Mapping[str, Any]]) -> None:
    differing = differences(records)
    found = [
        f"the {text} {_both([str(value)[:24] for value in differing[key]])}"
        for key, text in SETTING.items()
        if key in differing
    ]
    folds = [record["fold"] for record in records]
    if folds[0] != folds[1]:
        found.append(f"the fold differs {_both(folds)}")
    digests = [record["episodes_sha256"] for record in records]
    if digests[0] != digests[1]:
        found.append(f"the episodes differ {_both([digest[:12] for digest in digests])}")
    if found:
        raise FssBenchError(
            f"{_pair(records)} do not compare: {', '.join(found)}: evaluate both on one dataset, "
            "fold, ways, shots, protocol and seed"
        )


def _pair(records: Sequence[Mapping[str, Any]]) -> str:
    return f"runs {records[0]['run_id']} and {records[1]['run_id']}"


def _both(values: Sequence[Any]) -> str:
    return f"({', '.join(map(str, values))})"
