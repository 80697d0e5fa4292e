"""Which fields of results differ, and how they are named in one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fss_bench.comparability import NOT_RECORDED, check_comparable, differences, in_words, joined
from fss_bench.errors import FssBenchError
from fss_bench.protocols import PROTOCOLS
from fss_bench.results import ResultStore, Run

MakeRun = Callable[..., Run]


@pytest.fixture
def record(make_run: MakeRun) -> Callable[..., dict[str, Any]]:
    """Makes the record of a run."""

    def make(**changes: Any) -> dict[str, Any]:
        return make_run(**changes).record

    return make


MakeRecord = Callable[..., dict[str, Any]]


def test_equal_settings_do_not_differ(record: MakeRecord) -> None:
    other = record(
        iou=0.1, method="hsnet", method_options={"a": 1}, backbone="vgg16", run_id="x", seed=7
    )
    assert differences([record(), other, record()]) == {}
    assert differences([]) == differences([record()]) == {}
    check_comparable([record(), other])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset": {"name": "x"}}, {"dataset.name": ["own@3-abcdef", "x"]}),
        ({"dataset": {"fingerprint": "g"}}, {"dataset.fingerprint": ["f", "g"]}),
        ({"dataset": {"classes_sha256": "d"}}, {"dataset.classes_sha256": ["c", "d"]}),
        ({"ways": 2}, {"ways": [1, 2]}),
        ({"shots": 5}, {"shots": [1, 5]}),
        ({"episodes_sha256": "1"}, {"episodes.fold0": ["0" * 64, "1"]}),
        (
            {"fold": 1},
            {
                "episodes.fold0": ["0" * 64, NOT_RECORDED],
                "episodes.fold1": [NOT_RECORDED, "0" * 64],
            },
        ),
    ],
)
def test_each_part_of_a_setting_counts(
    record: MakeRecord, changes: dict[str, Any], expected: dict[str, list[Any]]
) -> None:
    assert differences([record(), record(**changes), record()]) == expected


def test_every_rule_of_a_protocol_counts(record: MakeRecord) -> None:
    found = differences([record(), record(protocol=PROTOCOLS["hsnet"])])
    ours, theirs = PROTOCOLS["standard"].record, PROTOCOLS["hsnet"].record
    rules = [rule for rule in ours if rule != "name" and ours[rule] != theirs[rule]]
    assert found == {f"protocol.{rule}": [ours[rule], theirs[rule]] for rule in rules}
    assert found["protocol.iou_at"] == ["original", "input"]


def test_a_rule_that_a_record_lacks_cannot_be_called_equal(record: MakeRecord) -> None:
    old = record()
    del old["protocol"]["vanished"], old["dataset"]["classes_sha256"], old["ways"]
    assert differences([record(), old]) == {
        "dataset.classes_sha256": ["c", NOT_RECORDED],
        "ways": [1, NOT_RECORDED],
        "protocol.vanished": ["counted", NOT_RECORDED],
    }
    assert differences([old, old]) == {}
    assert "protocol.vanished" in differences([{}, record()])


def test_a_stored_record_equals_the_one_in_memory(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(protocol=PROTOCOLS["bam"])
    stored = ResultStore(tmp_path).write(run)
    assert stored.path is not None
    loaded = json.loads((stored.path / "run.json").read_text())
    assert isinstance(loaded["protocol"]["seeds"], list)
    assert differences([run.record, loaded]) == {}


def test_rows_differ_by_the_lists_of_all_their_folds(record: MakeRecord) -> None:
    both = [record(fold=1, episodes_sha256="1"), record()]
    assert differences([joined(both), joined(reversed(both))]) == {}
    assert differences([joined(both), joined([record()])]) == {
        "episodes.fold1": ["1", NOT_RECORDED]
    }
    changed = joined([record(), record(fold=1, episodes_sha256="2")])
    assert differences([joined(both), changed]) == {"episodes.fold1": ["1", "2"]}


def test_several_runs_of_a_fold_count_in_the_order_of_seeds(record: MakeRecord) -> None:
    runs = [record(seed=s, episodes_sha256=str(s)) for s in (2, 10)]
    assert differences([joined(runs), joined(runs[::-1])]) == {}
    assert differences([joined(runs), joined(runs[:1])]) == {"episodes.fold0": ["2 10", "2"]}


def test_records_are_not_written_to(record: MakeRecord) -> None:
    runs = [record(), record(fold=1)]
    before = json.dumps(runs)
    differences([joined(runs), *runs])
    assert json.dumps(runs) == before


def test_the_message_is_one_line_of_names_and_values(record: MakeRecord) -> None:
    rules = {"iou_at": "input", "seeds": (1, 2), "coco_episodes": 7}
    changed = PROTOCOLS["standard"].replace_rules(rules)
    other = record(protocol=changed, shots=5, dataset={"name": "x"}, episodes_sha256="1" * 64)
    with pytest.raises(FssBenchError) as caught:
        check_comparable([record(), other])
    assert str(caught.value) == (
        f"rows do not compare: protocol standard and {changed.label} differ in "
        "coco_episodes (none, 7), runs (1, 2), seeds (none, 1-2), iou_at (original, input); "
        "dataset name (own@3-abcdef, x); shots (1, 5); "
        "episodes fold0 (000000000000, 111111111111): evaluate them with one protocol on one "
        "dataset, or rank them apart (without --together)"
    )


def test_the_words_name_what_differs_and_nothing_else() -> None:
    assert in_words({"ways": [1, 2]}) == "ways (1, 2)"
    assert in_words({"protocol.iou_at": ["a", "b"]}) == "their protocols differ in iou_at (a, b)"
    assert in_words({"protocol.label": ["a", "b"]}) == "protocol a and b differ in name"


def test_it_needs_no_torch() -> None:
    code = "import sys, fss_bench.comparability; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
