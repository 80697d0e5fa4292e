"""The command that makes a run again."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

DEFAULTS = {"ways": 1, "seed": 0, "precision": "fp32", "cache_dtype": "fp32"}


def reproduce(record: Mapping[str, Any]) -> str:
    """`fss-bench evaluate …` of a run; paths that it does not know are in capitals."""
    return shlex.join(["fss-bench", "evaluate", record["method"], *_arguments(record)])


def _arguments(record: Mapping[str, Any]) -> Iterator[str]:
    dataset = record["dataset"]["name"].partition("@")[0]
    yield from ("--dataset", dataset)
    if dataset != "shapes":
        yield from ("--data-root", "DATA")
    yield from ("--fold", str(record["fold"]), "--shots", str(record["shots"]))
    yield from ("--protocol", record["protocol"]["label"])
    if record["protocol"].get("order") == "hsnet":
        yield from ("--split-lists", "LISTS")
    for name, usual in DEFAULTS.items():
        if record.get(name, usual) != usual:
            yield from (f"--{name.replace('_', '-')}", str(record[name]))
    yield from ("--backbone", record["backbone"])
    for key, value in sorted(record["backbone_options"].items()):
        yield from ("--backbone-option", f"{key}={value}")
    if record["checkpoint"] is not None:
        yield from ("--checkpoint", str(record["checkpoint"]["path"]))
    else:
        yield from ("--weights", str(record["weights"]["source"]))
    for key, value in sorted(record["method_options"].items()):
        yield from ("--option", f"{key}={value}")
