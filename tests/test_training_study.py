"""The published study of training: its page says what its table says, and the table is whole."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from studies import assert_the_page_is_made_from_the_table, load_study


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_study("training")


@pytest.fixture(scope="module")
def rows(study: ModuleType) -> list[dict[str, str]]:
    found: list[dict[str, str]] = load_study("tables").read_rows(study.TABLE)
    return found


def test_the_page_is_made_from_the_table(study: ModuleType, rows: list[dict[str, str]]) -> None:
    assert_the_page_is_made_from_the_table(study, rows)


def test_every_study_was_measured(study: ModuleType, rows: list[dict[str, str]]) -> None:
    expected = [
        (s.method, str(s.size), weights, seed)
        for s in study.STUDIES
        for weights, seed in [("untrained", ""), *(("trained", str(i)) for i in s.seeds)]
    ]
    columns = ("method", "input_size", "weights", "seed")
    assert [tuple(row[name] for name in columns) for row in rows] == expected


def test_the_table_is_consistent(rows: list[dict[str, str]]) -> None:
    before: dict[tuple[str, str], float] = {}
    for row in rows:
        folds = [float(row[f"fold{i}"]) for i in range(4)]
        miou = float(row["miou"])
        assert miou == pytest.approx(sum(folds) / 4, abs=0.0101)
        assert float(row["ci_low"]) <= miou <= float(row["ci_high"])
        assert row["episodes"] == "2000"
        if row["weights"] == "untrained":
            before[row["dataset"], row["method"]] = miou
            continue
        gain = miou - before[row["dataset"], row["method"]]
        assert float(row["minus_untrained"]) == pytest.approx(gain, abs=0.0151)
        assert 0 < float(row["p_untrained"]) <= 1
        if row["chosen_on_test"]:
            assert float(row["chosen_on_test"]) >= miou


def test_ten_minutes_on_shapes_lift_every_method(rows: list[dict[str, str]]) -> None:
    """The claim of README and page: outside both 95 % intervals, within the time."""
    shapes = [row for row in rows if row["dataset"] == "shapes"]
    before = {row["method"]: row for row in shapes if row["weights"] == "untrained"}
    trained = [row for row in shapes if row["weights"] == "trained"]
    assert {row["method"] for row in trained} == {"panet", "sgone", "cofcn", "dcama", "msanet"}
    for row in trained:
        assert float(row["ci_low"]) > float(before[row["method"]]["ci_high"])
        assert float(row["minus_untrained_low"]) > 0
        assert float(row["minutes"]) <= 10.05


@pytest.mark.slow
def test_the_command_makes_table_and_page(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page says, but with steps and episodes for a minute."""
    arguments = "--steps 3 --batch-size 1 --lr 0.001 --validation-episodes 2"
    small = study.Study("shapes", "panet", 64, {"": arguments}, every_step=True)
    page = tmp_path / "page.md"
    page.write_text("# What for\n\n## Old\n")
    monkeypatch.setattr(study, "STUDIES", (small,))
    monkeypatch.setattr(study, "TABLE", tmp_path / "table.csv")
    monkeypatch.setattr(study, "PAGE", page)
    words = ["training.py", "--voc", str(tmp_path), "--episodes", "10", "--runs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    study.main()
    before, after = load_study("tables").read_rows(tmp_path / "table.csv")
    assert (before["weights"], after["weights"], after["steps"]) == ("untrained", "trained", "3")
    assert before["episodes"] == after["episodes"] == "40"
    assert float(after["chosen_on_test"]) >= float(after["miou"])
    assert page.read_text().startswith("# What for\n\n## shapes\n\n| method, px |")
    study.main()  # nothing is done again
