"""Metrics that are computed a second time agree with the first, and wrong ones are found."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fss_bench.errors import ResultsError
from fss_bench.metrics import compute_metrics, confusion, episode_counts
from fss_bench.recount import check_metrics
from fss_bench.results import ResultStore, Run

NAMES = {1: "cat", 2: "dog", 3: "cow"}


def episode_table(seed: int, episodes: int, ways: int) -> pd.DataFrame:
    """Scores of random label maps; some episodes have no pixel of a class."""
    rng, rows = np.random.RandomState(seed), []
    for index in range(episodes):
        values = [*range(rng.randint(1, ways + 2)), 255]
        matrix = confusion(rng.randint(0, ways + 1, (4, 5)), rng.choice(values, (4, 5)), ways)
        row: dict[str, Any] = {"class_ids": rng.permutation([1, 2, 3])[:ways].tolist()}
        row |= {"index": index} | episode_counts(matrix, drop_vanished=True).columns()
        row |= episode_counts(matrix, True, True).columns("_255bg")
        rows.append(row)
    return pd.DataFrame(rows).sample(frac=1, random_state=seed)


def content(table: pd.DataFrame, rules: dict[str, Any]) -> dict[str, Any]:
    """The part of run.json that is checked."""
    rule = rules["empty_class"], rules["fb_iou"], rules["runs"]
    metrics = compute_metrics(table, NAMES, [1, 2, 3], *rule)
    return {"protocol": rules, "metrics": json.loads(json.dumps(asdict(metrics)))}


rule_sets = st.fixed_dictionaries(
    {
        "empty_class": st.sampled_from(["skip", "zero", "clamp"]),
        "fb_iou": st.sampled_from(["fold", "all-folds", "class-mean", "foreground"]),
        "runs": st.sampled_from([1, 2, 3]),
    }
)


@given(seed=st.integers(0, 10**6), ways=st.integers(1, 3), rules=rule_sets)
def test_both_computations_agree_under_every_rule(
    seed: int, ways: int, rules: dict[str, Any]
) -> None:
    table = episode_table(seed, 6, ways)
    check_metrics(content(table, rules), table)


SCORES = ("miou", "fb_iou", "miou_255_as_background")


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("change", [1e-9, -1e-9, float("nan"), float("inf")])
def test_a_score_that_is_not_that_of_the_table_is_found(name: str, change: float) -> None:
    table = episode_table(1, 12, 1)
    wrong = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 1})
    wrong["metrics"][name] += change
    with pytest.raises(ValueError, match=f"its {name} .* that of its table"):
        check_metrics(wrong, table)


@pytest.mark.parametrize("name", ["iou", "inter", "union", "episodes"])
def test_a_class_that_is_not_as_in_the_table_is_found(name: str) -> None:
    table = episode_table(1, 12, 1)
    wrong = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 1})
    wrong["metrics"]["per_class"]["dog"][name] += 1
    with pytest.raises(ValueError, match="its scores of dog are not those of its table"):
        check_metrics(wrong, table)


def test_a_run_may_be_of_one_episode() -> None:
    table = episode_table(1, 3, 1)
    check_metrics(content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 3}), table)


def test_a_protocol_that_does_not_say_how_often_means_once() -> None:
    table = episode_table(1, 12, 1)
    found = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 1})
    check_metrics({**found, "protocol": {"empty_class": "skip"}}, table)


def test_an_interval_may_reach_to_all_of_it() -> None:
    table = episode_table(1, 12, 1)
    found = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 1})
    found["metrics"]["miou_ci95"] = [0.0, 1.0]
    check_metrics(found, table)


def test_a_class_that_is_left_out_is_found() -> None:
    table = episode_table(1, 12, 1)
    rules = {"empty_class": "skip", "fb_iou": "fold", "runs": 1}
    metrics = compute_metrics(table, NAMES, [1, 3])  # a mean over two of three classes
    wrong = {"protocol": rules, "metrics": json.loads(json.dumps(asdict(metrics)))}
    with pytest.raises(ValueError, match="it has no score of class 2 of its table"):
        check_metrics(wrong, table)


@pytest.mark.parametrize("runs", [0, -1, 5, 24, 10**9, 2.0, True, "2"])
def test_another_number_of_repetitions_is_found(runs: object) -> None:
    table = episode_table(1, 12, 1)
    wrong = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 2})
    wrong["protocol"]["runs"] = runs
    with pytest.raises(ValueError, match=f"its 12 episodes are not those of {runs} runs"):
        check_metrics(wrong, table)


def test_a_repetition_that_is_not_that_of_the_table_is_found() -> None:
    table = episode_table(1, 12, 1)
    wrong = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 2})
    first, second = wrong["metrics"]["miou_runs"]
    wrong["metrics"]["miou_runs"] = [second, first]
    with pytest.raises(ValueError, match="its miou_runs"):
        check_metrics(wrong, table)
    wrong["metrics"]["miou_runs"] = [first]
    with pytest.raises(ValueError, match="its miou_runs are 1, its protocol has 2"):
        check_metrics(wrong, table)


@pytest.mark.parametrize("interval", [[0.6, 0.4], [-0.1, 0.4], [0.4, 1.1], [float("nan"), 1.0]])
def test_an_interval_that_is_none_is_found(interval: list[float]) -> None:
    table = episode_table(1, 12, 1)
    wrong = content(table, {"empty_class": "skip", "fb_iou": "fold", "runs": 1})
    wrong["metrics"]["miou_ci95"] = interval
    with pytest.raises(ValueError, match="no interval of fractions"):
        check_metrics(wrong, table)


def test_counts_that_no_32_bits_and_no_float_hold_stay_whole() -> None:
    table = episode_table(1, 12, 1)
    rules = {"empty_class": "skip", "fb_iou": "fold", "runs": 1}
    for name in [c for c in table if c.startswith(("inter", "union"))]:
        table[name] = [
            [v * 2**55 + 1 for v in x] if isinstance(x, list) else x for x in table[name]
        ]
    found = content(table, rules)
    check_metrics(found, table)
    cat = found["metrics"]["per_class"]["cat"]
    assert cat["inter"] % 2**55 == cat["episodes"]  # no last digit was lost


def test_a_stored_run_with_another_score_is_not_read(
    tmp_path: Any, make_run: Callable[..., Run]
) -> None:
    store = ResultStore(tmp_path)
    folder = store.write(make_run(0.25)).path
    assert folder is not None
    whole = json.loads((folder / "run.json").read_text())
    for name in SCORES:
        changed = {**whole, "metrics": {**whole["metrics"], name: 0.9}}
        (folder / "run.json").write_text(json.dumps(changed))
        with pytest.raises(ResultsError, match=f"its {name} 0.9 is not .*: delete its folder"):
            store.load(folder)
    (folder / "run.json").write_text(json.dumps(whole))
    store.load(folder)
