"""Protocols: rules are checked, changes show in the label, every rule is documented."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from fss_bench.dataset import create_dataset
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.protocols import PROTOCOLS, SUMMARIES, EvaluationProtocol, get_protocol
from fss_bench.setting import create_setting

STANDARD = PROTOCOLS["standard"]
GOES_WITH = {
    ("order", "hsnet"): {"class_draw": "lists"},
    ("class_draw", "lists"): {"order": "hsnet"},
    ("order", "oslsm"): {"class_draw": "pairs"},
    ("order", "revolver"): {"class_draw": "pairs"},
    ("order", "pfenet"): {"class_draw": "image"},
    ("order", "panet"): {"class_draw": "uniform"},
    ("min_pixels_of", "image"): {"class_draw": "image"},
}
"""Values that fix how classes are drawn: published orders, and one more."""
RULES = [f.name for f in fields(EvaluationProtocol) if f.name != "name"]


def test_a_name_gives_its_protocol() -> None:
    assert get_protocol("hsnet") is PROTOCOLS["hsnet"]
    assert {name: p.name for name, p in PROTOCOLS.items()} == {n: n for n in PROTOCOLS}
    assert list(SUMMARIES) == list(PROTOCOLS)


@pytest.mark.parametrize(("typed", "near"), [("hsnett", "hsnet"), ("standart", "standard")])
def test_an_unknown_protocol_suggests_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(
        UnknownNameError, match=f"unknown protocol '{typed}': did you mean '{near}'"
    ):
        get_protocol(typed)


def test_a_name_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError,
        match="known: bam, hsnet, hsnet-orig, oslsm, panet, pfenet, revolver, standard",
    ):
        get_protocol("zzz")


@pytest.mark.parametrize(("typed", "near"), [("episode", "episodes"), ("iou_att", "iou_at")])
def test_an_unknown_rule_suggests_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"protocol rule '{typed}': did you mean '{near}'"):
        STANDARD.replace_rules({typed: 1})


def test_the_name_is_no_rule() -> None:
    with pytest.raises(UnknownNameError, match="unknown protocol rule 'name'"):
        STANDARD.replace_rules({"name": "mine"})


@pytest.mark.parametrize("rule", ["episodes", "min_pixels"])
@pytest.mark.parametrize("value", [0, -1, "0", -2048])
def test_numbers_below_one_are_refused(rule: str, value: Any) -> None:
    with pytest.raises(FssBenchError, match=f"rule {rule}={int(value)}: it must be 1 or more"):
        STANDARD.replace_rules({rule: value})


@pytest.mark.parametrize(
    "value", ["many", "", 1.5, "1.5", True, None, float("inf"), float("nan"), [3], 10**400]
)
def test_what_is_no_whole_number_is_refused_not_cut(value: Any) -> None:
    with pytest.raises(FssBenchError, match=r"rule episodes=.* must be a whole number"):
        STANDARD.replace_rules({"episodes": value})


@pytest.mark.parametrize("value", [200, "200", 200.0])
def test_whole_numbers_are_taken(value: Any) -> None:
    changed = STANDARD.replace_rules({"episodes": value})
    assert (changed.episodes, type(changed.episodes)) == (200, int)


def test_no_number_of_episodes_is_every_pair_once_and_none_is_as_elsewhere() -> None:
    assert PROTOCOLS["revolver"].replace_rules({"episodes": 0}).episodes == 0
    for value in ("none", None):
        assert PROTOCOLS["pfenet"].replace_rules({"coco_episodes": value}).coco_episodes is None
    assert PROTOCOLS["pfenet"].replace_rules({"coco_episodes": "1"}).coco_episodes == 1


def test_a_wrong_value_lists_the_right_ones() -> None:
    with pytest.raises(
        FssBenchError, match="rule iou_at='orig': it must be one of original, input"
    ):
        STANDARD.replace_rules({"iou_at": "orig"})
    with pytest.raises(FssBenchError, match="one of error, skip"):
        STANDARD.replace_rules({"short_classes": True})


def test_every_documented_value_is_taken_and_no_other() -> None:
    for rule, kind in get_type_hints(EvaluationProtocol).items():
        if get_origin(kind) is not Literal:
            continue
        for value in get_args(kind):
            changed = STANDARD.replace_rules({**GOES_WITH.get((rule, value), {}), rule: value})
            assert getattr(changed, rule) == value
        with pytest.raises(FssBenchError, match=f"rule {rule}='no such value'"):
            STANDARD.replace_rules({rule: "no such value"})


def test_runs_and_seeds_go_together() -> None:
    bam = PROTOCOLS["bam"]
    assert bam.replace_rules({"runs": 2}).seeds == (510, 365)
    assert bam.replace_rules({"runs": 2, "seeds": (7, 8)}).seeds == (7, 8)
    assert bam.replace_rules({"seeds": (7, 8, 9)}).runs == 3
    with pytest.raises(FssBenchError, match="rule runs=3: there are 2 seeds"):
        bam.replace_rules({"runs": 3, "seeds": (7, 8)})


def test_replace_rules_leaves_the_original_alone() -> None:
    before = asdict(STANDARD)
    changed = STANDARD.replace_rules({"episodes": 5, "iou_at": "input"})
    assert asdict(STANDARD) == before
    assert asdict(changed) == {**before, "episodes": 5, "iou_at": "input"}
    with pytest.raises(FrozenInstanceError):
        STANDARD.episodes = 5  # type: ignore[misc]


def test_labels() -> None:
    assert STANDARD.label == "standard"
    assert PROTOCOLS["hsnet"].label == "hsnet"
    assert STANDARD.replace_rules({"episodes": 200}).label == "standard+episodes=200"
    assert STANDARD.replace_rules({"episodes": 1000}).label == "standard"
    several = {"short_classes": "skip", "episodes": 20, "empty_class": "zero"}
    label = STANDARD.replace_rules(several).label
    assert label == "standard+empty_class=zero+episodes=20+short_classes=skip"


def test_a_label_of_120_letters_is_the_longest() -> None:
    longest = "x" * (120 - len("+episodes=50"))
    assert EvaluationProtocol(longest, episodes=50).label == f"{longest}+episodes=50"
    label = EvaluationProtocol(f"{longest}x", episodes=50).label
    assert re.fullmatch(r"x+\+1-rules-[0-9a-f]{8}", label)


def test_a_label_compares_with_the_named_protocol_not_with_the_defaults() -> None:
    assert PROTOCOLS["hsnet"].replace_rules({"iou_at": "original"}).label == "hsnet+iou_at=original"


def test_a_protocol_of_ones_own_has_a_label_and_is_checked() -> None:
    mine = EvaluationProtocol("mine", iou_at="input")
    assert get_protocol(mine) == mine
    assert mine.label == "mine+iou_at=input"
    assert EvaluationProtocol("mine").label == "mine"
    wrong = EvaluationProtocol("mine", query_ignore="exclude")  # type: ignore[arg-type]
    with pytest.raises(FssBenchError, match="rule query_ignore='exclude': it must be one of"):
        get_protocol(wrong)


def docstrings() -> dict[str, str]:
    """Field -> the text under it."""
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(EvaluationProtocol))).body
    assert isinstance(cls, ast.ClassDef)
    return {
        field.target.id: str(text.value.value)
        for field, text in pairwise(cls.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def test_every_field_and_every_value_is_documented() -> None:
    found = docstrings()
    assert list(found) == ["name", *RULES]
    for rule, kind in get_type_hints(EvaluationProtocol).items():
        for value in get_args(kind) if get_origin(kind) is Literal else ():
            assert f"`{value}`" in found[rule], (rule, value)


def test_what_makes_hsnet_differ() -> None:
    # PROTOCOLS.md 1.5.1 and 1.6: published order, IoU at the input square, absent classes count as
    # 0, 255 of a support is background, and novel objects stay in training images as background.
    mine, theirs = asdict(STANDARD), asdict(PROTOCOLS["hsnet"])
    assert {rule: value for rule, value in theirs.items() if value != mine[rule]} == {
        "name": "hsnet",
        "order": "hsnet",
        "class_draw": "lists",
        "support_draw": "repeat",
        "seeds": (0,),
        "empty_class": "clamp",
        "iou_at": "input",
        "support_ignore": "background",
        "base_images": "background",
        "train_ignore": "background",
    }
    assert theirs["episodes"] == 1000
    assert theirs["query_ignore"] == "excluded"


def test_a_setting_resolves_rules_in_order(make_folder: Callable[..., Path]) -> None:
    dataset = create_dataset("folder", make_folder())
    rules = {"min_pixels": 100, "episodes": 7}
    assert (
        create_setting(dataset, rules=rules).protocol.label == "standard+episodes=7+min_pixels=100"
    )
    setting = create_setting(dataset, rules=rules, episodes=9)
    assert len(setting.specs) == setting.protocol.episodes == 9


@pytest.mark.parametrize(
    ("rule", "value", "option"),
    [
        ("coco_overlap", "both", "overlap"),
        ("coco_crowd", "include", "crowd"),
    ],
)
def test_a_rule_of_the_dataset_is_changed_there_not_in_the_label_alone(
    make_coco_folder: Callable[..., Path], rule: str, value: str, option: str
) -> None:
    dataset = create_dataset("folder", make_coco_folder())
    with pytest.raises(FssBenchError, match=f"--dataset-option {option}={value} instead"):
        create_setting(dataset, rules={rule: value, "min_pixels": 100})
    same = getattr(STANDARD, rule)
    create_setting(dataset, rules={rule: same, "min_pixels": 100})
