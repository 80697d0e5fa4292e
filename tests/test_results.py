"""Runs on disk: whole or not at all, as the format says, and readable again."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow.parquet import read_metadata
from torch import Tensor, nn

import fss_bench
from fss_bench import partial_run, results
from fss_bench.errors import ResultsError
from fss_bench.files import sync_names, write_text
from fss_bench.results import ClassScore, Metrics, ResultStore, Run

MakeRun = Callable[..., Run]


class Nothing(nn.Module):
    """Finds nothing, anywhere."""

    input_size = 16

    def forward(
        self, support_images: Tensor, support_masks: Tensor, query_images: Tensor
    ) -> Tensor:
        batch, ways, shots = support_images.shape[:3]
        assert support_masks.shape == (batch, ways, shots, 16, 16)
        logits = torch.zeros(batch, 1 + ways, 4, 4)
        logits[:, 0] = 1
        return logits


@pytest.fixture
def evaluated(make_folder: Callable[..., Path], tmp_path: Path) -> Run:
    dataset = fss_bench.create_dataset("folder", make_folder())
    return fss_bench.evaluate(
        Nothing(),
        dataset,
        shots=2,
        episodes=6,
        rules={"min_pixels": 100},
        compute=fss_bench.Compute(device="cpu"),
        store=ResultStore(tmp_path / "results"),
    )


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "store")


def everything_in(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def test_a_run_survives_the_disk(make_run: MakeRun, store: ResultStore) -> None:
    run = make_run(0.25)
    stored = store.write(run)
    assert stored.path is not None
    assert (stored.record, stored.metrics) == (run.record, run.metrics)
    assert stored.episodes is run.episodes
    assert (stored.path / "run.json").read_text().startswith('{\n  "schema_version": 1,\n')
    loaded = store.load(stored.path)
    assert loaded.record == run.record
    assert loaded.metrics == run.metrics
    assert loaded.to_json() == run.to_json()
    assert loaded.path == stored.path
    assert [list(v) for v in loaded.episodes["inter_ways"]] == [[250]] * 4
    assert [[list(way) for way in v] for v in loaded.episodes["supports"]] == [
        [[f"s{i}"]] for i in range(4)
    ]
    columns = ["index", "query", "inter_fg", "union_bg_255bg", "iou_fg", "ms"]
    pd.testing.assert_frame_equal(loaded.episodes[columns], run.episodes[columns])
    assert [r.record["run_id"] for r in store.runs()] == [run.record["run_id"]]


def test_the_scores_of_several_runs_survive_and_may_be_missing(make_run: MakeRun) -> None:
    metrics = replace(make_run().metrics, miou_runs=(0.25, 0.75))
    data = json.loads(json.dumps(asdict(metrics)))
    assert Metrics.from_dict(data) == metrics
    del data["miou_runs"]
    assert Metrics.from_dict(data) == replace(metrics, miou_runs=())


def test_a_run_has_its_place(make_run: MakeRun, store: ResultStore) -> None:
    run = make_run(method="pa/net", backbone="swin", run_id="beef", ways=2, shots=5, fold=3)
    stored = store.write(run)
    assert stored.path == store.root.joinpath(
        "runs", "own@3-abcdef", "standard", "2way-5shot", "fold3", "pa_net-swin-beef"
    )
    assert everything_in(stored.path) == {"run.json", "episodes.parquet"}
    assert not stored.has_predictions
    assert store.find(run.record) is not None
    assert store.find({**run.record, "run_id": "other"}) is None


def test_results_are_kept_in_results_where_nothing_else_is_said() -> None:
    assert ResultStore().root == Path("results")


def test_an_empty_store_has_no_runs(store: ResultStore) -> None:
    assert list(store.runs()) == []


def test_run_json_holds_every_field_of_the_format(evaluated: Run) -> None:
    assert evaluated.path is not None
    data = json.loads((evaluated.path / "run.json").read_text())
    described = (
        "schema_version run_id method method_options backbone weights checkpoint dataset protocol "
        "fold ways shots seed episodes episodes_sha256 metrics cost environment started finished"
    ).split()
    assert [key for key in data if key in described] == described
    assert data["schema_version"] == 1
    assert (data["method"], data["method_options"]) == ("Nothing", {})
    assert set(data["weights"]) == {"source", "sha256", "layout", "encoder"}
    assert data["checkpoint"] is None
    assert {"name", "fingerprint"} <= set(data["dataset"])
    rules = set(fss_bench.EvaluationProtocol.__dataclass_fields__)
    assert rules <= set(data["protocol"])
    assert data["protocol"]["label"] == "standard+episodes=6+min_pixels=100"
    assert (data["fold"], data["ways"], data["shots"], data["seed"]) == (0, 1, 2, 0)
    assert data["episodes"] == 6
    assert len(data["episodes_sha256"]) == 64
    assert len(data["run_id"]) == 12
    assert set(data["cost"]) == set(
        "params_m gflops_per_episode ms_per_episode episodes_per_s peak_mb device".split()
    )
    assert set(data["environment"]) == set("python torch timm fss_bench git_commit".split())
    assert data["started"] <= data["finished"]


def test_metrics_in_run_json_are_those_of_the_pixels(evaluated: Run) -> None:
    # every image is 64 x 48 with its class on the left half, and nothing is ever found
    assert evaluated.path is not None
    metrics = json.loads((evaluated.path / "run.json").read_text())["metrics"]
    assert list(metrics) == (
        "miou miou_ci95 fb_iou miou_255_as_background per_class miou_runs".split()
    )
    assert metrics["miou"] == 0.0
    assert metrics["miou_ci95"] == [0.0, 0.0]
    assert metrics["fb_iou"] == pytest.approx((0 + 0.5) / 2)
    assert metrics["per_class"] == {
        f"class{c}": {"class_id": c, "iou": 0.0, "inter": 0, "union": 3 * 48 * 32, "episodes": 3}
        for c in (1, 2)
    }


def test_the_episode_table_has_the_columns_and_types_of_the_format(evaluated: Run) -> None:
    assert evaluated.path is not None
    schema = pq.read_schema(evaluated.path / "episodes.parquet")
    kinds = {name: schema.field(name).type for name in schema.names}
    assert kinds["index"] == pa.int64()
    assert kinds["class_ids"].value_type == pa.int64()
    assert pa.types.is_string(kinds["query"]) or pa.types.is_large_string(kinds["query"])
    assert "string" in str(kinds["supports"].value_type.value_type)
    for name in ("inter_fg", "union_fg", "inter_bg", "union_bg"):
        assert kinds[name] == kinds[f"{name}_255bg"] == pa.int64()
    for name in ("inter_ways", "union_ways"):
        assert kinds[name].value_type == kinds[f"{name}_255bg"].value_type == pa.int64()
    assert kinds["iou_fg"] == kinds["ms"] == pa.float64()
    head = "index class_ids query supports inter_fg union_fg inter_bg union_bg".split()
    assert schema.names[:8] == head
    table = pd.read_parquet(evaluated.path / "episodes.parquet")
    assert table["index"].tolist() == list(range(6))
    assert table["inter_bg"].tolist() == [48 * 32] * 6
    assert table["union_bg"].tolist() == [48 * 64] * 6


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_failing_write_leaves_no_run(
    make_run: MakeRun, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pd.DataFrame, "to_parquet", no_space)
    with pytest.raises(ResultsError, match="No space left") as error:
        store.write(make_run())
    assert "\n" not in str(error.value)
    assert str(store.root) in str(error.value)
    assert not (store.root / "runs").exists()
    monkeypatch.undo()
    store.write(make_run())
    assert len(list(store.runs())) == 1


def test_a_failing_write_keeps_the_run_that_was_there(
    make_run: MakeRun, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_run(0.25))
    monkeypatch.setattr(results, "write_text", no_space)
    with pytest.raises(ResultsError):
        store.write(make_run(0.75))
    (kept,) = store.runs()
    assert kept.metrics.miou == 0.25


def test_a_failing_write_keeps_the_predictions_for_the_next_attempt(
    make_run: MakeRun, store: ResultStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / "0.png").write_bytes(b"png")
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_text", no_space)
        with pytest.raises(ResultsError):
            store.write(make_run(), predictions)
        assert (predictions / "0.png").is_file()
        patch.undo()
        patch.setattr(results, "_put", no_space)  # they were moved by then
        with pytest.raises(ResultsError):
            store.write(make_run(), predictions)
    assert everything_in(store.root) == set()
    assert (predictions / "0.png").is_file()
    stored = store.write(make_run(), predictions)
    assert stored.path is not None
    assert stored.has_predictions
    assert everything_in(stored.path) == {"run.json", "episodes.parquet", "predictions/0.png"}
    assert not predictions.exists()


def test_writing_again_replaces_the_run_as_a_whole(make_run: MakeRun, store: ResultStore) -> None:
    first = store.write(make_run(0.25))
    assert first.path is not None
    (first.path / "left-over").write_text("")
    second = store.write(make_run(0.75))
    assert second.path == first.path
    assert everything_in(second.path) == {"run.json", "episodes.parquet"}
    assert [run.metrics.miou for run in store.runs()] == [0.75]
    assert {Path(f).parts[0] for f in everything_in(store.root)} == {"runs"}


def test_nothing_temporary_is_left(make_run: MakeRun, store: ResultStore) -> None:
    store.check_writable()
    store.write(make_run())
    assert {Path(f).parts[0] for f in everything_in(store.root)} == {"runs"}


def test_a_results_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResultsError, match="choose another --output") as error:
        ResultStore(tmp_path / "taken").check_writable()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: '"text"',
        lambda text: "{}",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 99'),
        lambda text: text.replace('"metrics"', '"other"'),
        lambda text: text.replace('"miou_ci95"', '"other"'),
        lambda text: text.replace('"inter"', '"other"'),
        lambda text: json.dumps(
            {**json.loads(text), "metrics": {"per_class": [], "miou_ci95": []}}
        ),
        lambda text: json.dumps({**json.loads(text), "metrics": None}),
    ],
)
def test_a_damaged_run_json_is_one_line_with_a_cure(
    make_run: MakeRun, store: ResultStore, damage: Callable[[str], str]
) -> None:
    path = store.write(make_run()).path
    assert path is not None
    file = path / "run.json"
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    with pytest.raises(ResultsError) as error:
        list(store.runs())
    assert str(error.value).startswith(f"run {path} cannot be read (")
    assert "): delete " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_run_can_be_left_out(make_run: MakeRun, store: ResultStore) -> None:
    for run_id in ("a", "b", "c"):
        store.write(make_run(run_id=run_id))
    damaged = store.folder(make_run(run_id="b").record)
    (damaged / "run.json").write_text("{")
    told: list[str] = []
    assert [run.record["run_id"] for run in store.runs(told.append)] == ["a", "c"]
    assert len(told) == 1
    assert str(damaged) in told[0]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no parquet"])
def test_a_missing_or_damaged_table_is_one_line(
    make_run: MakeRun, store: ResultStore, content: bytes | None
) -> None:
    path = store.write(make_run()).path
    assert path is not None
    (path / "episodes.parquet").unlink()
    if content is not None:
        (path / "episodes.parquet").write_bytes(content)
    with pytest.raises(ResultsError, match="cannot be read") as error:
        store.load(path)
    assert "\n" not in str(error.value)


ROWS = [{"index": i, "query": f"q{i}", "inter_ways": [i]} for i in range(3)]


def test_a_journal_gives_back_what_was_appended(store: ResultStore) -> None:
    with store.partial("abc") as partial:
        assert partial.rows() == []
        partial.append(ROWS[:2])
        partial.append(ROWS[2:])
        assert partial.rows() == ROWS
    with store.partial("abc") as again:
        assert again.rows() == ROWS
        again.discard()
        again.discard()  # nothing is there
        assert again.rows() == []


@pytest.mark.parametrize("cut", range(1, 20, 3))
def test_a_last_line_that_was_cut_off_is_dropped_for_good(store: ResultStore, cut: int) -> None:
    with store.partial("abc") as partial:
        partial.append(ROWS)
        journal = partial.folder / "episodes.jsonl"
        journal.write_bytes(journal.read_bytes()[:-cut])
        assert partial.rows() == ROWS[:2]
        partial.append(ROWS[2:])
        assert partial.rows() == ROWS


def test_names_with_line_separators_stay_one_record(store: ResultStore) -> None:
    row = {"index": 0, "query": "a\u2028b\u0085c\nd\x1ce é"}
    with store.partial("abc") as partial:
        partial.append([row])
        assert partial.rows() == [row]


def test_records_without_their_predictions_do_not_count(store: ResultStore) -> None:
    with store.partial("abc") as partial:
        partial.append(ROWS)
        partial.predictions.mkdir()
        for i in (0, 1):
            (partial.predictions / f"{i}.png").write_bytes(b"")
        assert partial.rows(with_predictions=True) == []
        (partial.predictions / "2.png").write_bytes(b"")
        assert partial.rows(with_predictions=True) == ROWS


def test_two_processes_never_work_on_one_run(store: ResultStore) -> None:
    with store.partial("abc"):
        with (
            pytest.raises(ResultsError, match="another process is working on run abc"),
            store.partial("abc"),
        ):
            raise AssertionError("entered twice")
        with store.partial("other"):
            pass
    with store.partial("abc") as free:
        assert free.rows() == []


def test_a_journal_that_cannot_be_written_says_how_to_go_on(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.partial("abc") as partial:
        partial.append(ROWS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", no_space)
            with pytest.raises(ResultsError, match="the same command again, which goes on"):
                partial.append(ROWS[1:])
        assert partial.rows() == ROWS[:1]


def test_an_interrupted_evaluation_goes_on_where_it_was(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = fss_bench.create_dataset("folder", make_folder())
    setting: dict[str, Any] = {"episodes": 6, "rules": {"min_pixels": 100}}

    def stop_at_three(done: int, total: int, miou: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    store = ResultStore(tmp_path / "results")
    with pytest.raises(KeyboardInterrupt):
        fss_bench.evaluate(Nothing(), dataset, **setting, store=store, progress=stop_at_three)
    assert list(store.runs()) == []
    steps: list[int] = []
    run = fss_bench.evaluate(
        Nothing(), dataset, **setting, store=store, progress=lambda done, *_: steps.append(done)
    )
    assert steps == [4, 5, 6]
    whole = fss_bench.evaluate(Nothing(), dataset, **setting)
    columns = [c for c in whole.episodes if c != "ms"]
    pd.testing.assert_frame_equal(run.episodes[columns], whole.episodes[columns])
    assert run.metrics == whole.metrics


def test_a_finished_run_is_returned_not_evaluated_again(evaluated: Run, tmp_path: Path) -> None:
    dataset = fss_bench.create_dataset("folder", tmp_path / "own")
    again = fss_bench.evaluate(
        Nothing(),
        dataset,
        shots=2,
        episodes=6,
        rules={"min_pixels": 100},
        compute=fss_bench.Compute(device="cpu"),
        store=ResultStore(tmp_path / "results"),
        progress=lambda *_: pytest.fail("evaluated again"),
    )
    assert again.record == evaluated.record


def test_text_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    write_text(file, "one\nzwei ä\n")
    assert file.read_bytes() == "one\nzwei ä\n".encode()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_space)
        with pytest.raises(OSError, match="No space"):
            write_text(file, "other")
    assert file.read_bytes() == "one\nzwei ä\n".encode()
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_that_was_only_returned_has_no_place(make_run: MakeRun) -> None:
    run = make_run()
    assert run.path is None
    assert not run.has_predictions
    assert replace(run, path=Path("/nowhere")).has_predictions is False


def test_a_run_that_lacks_a_field_is_named(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    store = ResultStore(tmp_path)
    path = store.write(make_run()).path
    assert path is not None
    data = json.loads((path / "run.json").read_text())
    del data["code_sha256"]
    (path / "run.json").write_text(json.dumps(data))
    with pytest.raises(ResultsError, match="it lacks code_sha256"):
        store.load(path)


def test_folders_above_a_results_folder_are_made(tmp_path: Path) -> None:
    ResultStore(tmp_path / "a" / "b").check_writable()
    ResultStore(tmp_path / "a" / "b").check_writable()
    with ResultStore(tmp_path / "c" / "d").updating("board.csv") as file:
        write_text(file, "x")
    assert everything_in(tmp_path) >= {"c/d/board.csv"}
    assert (tmp_path / "a" / "b").is_dir()
    with ResultStore(tmp_path / "e" / "f").partial("abc") as partial:
        partial.append(ROWS)
        assert partial.rows() == ROWS


def test_what_cannot_be_written_says_where_and_why(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path / "r")
    said = rf"cannot write to {re.escape(str(store.root))} \(OSError: .*No space left on device\): "
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", no_space)
        with pytest.raises(ResultsError, match=said + "free space.* choose another --output"):
            store.check_writable()
        with pytest.raises(ResultsError, match=said), store.updating("board.csv"):
            raise AssertionError("nothing could be written")
        with pytest.raises(ResultsError, match=said):
            store.write(make_run())
        where = re.escape(str(store.root / ".partial" / "abc"))
        with pytest.raises(ResultsError, match=rf"{where} \(OSError: .*No space"):
            store.partial("abc").__enter__()
    with store.partial("abc") as partial:
        patch_open = rf"{where} \(OSError: .*No space left on device\): free space"
        monkeypatch.setattr(Path, "open", no_space)
        with pytest.raises(ResultsError, match=patch_open):
            partial.append(ROWS)


def test_a_journal_is_forced_to_the_disk_once_a_second(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, forced = [100.0], []
    monkeypatch.setattr(partial_run.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(partial_run.os, "fsync", lambda _: forced.append(clock[0]))
    with store.partial("abc") as partial:
        for clock[0] in (100.0, 100.5, 100.9, 101.5, 102.0, 103.0):
            partial.append(ROWS[:1])
    assert forced == [100.0, 101.5, 103.0]


def test_what_a_killed_process_left_beside_a_run_is_no_harm(
    make_run: MakeRun, store: ResultStore
) -> None:
    store.write(make_run(0.25))
    for suffix in ("old", "new"):
        left = store.root / ".partial" / f"0123456789ab.{suffix}"
        left.mkdir(parents=True)
        (left / "left-over").write_text("")
    store.write(make_run(0.75))
    assert [run.metrics.miou for run in store.runs()] == [0.75]
    assert {Path(f).name for f in everything_in(store.root)} == {"run.json", "episodes.parquet"}


def test_the_row_labels_of_a_table_are_no_column(make_run: MakeRun, store: ResultStore) -> None:
    run = make_run()
    columns = list(run.episodes)
    stored = store.write(replace(run, episodes=run.episodes.set_axis([5, 3, 8, 1])))
    assert stored.path is not None
    assert pq.read_schema(stored.path / "episodes.parquet").names == columns


def test_a_class_without_a_pixel_has_no_score_and_its_run_is_whole(
    make_run: MakeRun, store: ResultStore
) -> None:
    run = make_run()
    scores = {**run.metrics.per_class, "cow": ClassScore(3, None, 0, 0, 0)}
    stored = store.write(replace(run, metrics=replace(run.metrics, per_class=scores)))
    assert stored.path is not None
    assert store.load(stored.path).metrics.per_class["cow"].iou is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 7}, "schema_version 7 is not 1"),
        ({"dataset": None}, "its dataset is no object"),
        ({"dataset": {"name": "own"}}, "lacks dataset.fingerprint, dataset.folds, dataset.classes"),
        ({"fold": 1.0, "method": 3}, "fold, method cannot be what it says"),
        ({"method": 3, "cost": {"params_m": "inf"}}, "method, cost.params_m cannot be"),
        ({"episodes": 5}, "its table has 4 rows for 5 episodes"),
    ],
)
def test_what_is_wrong_with_a_run_is_said(
    make_run: MakeRun, store: ResultStore, changes: dict[str, Any], said: str
) -> None:
    path = store.write(make_run()).path
    assert path is not None
    data = json.loads((path / "run.json").read_text())
    if "cost" in changes:
        changes = {**changes, "cost": {**data["cost"], **changes["cost"]}}
    (path / "run.json").write_text(json.dumps({**data, **changes}))
    with pytest.raises(ResultsError, match=re.escape(said)):
        store.load(path)


def test_where_names_cannot_be_forced_to_the_disk_nothing_fails(tmp_path: Path) -> None:
    sync_names(tmp_path / "none")


def test_a_row_with_more_classes_than_counts_is_refused(
    make_run: MakeRun, store: ResultStore
) -> None:
    run = make_run()
    ids = run.episodes["class_ids"].map(lambda one: [*one, 9])
    stored = store.write(replace(run, episodes=run.episodes.assign(class_ids=ids)))
    assert stored.path is not None
    with pytest.raises(ResultsError, match="cannot be read"):
        store.load(stored.path)


def test_a_fingerprint_is_of_canonical_json_whatever_the_order_of_keys() -> None:
    text = b'[{"a":["x"],"b":1.5},2]'
    expected = hashlib.sha256(text).hexdigest()
    assert results.fingerprint({"b": 1.5, "a": (Path("x"),)}, 2) == expected


def test_a_byte_of_any_column_that_changed_is_seen(make_run: MakeRun, store: ResultStore) -> None:
    path = store.write(make_run()).path
    assert path is not None
    table = path / "episodes.parquet"
    whole, group = table.read_bytes(), read_metadata(table).row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        content = bytearray(whole)
        content[start + column.total_compressed_size - 1] ^= 1  # the last of its last page
        table.write_bytes(content)
        with pytest.raises(ResultsError, match="cannot be read"):
            store.load(path)
    table.write_bytes(whole)
    store.load(path)


def test_recovering_where_nothing_was_interrupted_changes_nothing(
    make_run: MakeRun, store: ResultStore
) -> None:
    record = make_run().record
    store.recover(record)
    assert everything_in(store.root) == set()
    store.write(make_run())
    store.partial(record["run_id"]).append(ROWS)
    before = everything_in(store.root)
    store.recover(record)
    assert everything_in(store.root) == before


def test_recovering_removes_what_nothing_needs(make_run: MakeRun, store: ResultStore) -> None:
    record = make_run().record
    store.write(make_run(0.75))
    before = everything_in(store.root)
    for name in ("new/predictions", "old"):
        left = store.root / ".partial" / f"{record['run_id']}.{name}"
        left.mkdir(parents=True)
        (left / "0.png").write_bytes(b"png")
    store.recover(record)  # there is no unfinished work that the predictions belong to
    assert everything_in(store.root) == before
    (run,) = store.runs()
    assert run.metrics.miou == 0.75


def test_a_failure_while_recovering_hides_no_failure_of_writing(
    make_run: MakeRun, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "write_text", no_space)
    monkeypatch.setattr(ResultStore, "recover", no_space)
    with pytest.raises(ResultsError, match=r"cannot write to .*No space left on device"):
        store.write(make_run())


def test_a_record_twice_ends_the_journal(store: ResultStore) -> None:
    with store.partial("abc") as partial:
        partial.append([*ROWS[:2], ROWS[1], *ROWS[2:]])
        assert partial.rows() == ROWS[:2]
        partial.append(ROWS[2:])
        assert partial.rows() == ROWS


def test_a_journal_that_cannot_be_read_says_why(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.partial("abc") as partial:
        partial.append(ROWS)
        monkeypatch.setattr(Path, "read_bytes", no_space)
        with pytest.raises(ResultsError, match=r"No space left on device.*the same command again"):
            partial.rows()
