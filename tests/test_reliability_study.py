"""The reliability page says what its tables say, and they hold every fault, case and reader."""

from types import ModuleType

import pytest
from bad_data import all_cases
from faults import FAULTS
from studies import load_study
from test_fuzzing import NAMES

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_study("reliability")


@pytest.fixture(scope="module")
def tables(study: ModuleType) -> tuple[Rows, Rows, Rows]:
    read = load_study("tables").read_rows
    files = load_study("inject_faults").TABLE, study.BAD_DATA, load_study("fuzz").TABLE
    faults, bad, damaged = map(read, files)
    return faults, bad, damaged


def test_the_page_is_made_from_the_tables(
    study: ModuleType, tables: tuple[Rows, Rows, Rows]
) -> None:
    _, line_break, page = study.PAGE.read_text(encoding="utf-8").partition("\n## ")
    assert line_break
    assert "## " + page == study.page_tables(*tables)


def test_every_fault_was_injected_and_ended_as_promised(tables: tuple[Rows, Rows, Rows]) -> None:
    faults, _, _ = tables
    assert [(row["fault"], row["promised"]) for row in faults] == [
        (fault.name, fault.promise) for fault in FAULTS
    ]
    assert all(int(row["injected"]) > 0 for row in faults)
    assert {row["findings"] for row in faults} == {"0"}


def test_every_case_of_bad_data_was_tried(tables: tuple[Rows, Rows, Rows]) -> None:
    _, bad, _ = tables
    tried = [(row["where"], kind) for row in bad for kind in row["kinds"].split("; ")]
    assert sorted(tried) == sorted((case.where, case.fault) for case in all_cases())
    assert {row["findings"] for row in bad} == {"0"}


def test_a_million_damaged_files_were_tried_on_every_reader(
    tables: tuple[Rows, Rows, Rows],
) -> None:
    _, _, damaged = tables
    assert [row["reader"] for row in damaged] == NAMES
    assert sum(int(row["cases"]) for row in damaged) >= 1_000_000
    assert {row["findings"] for row in damaged} == {"0"}
