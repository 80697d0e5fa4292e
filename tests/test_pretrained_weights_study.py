"""The published study of weights: its page says what its table says, and the table is whole."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    file = ROOT / "benchmarks" / "pretrained_weights.py"
    found = importlib.util.spec_from_file_location("pretrained_weights", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_table(study: ModuleType) -> None:
    head, line_break, tables = study.PAGE.read_text(encoding="utf-8").partition("\n## ")
    assert line_break
    assert "## " + tables == study.tables(study.read_rows(study.TABLE))
    assert not [line for line in head.splitlines() if line.startswith("|")]


def test_every_setting_was_measured_with_all_weights(study: ModuleType) -> None:
    rows = [tuple(row[name] for name in study.COLUMNS[:6]) for row in study.read_rows(study.TABLE)]
    expected = [
        (*map(str, cell), weights) for cell in study.cells() for weights in study.WEIGHTS[cell[0]]
    ]
    assert rows == [tuple(map(str, row)) for row in expected]


def test_the_table_is_consistent(study: ModuleType) -> None:
    rows = study.read_rows(study.TABLE)
    by_place = {tuple(row[name] for name in study.COLUMNS[:6]): row for row in rows}
    for place, row in by_place.items():
        folds = [float(row[f"fold{i}"]) for i in range(4)]
        assert float(row["miou"]) == pytest.approx(sum(folds) / 4, abs=0.0101)
        assert float(row["ci_low"]) <= float(row["miou"]) <= float(row["ci_high"])
        assert row["episodes"] == "400"
        for base, name in (("random", "random 0"), ("moco", "moco")):
            if row[f"minus_{base}"]:
                other = float(by_place[*place[:5], name]["miou"])
                gain = float(row["miou"]) - other
                assert float(row[f"minus_{base}"]) == pytest.approx(gain, abs=0.0151)
                assert 0 < float(row[f"p_{base}"]) <= 1
    files = {(row["backbone"], row["weights"]): row["sha256"] for row in rows}
    assert len(set(files.values())) == sum(len(names) for names in study.WEIGHTS.values())
    assert all(files[row["backbone"], row["weights"]] == row["sha256"] for row in rows)
