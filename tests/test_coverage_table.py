"""The table of coverage, from a report made by hand."""

import json
from pathlib import Path

import pytest
from studies import load_study

study = load_study("coverage_table")


def counts(lines: int, covered: int, branches: int, taken: int) -> dict[str, int]:
    return {
        "num_statements": lines,
        "covered_lines": covered,
        "num_branches": branches,
        "covered_branches": taken,
    }


@pytest.mark.parametrize(("taken", "status", "share"), [(9, 0, "90.00"), (8, 1, "80.00")])
def test_too_few_branches_are_a_failure(
    tmp_path: Path, taken: int, status: int, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {
        "files": {
            "fss_bench/b.py": {"summary": counts(8, 8, 10, taken)},
            "fss_bench/a.py": {"summary": counts(8, 7, 0, 0)},
        },
        "totals": counts(16, 15, 10, taken),
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert study.main(tmp_path / "report.json", tmp_path / "table.csv") == status
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "module,statements,branches,statement_percent,branch_percent",
        "fss_bench/a.py,8,0,87.50,100.00",
        f"fss_bench/b.py,8,10,100.00,{share}",
        f"total,16,10,93.75,{share}",
    ]
    said = f"93.75 % of statements, {share} % of branches; at least 90 % wanted\n"
    assert capsys.readouterr().out == said
