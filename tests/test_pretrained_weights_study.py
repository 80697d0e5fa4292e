"""The published study of weights: its page says what its table says, and the table is whole."""

from types import ModuleType

import pytest
from studies import assert_the_page_is_made_from_the_table, load_study


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_study("pretrained_weights")


@pytest.fixture(scope="module")
def rows(study: ModuleType) -> list[dict[str, str]]:
    found: list[dict[str, str]] = load_study("tables").read_rows(study.TABLE)
    return found


def test_the_page_is_made_from_the_table(study: ModuleType, rows: list[dict[str, str]]) -> None:
    assert_the_page_is_made_from_the_table(study, rows)


def test_every_setting_was_measured_with_all_weights(
    study: ModuleType, rows: list[dict[str, str]]
) -> None:
    found = [tuple(row[name] for name in study.COLUMNS[:6]) for row in rows]
    expected = [
        (*map(str, cell), weights) for cell in study.cells() for weights in study.WEIGHTS[cell[0]]
    ]
    assert found == [tuple(map(str, row)) for row in expected]


def test_the_table_is_consistent(study: ModuleType, rows: list[dict[str, str]]) -> None:
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
