"""The page that compares protocols is what its generator makes, and its data is whole."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from fss_bench.protocol_effects import EFFECTS, SCOPES
from fss_bench.protocols import PROTOCOLS

DOCS = Path(__file__).parents[1] / "docs"
RULES = PROTOCOLS["standard"].rules
OURS = {"short_classes", "annotation_points"}
"""Rules that no published code has in another way."""


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "protocol_comparison", DOCS / "protocol_comparison.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()
CODES = generator.published_codes()


def test_the_page_is_up_to_date() -> None:
    written = generator.PAGE.read_text(encoding="utf-8")
    assert written == generator.render(), "run python docs/protocol_comparison.py"


def test_every_rule_has_a_text_that_names_a_code_or_paper() -> None:
    texts = generator.docstrings()
    assert list(texts) == list(RULES)
    names = {code["code"].split()[0] for code in CODES} | {"co-FCN", "guided networks"}
    nameless = {
        rule for rule, text in texts.items() if not any(re.search(rf"\b{n}\b", text) for n in names)
    }
    assert nameless <= OURS


def test_every_effect_and_scope_is_of_a_rule() -> None:
    assert set(EFFECTS) | set(SCOPES) <= set(RULES)


def test_every_named_protocol_but_ours_is_the_nearest_of_a_code() -> None:
    nearest = {code["nearest"] for code in CODES} - {"none", "standard"}
    assert nearest == set(PROTOCOLS) - {"standard"}


def test_the_published_codes_have_no_gap() -> None:
    columns = [*generator.DRAWING, *generator.SCORING, *generator.REPOSITORIES]
    assert len(CODES) > 25
    for code in CODES:
        assert set(code) == set(columns), code["code"]
        for column, text in code.items():
            assert text, (code["code"], column)
            assert text == text.strip()
            assert "|" not in text
    assert len({code["code"] for code in CODES}) == len(CODES)


@pytest.mark.parametrize(
    ("code", "values"),
    {
        "HSNet": {"commit": "6b1bc12 (2021-10)", "input": "400, warped", "nearest": "hsnet"},
        "PFENet": {"commit": "a505675", "iou_at": "original", "nearest": "pfenet"},
        "BAM": {"commit": "c0f935c", "training": "images of novel classes left out"},
        "PANet": {"commit": "1695bf3", "coco_folds": "contiguous", "input": "417, warped"},
        "SG-One": {"commit": "7436ca4", "query_255": "background", "nearest": "oslsm"},
        "INSID3": {"iou_at": "original", "nearest": "hsnet-orig"},
    }.items(),
)
def test_a_few_facts(code: str, values: dict[str, str]) -> None:
    (row,) = [row for row in CODES if row["code"] == code]
    assert {column: row[column] for column in values} == values


def test_commits_are_hexadecimal_or_said_to_be_missing() -> None:
    for code in CODES:
        assert re.fullmatch(r"[0-9a-f]{7}( \(\d{4}-\d\d\))?|not noted|-", code["commit"])
        assert re.fullmatch(r"[\w.-]+/[\w.-]+|none|not noted", code["repository"])


def test_the_tables_hold_every_rule_and_mark_what_differs() -> None:
    page = "\n".join(generator.named_tables())
    lines = re.findall(r"^\| \[`(\w+)`\]\S+ \|(.*) \|$", page, re.MULTILINE)
    assert [rule for rule, _ in lines] == list(RULES)
    for rule, cells in lines:
        bold = [cell.startswith(" **") for cell in cells.split("|")]
        assert bold == [p.rules[rule] != RULES[rule] for p in PROTOCOLS.values()], rule


def test_every_rule_has_a_section_with_its_effects() -> None:
    page = " ".join(generator.PAGE.read_text(encoding="utf-8").split())
    for rule in RULES:
        assert f"### {rule} " in page
        for effect in EFFECTS.get(rule, ()):
            assert effect.text in page
            assert effect.source in page
