"""Whether results compare: which rules, data and episode lists of theirs differ.

Works on run records (run.json), of which some may lack fields that others have.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fss_bench.errors import FssBenchError, shorten

DATASET_FIELDS = ("name", "fingerprint", "classes_sha256")
NOT_RECORDED = "not recorded"
"""Stands for a value that a record does not have: it cannot be shown to be equal to another."""


def differences(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What differs between results, with the values it has; empty where all of them compare.

    Args:
        records: one a result: a run's record, or several runs made one by `joined`.

    Returns:
        The different values in the order in which they come, under `dataset.name`,
        `dataset.fingerprint`, `dataset.classes_sha256`, `ways`, `shots`, `protocol.label`,
        `protocol.<rule>` and `episodes.fold<i>` (the digests of that fold's episode lists).
    """
    described = [_described(record) for record in records]
    keys = dict.fromkeys(key for description in described for key in description)
    values = {key: _distinct(d.get(key, NOT_RECORDED) for d in described) for key in keys}
    return {key: found for key, found in values.items() if len(found) > 1}


def joined(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One record for the runs of one result: the first, with the episode lists of all.

    Several runs of a fold count in the order of their seeds.
    """
    ordered = sorted(records, key=lambda record: (record["fold"], record.get("seed", 0)))
    lists: dict[str, list[str]] = {}
    for record in ordered:
        lists.setdefault(_fold(record), []).append(record["episodes_sha256"])
    return {**ordered[0], "episode_lists": {fold: " ".join(d) for fold, d in lists.items()}}


def check_comparable(records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse results that do not compare.

    Raises:
        FssBenchError: they do not; names every field that differs, and its values.
    """
    found = differences(records)
    if found:
        raise FssBenchError(
            f"rows do not compare: {in_words(found)}: evaluate them with one protocol on one "
            "dataset, or rank them apart (without --together)"
        )


def in_words(found: Mapping[str, Sequence[Any]]) -> str:
    """Differences as one line: `protocol standard and hsnet differ in order (balanced, hsnet)`."""
    rules, others = [], []
    for key, values in found.items():
        group, _, name = key.rpartition(".")
        if group == "protocol" and name != "label":
            rules.append(f"{name} {_listed(values)}")
        elif group != "protocol":
            others.append(f"{group} {name} {_listed(values)}".lstrip())
    labels = shorten(found.get("protocol.label", ()), 4).replace(", ", " and ", 1)
    protocols = f"protocol {labels}" if labels else "their protocols"
    if rules or labels:
        others.insert(0, f"{protocols} differ in {', '.join(rules) or 'name'}")
    return "; ".join(others)


def _described(record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that must be equal, under the keys of `differences`."""
    dataset, protocol = record.get("dataset", {}), record.get("protocol", {})
    lists = record.get("episode_lists") or {_fold(record): record.get("episodes_sha256")}
    return {
        **{f"dataset.{k}": dataset[k] for k in DATASET_FIELDS if k in dataset},
        **{k: record[k] for k in ("ways", "shots") if k in record},
        **{f"protocol.{k}": v for k, v in protocol.items() if k != "name"},  # the label has it
        **{f"episodes.{fold}": digests for fold, digests in lists.items()},
    }


def _fold(record: Mapping[str, Any]) -> str:
    return f"fold{record.get('fold', '')}"


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once; a tuple and the list that JSON makes of it are one value."""
    return list({json.dumps(v, sort_keys=True, default=str): v for v in values}.values())


def _listed(values: Iterable[Any]) -> str:
    return f"({shorten(map(_shown, values), 4)})"


def _shown(value: Any) -> str:
    """A value in a message; of digests their start."""
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    if isinstance(value, str):
        return " ".join(w[:12] if len(w) == 64 else w for w in value.split(" "))
    return str(value).lower()
