"""The scripts of `benchmarks/` as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load_study(name: str) -> ModuleType:
    """A script by its name; scripts find each other, as when one of them is run."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)


def assert_the_page_is_made_from_the_table(study: ModuleType, rows: list[dict[str, str]]) -> None:
    """Its tables are those that the script makes, and its introduction has none."""
    head, line_break, tables = study.PAGE.read_text(encoding="utf-8").partition("\n## ")
    assert line_break
    assert "## " + tables == study.tables(rows)
    assert not [line for line in head.splitlines() if line.startswith("|")]
