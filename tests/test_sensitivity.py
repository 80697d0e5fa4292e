"""Effects of single rules: which results are paired up, what is printed, drawn and written."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from test_comparison import call, random_counts, scored

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.leaderboard import build_rows
from fss_bench.protocols import PROTOCOLS, get_protocol
from fss_bench.report.sensitivity import (
    effects_csv,
    effects_json,
    effects_markdown,
    print_effects,
    write_effects,
)
from fss_bench.report.sensitivity_plot import effects_svg
from fss_bench.results import ResultStore, Run
from fss_bench.sensitivity import Effect, effects_in, find_effects

MakeResult = Callable[..., list[Run]]
SWIN = "swin_base_patch4_window12_384"


@pytest.fixture
def result(make_run: Callable[..., Run]) -> MakeResult:
    """Makes the runs of one method under a protocol, `lost` points below those of the base."""

    def make(
        protocol: str = "standard", lost: int = 0, folds: Iterable[int] = (0, 1), **changes: Any
    ) -> list[Run]:
        label = f"{protocol} {sorted(changes.items(), key=str)}"
        return [
            scored(
                make_run(
                    protocol=get_protocol(protocol), fold=fold, run_id=f"{label}{fold}", **changes
                ),
                [30 + count // 2 - lost for count in random_counts(fold, 12)],
            )
            for fold in folds
        ]

    return make


def changes(effects: Sequence[Effect]) -> list[tuple[str, Any, Any]]:
    return [(e.rule, e.before, e.after) for e in effects]


def test_one_rule_is_told(result: MakeResult) -> None:
    (effect,) = find_effects([*result(), *result("standard+query_ignore=background", lost=5)])
    assert changes([effect]) == [("query_ignore", "excluded", "background")]
    assert effect.difference.value == pytest.approx(-0.05)
    assert effect.difference.ci95 == (pytest.approx(-0.05), pytest.approx(-0.05))
    assert effect.difference.paired
    assert (effect.folds, effect.dataset_folds, effect.episodes) == (2, 2, 24)
    assert effect.entrant == ("panet", "resnet50", "imagenet")
    assert effect.setting == ("own@3-abcdef", 1, 1, "standard")
    assert effect.remarks == ()


@pytest.mark.parametrize(
    "rule",
    [
        "query_ignore=background",
        "iou_at=input",
        "image_resize=pad",
        "runs=2",
        "class_draw=uniform",
        "kshot=vote",
        "empty_class=zero",
        "annotation=box",
        "min_pixels=1",
        "mask_resize=nearest-pil",
        "base_images=background",
    ],
)
def test_every_rule_counts(result: MakeResult, rule: str) -> None:
    (effect,) = find_effects([*result(), *result(f"standard+{rule}")])
    assert effect.rule == rule.split("=")[0]


def test_two_rules_at_once_are_not_told(result: MakeResult) -> None:
    both = result("standard+query_ignore=background+iou_at=input")
    assert find_effects([*result(), *both]) == []


def test_of_two_rules_the_further_one_is_told(result: MakeResult) -> None:
    runs = [
        *result("standard+episodes=12"),
        *result("standard+episodes=12+class_draw=image", 1),
        *result("standard+episodes=12+class_draw=image+empty_class=zero", 4),
    ]
    draw, empty = find_effects(runs)[::-1]
    assert changes([draw, empty]) == [
        ("class_draw", "turns", "image"),
        ("empty_class", "skip", "zero"),
    ]
    assert [e.difference.value for e in (draw, empty)] == pytest.approx([-0.01, -0.03])
    assert (draw.base, draw.further) == ("standard+episodes=12", ())
    assert empty.base == "standard+class_draw=image+episodes=12"
    assert empty.further == ("class_draw=image",)
    assert empty.origin == draw.origin == "standard+episodes=12"
    assert empty.setting == draw.setting
    assert find_effects(runs[2:]) == [empty]  # it needs no base without further changes


def test_all_ways_through_several_rules_and_none_back(result: MakeResult) -> None:
    one, two, three = "query_ignore=background", "iou_at=input", "image_resize=pad"
    names = [one, two, three, f"{one}+{two}", f"{one}+{three}", f"{one}+{two}+{three}"]
    effects = find_effects([*result(), *(r for n in names for r in result(f"standard+{n}"))])
    assert sorted((e.rule, *e.further) for e in effects) == sorted(
        [
            ("query_ignore",),
            ("iou_at",),
            ("image_resize",),
            ("iou_at", one),
            ("query_ignore", two),
            ("image_resize", one),
            ("query_ignore", three),
            ("image_resize", two, one),
            ("iou_at", three, one),
        ]
    )
    default = PROTOCOLS["standard"].rules
    assert all(e.before == default[e.rule] for e in effects)


def test_a_further_change_has_another_value_on_neither_side(result: MakeResult) -> None:
    # an order brings its draw with it: from the base it is one rule, from another draw two
    order = result("standard+order=pfenet+class_draw=image")
    drawn = [result(f"standard+class_draw={draw}") for draw in ("image", "uniform")]
    effects = find_effects([*order, *drawn[0], *drawn[1]])
    assert [(e.rule, e.further) for e in effects] == [("order", ("class_draw=image",))]


def test_the_seed_is_the_yardstick_of_the_base_alone(result: MakeResult) -> None:
    changed = [*result("standard+iou_at=input"), *result("standard+iou_at=input", seed=1)]
    assert find_effects(changed) == []
    assert [e.rule for e in find_effects([*changed, *result()])] == ["iou_at"]


def test_the_base_protocol_may_be_a_changed_one(result: MakeResult) -> None:
    runs = [
        *result("standard+iou_at=input"),
        *result("standard+iou_at=input+query_ignore=background"),
    ]
    (effect,) = find_effects(runs, "standard+iou_at=input")
    assert (effect.rule, effect.further) == ("query_ignore", ())
    assert effect.origin == "standard+iou_at=input"


def with_classes(run: Run, *names: str) -> Run:
    """The run as if it averaged over these classes."""
    kept = {name: score for name, score in run.metrics.per_class.items() if name in names}
    return replace(run, metrics=replace(run.metrics, per_class=kept))


def test_classes_of_both_count(result: MakeResult) -> None:
    base = result(episodes_sha256="1" * 64)
    base[1] = with_classes(base[1], "cat")
    changed = result("standard+min_pixels=1")
    (effect,) = find_effects([*base, *changed])
    assert effect.remarks == ("3 classes of both",)

    def cats(runs: list[Run]) -> float | None:
        return runs[1].metrics.per_class["cat"].iou

    for runs, found in ((base, effect.difference.first), (changed, effect.difference.second)):
        assert found == pytest.approx((runs[0].metrics.miou + (cats(runs) or 0)) / 2)
    # the other way round it is the changed side that has fewer
    (back,) = find_effects([*result(), with_classes(result("standard+min_pixels=1")[0], "dog")])
    assert (back.remarks, back.folds) == (("1 classes of both",), 1)
    assert back.difference.value == pytest.approx(0)


def test_classes_without_a_pixel_stay_with_the_rule(make_run: Callable[..., Run]) -> None:
    zero = get_protocol("standard+empty_class=zero")
    counts, union = [10, 0, 20, 0], [40, 0, 40, 0]
    runs = [
        scored(make_run(fold=f, run_id=f"{p.label}{f}", protocol=p), counts, union)
        for f in (0, 1)
        for p in (PROTOCOLS["standard"], zero)
    ]
    (effect,) = find_effects(runs)
    assert (effect.difference.first, effect.difference.second) == pytest.approx((30 / 80, 15 / 80))
    assert (effect.remarks, effect.difference.paired) == ((), True)


def test_folds_without_a_class_in_common_are_left_out(result: MakeResult) -> None:
    base, changed = result(), result("standard+min_pixels=1")
    base[0] = with_classes(base[0], "cat")
    changed[0] = with_classes(changed[0], "dog")
    (effect,) = find_effects([*base, *changed])
    assert (effect.folds, effect.remarks) == (1, ())
    assert find_effects([base[0], changed[0]]) == []


def test_another_fold_scheme_has_classes_of_its_own(result: MakeResult) -> None:
    changed = result("standard+fold_scheme=contiguous", episodes_sha256="1" * 64)
    changed = [with_classes(run, "dog") for run in changed]
    (effect,) = find_effects([*result(), *changed])
    assert effect.remarks == ()
    dogs = [run.metrics.per_class["dog"].iou or 0 for run in changed]
    assert effect.difference.second == pytest.approx(sum(dogs) / 2)
    assert effect.difference.first == pytest.approx(sum(r.metrics.miou for r in result()) / 2)


def test_names_and_labels_are_no_rules(result: MakeResult, make_run: Callable[..., Run]) -> None:
    named = replace(get_protocol("standard+query_ignore=background"), name="mine")
    runs = [scored(make_run(protocol=named, fold=f, run_id=f"m{f}"), [1, 2]) for f in (0, 1)]
    assert [e.rule for e in find_effects([*result(), *runs])] == ["query_ignore"]
    same = replace(PROTOCOLS["standard"], name="ours")
    again = [scored(make_run(protocol=same, fold=f, run_id=f"o{f}"), [1, 2]) for f in (0, 1)]
    assert find_effects([*result(), *again]) == []


def test_another_base(result: MakeResult) -> None:
    runs = [*result("hsnet"), *result("hsnet+iou_at=original"), *result()]
    (effect,) = find_effects(runs, "hsnet")
    assert changes([effect]) == [("iou_at", "input", "original")]
    assert effect.base == "hsnet"
    assert find_effects(runs) == []  # no further change of standard, but another order
    with pytest.raises(UnknownNameError):
        find_effects(runs, "hsnett")


@pytest.mark.parametrize(
    "other",
    [
        {"method": "hsnet"},
        {"method_options": {"level": "c3"}},
        {"backbone": "vgg16"},
        {"backbone_options": {"output_stride": 8}},
        {"weights": {"source": "imagenet", "sha256": "cd" * 32}},
        {"checkpoint": {"path": "a", "sha256": "0"}},
        {"precision": "bf16"},
        {"ways": 2},
        {"shots": 5},
        {"dataset": {"name": "other"}},
        {"dataset": {"fingerprint": "g"}},
        {"dataset": {"classes_sha256": "d"}},
    ],
)
def test_different_things_are_not_compared(result: MakeResult, other: dict[str, Any]) -> None:
    changed = result("standard+query_ignore=background", **other)
    assert find_effects([*result(), *changed]) == []
    assert len(find_effects([*result(**other), *result(), *changed])) == 1


def test_a_file_a_fold_is_one_entrant(result: MakeResult) -> None:
    def trained(protocol: str) -> list[Run]:
        runs = result(protocol)
        for fold, run in enumerate(runs):
            file = {"path": f"fold{fold}.pth", "series": "fold{fold}.pth", "sha256": str(fold)}
            run.record["checkpoint"] = file
        return runs

    (effect,) = find_effects([*trained("standard"), *trained("standard+iou_at=input")])
    assert effect.folds == 2


def test_the_seed_is_the_yardstick(result: MakeResult) -> None:
    runs = [
        *result(),
        *result(seed=2, episodes_sha256="2" * 64),
        *result(seed=1, episodes_sha256="1" * 64, lost=1),
    ]
    effects = find_effects(runs)
    assert changes(effects) == [("seed", [0], [1]), ("seed", [0], [2])]
    assert not any(e.difference.paired for e in effects)
    assert effects[0].difference.value == pytest.approx(-0.01)
    low, high = effects[0].difference.ci95
    assert low < -0.01 < high
    assert high - low > 0.01


def test_the_lowest_seed_there_is_the_base(result: MakeResult) -> None:
    effects = find_effects([*result(seed=7), *result(seed=3), *result(seed=5)])
    assert changes(effects) == [("seed", [3], [5]), ("seed", [3], [7])]


def test_a_rule_is_told_within_its_seed(result: MakeResult) -> None:
    runs = [*result(), *result("standard+iou_at=input", seed=1)]
    assert find_effects(runs) == []
    effects = find_effects([*runs, *result(seed=1)])
    assert [(e.rule, e.base_seed) for e in effects] == [("seed", (0,)), ("iou_at", (1,))]


def test_seeds_of_a_protocol_count_as_the_seed(result: MakeResult) -> None:
    runs = [*result(), *result("standard+seeds=4", episodes_sha256="4" * 64)]
    assert changes(find_effects(runs)) == [("seed", [0], [4])]


def test_repetitions(result: MakeResult) -> None:
    more = result("standard+runs=3", episodes_sha256="3" * 64)
    (effect,) = find_effects([*result(), *more])
    assert changes([effect]) == [("runs", 1, 3)]
    assert not effect.difference.paired
    more = result("standard+seeds=0-1-2", episodes_sha256="3" * 64)
    assert changes(find_effects([*result(), *more])) == [("runs", 1, 3)]
    others = result("standard+seeds=7-8-9", episodes_sha256="3" * 64)
    assert find_effects([*result(), *others]) == []


def test_an_order_brings_rules_with_it(result: MakeResult) -> None:
    order = "standard+order=pfenet+class_draw=image"
    (effect,) = find_effects([*result(), *result(order)])
    assert changes([effect]) == [("order", "balanced", "pfenet")]
    assert find_effects([*result(), *result(f"{order}+min_pixels_of=image")]) == []


def test_other_numbers_of_episodes_have_bases_of_their_own(result: MakeResult) -> None:
    runs = [
        *result("standard+episodes=12"),
        *result("standard+episodes=12+query_ignore=background", lost=3),
        *result("standard+episodes=24+query_ignore=background"),
    ]
    (effect,) = find_effects(runs)
    assert (effect.rule, effect.base) == ("query_ignore", "standard+episodes=12")
    effects = find_effects([*runs, *result("standard+episodes=24")])
    assert [(e.rule, e.base) for e in effects] == [
        ("query_ignore", "standard+episodes=12"),
        ("query_ignore", "standard+episodes=24"),
    ]
    effects = find_effects([*result(), *result("standard+episodes=12")])
    assert changes(effects) == [("episodes", 1000, 12)]


def test_rules_that_a_dataset_gives_are_the_bases(result: MakeResult) -> None:
    runs = [
        *result("standard+short_classes=skip"),
        *result("standard+short_classes=skip+iou_at=input"),
    ]
    (effect,) = find_effects(runs)
    assert (effect.rule, effect.base) == ("iou_at", "standard+short_classes=skip")


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        ("coco_overlap=both", {"name": "coco20i@9-bbbbbb", "fingerprint": "b"}),
        ("coco_crowd=include", {"name": "coco20i@9-bbbbbb", "fingerprint": "b"}),
        ("fold_scheme=contiguous", {"name": "coco20i@9-aaaaaa", "classes_sha256": "other"}),
    ],
)
def test_a_rule_may_change_the_dataset(result: MakeResult, rule: str, data: dict[str, Any]) -> None:
    base = result(dataset={"name": "coco20i@9-aaaaaa"})
    (effect,) = find_effects([*base, *result(f"standard+{rule}", dataset=data)])
    assert f"{effect.rule}={effect.after}" == rule
    assert effect.dataset == "coco20i@9-aaaaaa"
    twice = result(f"standard+{rule}+iou_at=input", dataset=data)
    assert find_effects([*base, *twice]) == []
    smaller = result(f"standard+{rule}", dataset={**data, "test_images": 2})
    assert find_effects([*base, *smaller]) == []
    unchanged = result("standard+iou_at=input", dataset=data)
    assert find_effects([*base, *unchanged]) == []


def test_folds_that_both_have_count(result: MakeResult) -> None:
    four = {"folds": 4}
    runs = [
        *result(folds=range(4), dataset=four),
        *result("standard+iou_at=input", 2, folds=(1, 3), dataset=four),
    ]
    (effect,) = find_effects(runs)
    assert (effect.folds, effect.dataset_folds, effect.episodes) == (2, 4, 24)
    assert effect.difference.value == pytest.approx(-0.02)
    apart = [*result(folds=[0]), *result("standard+iou_at=input", folds=[1])]
    assert find_effects(apart) == []


def test_folds_of_another_scheme_are_compared_as_a_whole(result: MakeResult) -> None:
    other = {"classes_sha256": "other"}
    half = result("standard+fold_scheme=contiguous", folds=[0], dataset=other)
    assert find_effects([*result(), *half]) == []
    assert len(find_effects([*result(), *result("standard+fold_scheme=contiguous")])) == 1


def test_it_is_paired_only_if_all_folds_are(result: MakeResult) -> None:
    changed = result("standard+iou_at=input")
    changed[1].record["episodes_sha256"] = "1" * 64
    (effect,) = find_effects([*result(), *changed])
    assert not effect.difference.paired


def test_other_code_and_devices_are_remarked(result: MakeResult) -> None:
    changed = result("standard+iou_at=input", code_sha256="e" * 64, device_type="cuda")
    (effect,) = find_effects([*result(), *changed])
    assert effect.remarks == ("other code", "other device")


def test_older_records_have_the_defaults(result: MakeResult) -> None:
    old = result()
    for run in old:
        for rule in ("image_filter", "seeds", "runs", "vanished", "order"):
            run.record["protocol"].pop(rule)
    assert changes(find_effects([*old, *result("standard+vanished=dropped")])) == [
        ("vanished", "counted", "dropped")
    ]
    assert find_effects([*old, *result()]) == []


def test_the_order_of_the_runs_does_not_matter(result: MakeResult) -> None:
    runs = [
        *result(),
        *result("standard+iou_at=input", 1),
        *result("standard+query_ignore=background", 5),
        *result(seed=1, lost=9),
        *result(method="hsnet"),
        *result("standard+iou_at=input", method="hsnet"),
    ]
    effects = find_effects(runs)
    assert [(e.method, e.rule) for e in effects] == [
        ("hsnet", "iou_at"),
        ("panet", "query_ignore"),  # the largest first
        ("panet", "iou_at"),
        ("panet", "seed"),
    ]
    assert find_effects(runs[::-1]) == effects


@pytest.fixture
def effects(result: MakeResult) -> list[Effect]:
    """Some of all kinds, with long names."""
    runs: list[Run] = []
    wide = {"name": "pascal5i@1449-1a2b3c", "folds": 4}
    for entrant in ({}, {"method": "m[/x]<&|>", "backbone": SWIN}):
        for shots in (1, 5):
            same: dict[str, Any] = {"shots": shots, "dataset": wide, **entrant}
            runs += result(folds=range(4), **same)
            runs += result(folds=range(4), seed=1, episodes_sha256="1" * 64, **same)
            runs += result("standard+query_ignore=background", 0, range(3), **same)
            runs += result("standard+mask_resize=nearest-opencv", 20, range(4), **same)
    return find_effects(runs)


@pytest.fixture
def nested(result: MakeResult) -> list[Effect]:
    """Two rules one after the other, from a base of a long name."""
    base = "standard+episodes=100+short_classes=skip+min_pixels=1024+coco_episodes=4000"
    data = {"name": "coco20i@147-d37e3d"}
    rules = ("", "+class_draw=image", "+class_draw=image+empty_class=zero")
    return find_effects([r for rule in rules for r in result(base + rule, dataset=data)])


def test_the_tables_say_what_the_base_has_changed(nested: list[Effect]) -> None:
    text = printed(nested)
    lines = [line.split("  ")[:2] for line in text.splitlines()]
    place = lines.index(["", "skip -> zero"])
    assert lines[place + 1][1].startswith("with class_draw=image")
    assert text.count("1-way 1-shot, base") == 1
    assert max(map(len, text.splitlines())) <= 80
    assert "| skip -> zero, with class_draw=image |" in effects_markdown(nested)
    rows = list(csv.DictReader(io.StringIO(effects_csv(nested))))
    assert {row["rule"]: "class_draw" in row["base_protocol"] for row in rows} == {
        "class_draw": False,
        "empty_class": True,
    }


def test_the_plot_says_what_the_base_has_changed(nested: list[Effect]) -> None:
    texts = [e.text or "" for e in drawn(nested).iter(f"{SVG}text")]
    place = texts.index("skip → zero")
    assert texts[place - 1 : place + 2] == ["empty_class", "skip → zero", "with class_draw=image"]
    tips = [e.text or "" for e in drawn(nested).iter(f"{SVG}title")]
    assert sum("empty_class skip to zero with class_draw=image, " in tip for tip in tips) == 1


def test_a_long_base_has_lines_of_its_own(nested: list[Effect], result: MakeResult) -> None:
    base = "standard+coco_episodes=400+coco_overlap=smaller+episodes=50"
    base += "+fold_scheme=contiguous+min_pixels=1024+short_classes=skip"
    data = {"name": "coco20i@147-d37e3d"}
    longer = [*result(base, dataset=data), *result(f"{base}+iou_at=input", dataset=data)]
    for effects, lines in ((nested, 1), (find_effects(longer), 2)):
        elements = list(drawn(effects).iter(f"{SVG}text"))
        texts = [e.text or "" for e in elements]
        place = texts.index("coco20i@147-d37e3d, 1-way 1-shot")
        own = slice(place + 1, place + 1 + lines)
        assert "".join(texts[own]) == f"base {effects[0].origin}"
        assert not any("…" in text for text in texts)
        assert [e.attrib["font-size"] for e in elements[own]] == ["12"] * lines


def test_tips_name_the_seed_where_there_are_several(result: MakeResult) -> None:
    runs = [*result(), *result("standard+iou_at=input")]
    assert "seed" not in effects_svg(find_effects(runs))
    other = [*result(seed=1), *result("standard+iou_at=input", seed=1)]
    tips = [e.text or "" for e in drawn(find_effects([*runs, *other])).iter(f"{SVG}title")]
    assert sum(", base seed 0, " in tip for tip in tips) == 2  # the seed's own, too
    assert sum(", base seed 1, " in tip for tip in tips) == 1


def printed(effects: Sequence[Effect]) -> str:
    console = Console(file=io.StringIO(), width=80)
    print_effects(effects, console)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_tables_fit_80_columns_and_cut_nothing(effects: list[Effect]) -> None:
    text = printed(effects)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for effect in effects:
        assert f"{100 * effect.difference.first:.2f}" in text
        assert effect.rule in text
    assert "nearest -> nearest-opencv" in text
    assert "3 of 4 folds" in text
    assert "m[/x]<&|>" in text
    assert text.count("1-way 5-shot, base standard") == 2


def test_the_csv_has_a_line_an_effect(effects: list[Effect]) -> None:
    rows = list(csv.DictReader(io.StringIO(effects_csv(effects))))
    assert len(rows) == len(effects) == 12
    (row,) = [
        r for r in rows if (r["rule"], r["method"], r["shots"]) == ("query_ignore", "panet", "1")
    ]
    (effect,) = [e for e in effects if (e.rule, e.method, e.shots) == ("query_ignore", "panet", 1)]
    score = f"{100 * effect.difference.first:.2f}"
    digest = effect.episodes_sha256_base
    assert row == {
        "rule": "query_ignore",
        "base_value": "excluded",
        "changed_value": "background",
        "method": "panet",
        "backbone": "resnet50",
        "weights": "imagenet",
        "dataset": "pascal5i@1449-1a2b3c",
        "ways": "1",
        "shots": "1",
        "base_protocol": "standard",
        "base_seed": "0",
        "folds": "3",
        "dataset_folds": "4",
        "episodes": "36",
        "miou_base": score,
        "miou_changed": score,
        "difference": "0.00",
        "ci_low": "0.00",
        "ci_high": "0.00",
        "same_episodes": "yes",
        "remarks": "",
        "runs_base": effect.runs_base,
        "runs_changed": effect.runs_changed,
        "episodes_sha256_base": digest,
        "episodes_sha256_changed": digest,
    }
    lost = {r["difference"] for r in rows if r["rule"] == "mask_resize"}
    assert lost == {"-20.00"}
    scores = ("miou_base", "miou_changed", "difference", "ci_low", "ci_high")
    assert all(re.fullmatch(r"-?\d+\.\d\d", r[name]) for r in rows for name in scores)
    assert "-0.00" not in effects_csv(effects)


def test_runs_and_episodes_can_be_traced(make_run: Callable[..., Run]) -> None:
    def runs(rule: str, digest: str, folds: int) -> list[Run]:
        protocol = get_protocol(rule)
        ids = {"episodes_sha256": digest * 64, "dataset": {"folds": 2}}
        return [
            make_run(fold=f, protocol=protocol, run_id=f"{rule}{f}", **ids) for f in range(folds)
        ]

    base, changed = runs("standard", "1", 2), runs("standard+class_draw=pairs", "2", 1)
    (row,) = csv.DictReader(io.StringIO(effects_csv(find_effects([*base, *changed]))))
    assert row["runs_base"] == "standard0"
    assert row["runs_changed"] == "standard+class_draw=pairs0"
    for name, side in (("base", base), ("changed", changed)):
        (board,) = build_rows(side[:1])  # of the folds that count
        assert row[f"episodes_sha256_{name}"] == board.episodes_sha256
    (effect,) = find_effects([*base, *runs("standard+class_draw=pairs", "2", 2)])
    assert effect.runs_base == "standard0 standard1"


def test_markdown_tables_have_equal_rows(effects: list[Effect]) -> None:
    lines = [line for line in effects_markdown(effects).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {8}
    assert len(lines) == 12 + 2 * 4


def test_json_holds_what_the_effects_hold(effects: list[Effect]) -> None:
    for found, effect in zip(json.loads(json.dumps(effects_json(effects))), effects, strict=True):
        assert found["rule"] == effect.rule
        assert found["difference"]["value"] == effect.difference.value
        assert "p" not in found["difference"]  # of two rules there is none


def drawn(effects: Sequence[Effect]) -> ElementTree.Element:
    return ElementTree.fromstring(effects_svg(effects))


SVG = "{http://www.w3.org/2000/svg}"


def test_the_plot_names_all(effects: list[Effect]) -> None:
    root = drawn(effects)
    texts = [e.text or "" for e in root.iter(f"{SVG}text")]
    assert {e.rule for e in effects} <= set(texts)
    assert "panet, resnet50" in texts
    assert f"m[/x]<&|>, {SWIN}" in texts
    assert sum("-shot, base standard" in text for text in texts) == 2
    assert "nearest → nearest-opencv" in texts
    assert len(list(root.iter(f"{SVG}g"))) == len(effects)
    assert min(int(e.attrib["font-size"]) for e in root.iter(f"{SVG}text")) >= 12
    first = next(e for e in root if e.tag != f"{SVG}title")
    assert first.tag == f"{SVG}rect"  # a ground of its own
    assert (first.attrib["width"], first.attrib["fill"]) == ("760", "#ffffff")


def test_nothing_is_drawn_outside_or_over_the_names(effects: list[Effect]) -> None:
    root = drawn(effects)
    height = float(root.attrib["height"])
    for element in root.iter(f"{SVG}text"):
        assert 0 < float(element.attrib["y"]) < height
        room = 268 if element.attrib["x"] == "24.0" and "→" in (element.text or "") else 740
        assert 12 * 0.6 * len(element.text or "") <= room
    for group in root.iter(f"{SVG}g"):
        whisker, dot = group.findall(f"{SVG}path")
        low, high = re.findall(r"[MH](\d+\.\d)", whisker.attrib["d"])[:2]
        assert 284 <= float(low) <= float(high) <= 736
        x = float(re.findall(r"\d+\.\d", dot.attrib["transform"])[0])
        assert float(low) - 0.1 <= x <= float(high) + 0.1


def test_paired_dots_are_filled(effects: list[Effect]) -> None:
    for group in drawn(effects).iter(f"{SVG}g"):
        dot = group.findall(f"{SVG}path")[1]
        hollow = dot.attrib["fill"] == "#ffffff"
        assert hollow == (": seed " in (group.findtext(f"{SVG}title") or ""))


def test_effects_of_nothing_can_be_drawn(result: MakeResult) -> None:
    still = find_effects([*result(), *result("standard+iou_at=input")])
    ticks = [e.text for e in drawn(still).iter(f"{SVG}text") if e.text in ("0", "-0.4", "+0.4")]
    assert ticks == ["-0.4", "0", "+0.4"]


def test_many_entrants_look_different(result: MakeResult) -> None:
    runs = []
    for i in range(12):
        same = {"method": f"a-method-of-a-long-name-{i:02d}", "backbone": SWIN}
        runs += [*result(**same), *result("standard+iou_at=input", i, **same)]
    root = drawn(find_effects(runs))
    looks = set()
    for group in root.iter(f"{SVG}g"):
        dot = group.findall(f"{SVG}path")[1]
        looks.add((dot.attrib["d"], dot.attrib["fill"]))
    assert len(looks) == 12


def test_weights_show_where_they_tell_entrants_apart(result: MakeResult) -> None:
    runs = []
    for source in ("imagenet", "dino"):
        same = {"weights": {"source": source, "sha256": source}}
        runs += [*result(**same), *result("standard+iou_at=input", **same)]
    texts = {e.text for e in drawn(find_effects(runs)).iter(f"{SVG}text")}
    assert {"panet, resnet50, imagenet", "panet, resnet50, dino"} <= texts


@pytest.fixture
def stored(result: MakeResult, tmp_path: Path) -> Path:
    store = ResultStore(tmp_path / "results")
    for run in [*result(), *result("standard+query_ignore=background", 5)]:
        store.write(run)
    return store.root


@pytest.mark.parametrize(
    ("suffix", "start"), [(".svg", "<svg "), (".csv", "rule,base_value,"), (".md", "**panet, ")]
)
def test_files_by_their_suffix(stored: Path, tmp_path: Path, suffix: str, start: str) -> None:
    file = tmp_path / f"effects{suffix}"
    text, _ = call("protocols", "sensitivity", "--results", stored, "-o", file)
    assert text == f"{file}\n"
    assert file.read_text(encoding="utf-8").startswith(start)
    assert "query_ignore" in file.read_text(encoding="utf-8")


def test_a_picture_needs_cairosvg(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    file = tmp_path / "effects.png"
    text, errors = call("protocols", "sensitivity", "--results", stored, "-o", file, status=2)
    assert text == ""
    (line,) = errors.splitlines()
    assert "write a .svg" in line
    assert not file.exists()


@pytest.mark.parametrize("name", ["effects.txt", "effects", "no/such/folder.svg"])
def test_a_file_that_cannot_be_written(effects: list[Effect], tmp_path: Path, name: str) -> None:
    with pytest.raises(FssBenchError) as caught:
        write_effects(effects, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command(stored: Path) -> None:
    text, _ = call("protocols", "sensitivity", "--results", stored)
    assert "query_ignore" in text
    assert "-5.00" in text
    text, _ = call("protocols", "sensitivity", "--results", stored, "--json")
    (effect,) = json.loads(text)["effects"]
    assert effect["difference"]["paired"] is True


def test_nothing_found_says_what_to_run(stored: Path, tmp_path: Path) -> None:
    text, errors = call("protocols", "sensitivity", "--results", tmp_path, status=2)
    assert text == ""
    (line,) = errors.splitlines()
    assert "`fss-bench evaluate panet --protocol standard,standard+query_ignore=background`" in line
    with pytest.raises(FssBenchError, match=r"hsnet,hsnet\+query_ignore=background"):
        effects_in(ResultStore(stored), "hsnet")
    call("protocols", "sensitivity", "--results", stored, "--base", "nothing", status=2)


@pytest.mark.parametrize(
    ("base", "changed"),
    [
        ("standard+iou_at=input", "query_ignore=background"),
        ("standard+query_ignore=background", "iou_at=input"),
        ("hsnet+query_ignore=background", "iou_at=original"),
    ],
)
def test_the_command_proposed_changes_a_rule(tmp_path: Path, base: str, changed: str) -> None:
    _, errors = call("protocols", "sensitivity", "--results", tmp_path, "--base", base, status=2)
    assert f"--protocol {base},{base}+{changed}`" in errors
    assert get_protocol(f"{base}+{changed}").rules != get_protocol(base).rules


def test_the_command_proposed_takes_the_file_of_a_protocol(tmp_path: Path) -> None:
    file = tmp_path / "my own.toml"
    file.write_text('base = "standard"\niou_at = "input"\n')
    with pytest.raises(FssBenchError) as caught:
        effects_in(ResultStore(tmp_path), str(file))
    command = f"fss-bench evaluate panet --protocol '{file},{file}+query_ignore=background'"
    assert f"`{command}`" in str(caught.value)


def test_a_results_folder_that_is_not_there(tmp_path: Path) -> None:
    none = tmp_path / "none"
    _, errors = call("protocols", "sensitivity", "--results", none, status=2)
    (line,) = errors.splitlines()
    assert line.startswith(f"error: results folder {none} does not exist: ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("effects.txt", "its suffix must be one of .svg, .csv, .md, .png"),
        ("effects.png", "PNG needs the package cairosvg"),
        ("nodir/effects.svg", "nodir does not exist: create it"),
    ],
)
def test_the_output_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    none = tmp_path / "none"  # which would be told otherwise
    _, errors = call("protocols", "sensitivity", "--results", none, "-o", tmp_path / name, status=2)
    (line,) = errors.splitlines()
    assert words in line


def test_unreadable_runs_are_left_out_with_a_note(stored: Path) -> None:
    damaged = stored / "runs" / "own" / "run.json"
    damaged.parent.mkdir()
    damaged.write_text("{}")
    text, errors = call("protocols", "sensitivity", "--results", stored)
    assert "query_ignore" in text
    assert errors.startswith("note: left out: ")
