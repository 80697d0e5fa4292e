"""The campaign of mutants: what is counted, what is an error, and that no explanation is stale."""

import ast
from pathlib import Path

import pytest
from studies import load_study

study = load_study("mutants")
ROOT = Path(__file__).parents[1]
MUTANT = study.Mutant("metrics", "fb_iou", "return a + b", "return a - b", "survived")
WORDS = study.Mutant("results", "f", 'raise E("no space")', 'raise E("NO SPACE")', "survived")


def functions(source: str) -> dict[str, str]:
    """Name, with its class, of each function -> its lines, without indents."""
    found = {}
    for node in ast.parse(source).body:
        of_class = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for one in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(one, ast.FunctionDef):
                lines = source.splitlines()[one.lineno - 1 : one.end_lineno]
                found[of_class + one.name] = "\n".join(line.strip() for line in lines)
    return found


@pytest.mark.parametrize(
    ("after", "is_wording"),
    [
        ('raise E("XXno spaceXX", "key")', True),
        ('raise E("NO SPACE", "key")', True),
        ('raise E("no space", "KEY")', False),
        ('raise E(None, "key")', False),
        ('raise E("no space", )', False),
    ],
)
def test_wording_is_another_spelling_of_several_words(after: str, is_wording: bool) -> None:
    mutant = study.Mutant("results", "f", 'raise E("no space", "key")', after, "survived")
    assert mutant.is_wording is is_wording


def test_decorated_functions_are_mutated_as_well() -> None:
    source = "class A:\n    @property\n    def b(self) -> int:\n        return 1\n"
    plain = study.plain_decorators(source)
    assert plain == ("class A:\n    def b(self) -> int:\n        return 1\n    b = property(b)\n")
    other = "@dataclass(frozen=True)\nclass A:\n    @cache\n    def b(self): ...\n"
    assert study.plain_decorators(other) == other


def test_an_open_survivor_and_a_stale_explanation_are_errors() -> None:
    killed = study.Mutant("metrics", "f", "a", "b", "killed")
    unreached = study.Mutant("metrics", "f", "a", "c", "no tests")
    assert study.faults([killed, WORDS], set()) == []
    assert study.faults([MUTANT], {MUTANT.key}) == []
    (open_,) = study.faults([MUTANT], set())
    assert "survived: metrics.py fb_iou" in open_
    assert "- return a + b\n" in open_
    (stale,) = study.faults([killed], {killed.key})
    assert stale.startswith("explained, but no survivor: metrics | f | a | b")
    assert len(study.faults([unreached], {unreached.key})) == 2


def test_every_mutant_is_counted_once() -> None:
    other = study.Mutant("metrics", "f", "a", "b", "killed")
    rows = study.table([MUTANT, other, WORDS], {MUTANT.key})
    assert [row["module"] for row in rows] == ["metrics", "results", "all"]
    parts = ("mutants", "killed", "survived", "explained")
    assert [rows[0][name] for name in parts] == list("2111")
    assert [rows[2][name] for name in ("mutants", "wording", "open")] == list("310")


def test_the_committed_table_has_no_open_mutant() -> None:
    rows = study.read_rows(study.TABLE)
    assert [f"fss_bench/{row['module']}.py" for row in rows[:-1]] == study.modules()
    for row in rows:
        numbers = {name: int(row[name]) for name in study.COLUMNS[1:]}
        parts = ("killed", "timeout", "survived", "no_tests", "other")
        assert numbers["mutants"] == sum(numbers[name] for name in parts)
        assert numbers["survived"] == sum(numbers[n] for n in ("explained", "wording", "open"))
        assert (numbers["open"], numbers["no_tests"], numbers["other"]) == (0, 0, 0)


def test_every_explained_line_is_there() -> None:
    explanations = study.read_rows(study.EXPLAINED)
    for row in explanations:
        source = (ROOT / "fss_bench" / f"{row['module']}.py").read_text(encoding="utf-8")
        for line in row["before"].split(" / "):
            assert line in functions(source)[row["function"]], row
        assert row["why"]
    assert len({tuple(row[name] for name in study.KEY) for row in explanations}) == len(
        explanations
    )


def test_the_page_is_made_from_the_table() -> None:
    page = study.PAGE.read_text(encoding="utf-8")
    made = study.page_tables(study.read_rows(study.TABLE), study.read_rows(study.EXPLAINED))
    assert page.endswith("\n\n" + made)
