"""The published study: its page says what its table says, and the table is whole."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    file = ROOT / "benchmarks" / "protocol_sensitivity.py"
    found = importlib.util.spec_from_file_location("protocol_sensitivity", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_table(study: ModuleType) -> None:
    page = study.PAGE.read_text(encoding="utf-8")
    head, line_break, tables = page.partition("\n## ")
    assert line_break
    assert "## " + tables == study.tables(study.read_rows(study.TABLE))
    assert not [line for line in head.splitlines() if line.startswith("|")]


def test_every_change_was_measured_for_every_method_and_backbone(study: ModuleType) -> None:
    rows = study.read_rows(study.TABLE)
    entrants = {(row["method"].partition("(")[0], row["backbone"]) for row in rows}
    assert entrants == {(m, b) for m in study.METHODS for b in study.BACKBONES}
    found = Counter(
        (study.plain(row), int(row["shots"]), f"{row['rule']}={row['changed_value']}")
        for row in rows
    )
    expected = {
        (dataset, shots, change.rpartition("+")[2])
        for (dataset, shots), changes in study.CHANGES.items()
        for change in changes
    }
    expected |= {(dataset, shots, "seed=1") for dataset, shots in study.CHANGES}
    assert set(found) == expected
    assert set(found.values()) == {len(study.METHODS) * len(study.BACKBONES)}


def test_the_table_is_consistent(study: ModuleType) -> None:
    for row in study.read_rows(study.TABLE):
        base, changed, difference, low, high = (
            float(row[name])
            for name in ("miou_base", "miou_changed", "difference", "ci_low", "ci_high")
        )
        assert difference == pytest.approx(changed - base, abs=0.0151)
        assert low <= high
        assert (row["folds"], row["dataset_folds"], row["episodes"]) == ("4", "4", "400")
        assert re.fullmatch(r"(\d+ classes of both)?", row["remarks"])


def test_the_figure_shows_every_rule(study: ModuleType) -> None:
    text = " ".join(ElementTree.parse(study.FIGURE).getroot().itertext())
    rules = {row["rule"] for row in study.read_rows(study.TABLE)} - {"empty_class"}
    assert not [rule for rule in rules if rule not in text]
