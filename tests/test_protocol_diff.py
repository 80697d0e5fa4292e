"""`fss-bench protocols diff` and the measured effects that it shows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from test_cli import complaint, fss_bench

from fss_bench import protocol_commands
from fss_bench.protocol_effects import EFFECTS, SCOPES, effects_between
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol, get_protocol
from fss_bench.report.protocol_diff import diff_json, diff_lines, differences, shown

STANDARD = PROTOCOLS["standard"]
RULES = STANDARD.rules
KINDS = get_type_hints(EvaluationProtocol)
PFENET_25 = "PFENet, ResNet-50, PASCAL 1-shot: 60.8 with 255 excluded, 56.2 with it as background"


def test_every_effect_is_of_a_rule() -> None:
    assert set(EFFECTS) <= set(RULES)
    assert set(SCOPES) <= set(RULES)
    assert {rule for rule in RULES if rule.startswith("coco_")} <= set(SCOPES)


@pytest.mark.parametrize("rule", EFFECTS)
def test_the_values_of_an_effect_exist(rule: str) -> None:
    for effect in EFFECTS[rule]:
        assert effect.text
        assert effect.source
        assert "\n" not in effect.text
        assert len(set(effect.values)) == len(effect.values) <= 2
        assert set(effect.values) <= set(get_args(KINDS[rule]))


def test_an_effect_shows_where_its_values_are_compared() -> None:
    assert [e.text for e in effects_between("query_ignore", "background", "excluded")] == [
        PFENET_25
    ]
    assert effects_between("image_resize", "pad", "warp")
    assert not effects_between("image_resize", "native", "warp")
    assert effects_between("kshot", "vote", "mean")
    assert not effects_between("kshot", "or", "mean")
    assert effects_between("runs", 1, 5)
    assert not effects_between("test_split", "test", "train")


def test_what_differs_in_the_order_of_the_rules() -> None:
    found = differences(PROTOCOLS["pfenet"], PROTOCOLS["bam"])
    assert [(d.rule, d.a, d.b) for d in found] == [
        ("episodes", 5001, 1000),
        ("coco_episodes", 20001, None),
        ("runs", 1, 5),
        ("seeds", (321,), (510, 365, 382, 322, 988)),
        ("base_images", "background", "drop"),
    ]


def test_the_other_way_round_is_the_same_with_sides_changed() -> None:
    for a in PROTOCOLS.values():
        for b in PROTOCOLS.values():
            there, back = differences(a, b), differences(b, a)
            assert [(d.rule, d.a, d.b, d.effects) for d in there] == [
                (d.rule, d.b, d.a, d.effects) for d in back
            ]


def test_equal_protocols() -> None:
    assert list(diff_lines(STANDARD, get_protocol("standard"))) == ["no rule differs"]
    assert list(diff_lines(STANDARD, replace(STANDARD, name="mine"))) == ["no rule differs"]
    same = diff_json(STANDARD, STANDARD)
    assert same == {"a": "standard", "b": "standard", "differences": {}}


def test_the_table_is_plain_when_piped() -> None:
    lines = fss_bench("protocols", "diff", "bam", "pfenet+query_ignore=background").stdout
    assert lines.splitlines()[:6] == [
        "rule           bam                      pfenet+query_ignore=background",
        "episodes       1000                     5001",
        "    COCO: a class with a single episode moves a fold's mIoU by up to 5 points (counted "
        "from the published lists)",
        "coco_episodes  none                     20001",
        "    COCO only",
        "    as under episodes",
    ]
    assert f"    {PFENET_25} (PFENet issue 25, by HSNet's author)" in lines.splitlines()
    assert "seeds          510, 365, 382, 322, 988  321" in lines.splitlines()
    assert "\x1b" not in lines


def test_rules_that_matter_in_places_say_so() -> None:
    lines = list(diff_lines(PROTOCOLS["hsnet"], PROTOCOLS["panet"]))
    for rule, scope in {"fold_scheme": "COCO only", "coco_crowd": "COCO only"}.items():
        assert lines[[line.split()[0] for line in lines].index(rule) + 1] == f"    {scope}"
    points = list(diff_lines(STANDARD, get_protocol("standard+annotation_points=9")))
    assert points[1:] == [
        "annotation_points  5         9",
        "    annotation=points only",
    ]


@pytest.mark.parametrize("columns", [80, 60])
def test_a_terminal_is_kept_within(columns: int) -> None:
    long = get_protocol("bam+seeds=" + "-".join(map(str, range(1000, 1030))))
    for b in (*PROTOCOLS.values(), long):
        wrapped, whole = (list(diff_lines(PROTOCOLS["panet"], b, c)) for c in (columns, None))
        assert max(map(len, wrapped)) <= columns
        assert sorted(" ".join(wrapped).split()) == sorted(" ".join(whole).split())


def test_the_command_wraps_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol_commands, "terminal_width", lambda: 80)
    lines = fss_bench("protocols", "diff", "panet", "bam").stdout.splitlines()
    assert 70 < max(map(len, lines)) <= 80


def test_long_labels_stand_above() -> None:
    other = get_protocol("standard+support_ignore=background+query_ignore=background")
    lines = list(diff_lines(STANDARD, other))
    assert lines[:5] == [
        "A: standard",
        "B: standard+query_ignore=background+support_ignore=background",
        "",
        "rule            A         B",
        "support_ignore  excluded  background",
    ]


def test_json() -> None:
    done = fss_bench("protocols", "diff", "standard", "standard+query_ignore=background", "--json")
    assert json.loads(done.stdout) == {
        "a": "standard",
        "b": "standard+query_ignore=background",
        "differences": {
            "query_ignore": {
                "a": "excluded",
                "b": "background",
                "effects": [{"text": PFENET_25, "source": "PFENet issue 25, by HSNet's author"}],
            }
        },
    }


def test_json_has_lists_and_null() -> None:
    found = json.loads(fss_bench("protocols", "diff", "pfenet", "bam", "--json").stdout)
    assert found["differences"]["coco_episodes"]["b"] is None
    assert found["differences"]["seeds"]["a"] == [321]
    assert found["differences"]["seeds"]["effects"] == []


def test_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "hsnet"\nname = "mine"\niou_at = "original"\nepisodes = 7\n')
    found = json.loads(fss_bench("protocols", "diff", file, "hsnet", "--json").stdout)
    assert found["a"].startswith("mine")
    assert {rule: d["a"] for rule, d in found["differences"].items()} == {
        "episodes": 7,
        "iou_at": "original",
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("standrd", "unknown protocol 'standrd': did you mean 'standard'?"),
        ("hsnet+iouat=input", "unknown protocol rule 'iouat': did you mean 'iou_at'?"),
        ("hsnet+iou_at=here", "rule iou_at='here': it must be one of original, input"),
        ("nowhere.toml", "protocol file nowhere.toml does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(name: str, told: str) -> None:
    for names in ((name, "hsnet"), ("hsnet", name)):
        assert told in complaint("protocols", "diff", *names)


def test_values_as_they_are_typed() -> None:
    assert [shown(v) for v in ("input", 5, (1, 22), (), None)] == [
        "input",
        "5",
        "1, 22",
        "none",
        "none",
    ]
