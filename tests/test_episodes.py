"""The standard sampler is a pure function; the JSONL list and its digest; training episodes."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fss_bench.base_episodes import train_sampler
from fss_bench.dataset import create_dataset
from fss_bench.episodes import EpisodeSampler, EpisodeSpec, episodes_sha256, to_jsonl
from fss_bench.errors import EpisodeError
from fss_bench.protocols import PROTOCOLS
from fss_bench.setting import create_setting

Pools = dict[int, list[str]]
SMALL: Pools = {
    3: ["2007_000033", "2007_000061", "2007_000129", "2007_000346", "2007_000529", "2007_000559"],
    7: ["2008_000107", "2008_000123", "2007_000033", "2008_000219", "2008_000365", "2008_000401"],
    12: ["été/1", "日本 2", 'a"b\\c', "2010_001174", "2010_001184", "2010_001193", "2010_001195"],
}

names = st.text("abcxyz019_/é", min_size=1, max_size=4)


@st.composite
def settings_1way(draw: st.DrawFn) -> dict[str, Any]:
    shots = draw(st.integers(1, 4))
    pool = st.lists(names, min_size=shots + 1, max_size=9, unique=True)
    pools = draw(st.dictionaries(st.integers(1, 300), pool, min_size=1, max_size=4))
    seed, fold = draw(st.integers(0, 2**40)), draw(st.integers(0, 3))
    return {"pools": pools, "shots": shots, "seed": seed, "fold": fold}


def sampler(pools: Pools = SMALL, **changes: Any) -> EpisodeSampler:
    return EpisodeSampler(pools, **{"fold": 0, **changes})


def disjoint_pools(classes: int = 6, size: int = 8) -> Pools:
    return {c: [f"c{c}_{i}" for i in range(size)] for c in range(1, classes + 1)}


@given(settings_1way(), st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_an_episode_depends_on_its_index_alone(setting: dict[str, Any], order: list[int]) -> None:
    one = EpisodeSampler(**setting)
    first = [one[i] for i in order]
    assert [one[i] for i in reversed(order)] == first[::-1]
    assert [EpisodeSampler(**setting)[i] for i in order] == first
    assert [spec.index for spec in first] == order


@given(settings_1way(), st.randoms())
def test_the_order_of_the_pools_changes_nothing(setting: dict[str, Any], random: Any) -> None:
    shuffled = {c: random.sample(pool, len(pool)) for c, pool in setting["pools"].items()}
    keys = random.sample(list(shuffled), len(shuffled))
    other = EpisodeSampler(**{**setting, "pools": {c: shuffled[c] for c in keys}})
    assert other.take(20) == EpisodeSampler(**setting).take(20)


def test_interleaved_samplers_do_not_disturb_each_other() -> None:
    a, b = sampler(seed=1, shots=2), sampler(seed=2, shots=2)
    mixed = [(a[i], b[i]) for i in range(30)]
    assert [x for x, _ in mixed] == sampler(seed=1, shots=2).take(30)
    assert [y for _, y in mixed] == sampler(seed=2, shots=2).take(30)


def test_another_process_draws_the_same_episodes() -> None:
    code = (
        "import json, sys; from fss_bench.episodes import *;"
        "pools = {int(c): p for c, p in json.loads(sys.argv[1]).items()};"
        "s = EpisodeSampler(pools, fold=2, ways=2, shots=3, seed=5);"
        "print(episodes_sha256([s[i] for i in reversed(range(50))][::-1]), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(SMALL)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77"},
    )
    mine = episodes_sha256(sampler(fold=2, ways=2, shots=3, seed=5).take(50))
    assert done.stdout.split() == [mine, "False"]


@given(settings_1way())
def test_supports_are_distinct_from_their_pool_and_never_the_query(setting: dict[str, Any]) -> None:
    for spec in EpisodeSampler(**setting).take(40):
        (class_id,), (supports,) = spec.classes, spec.supports
        assert len(set(supports)) == len(supports) == setting["shots"]
        assert spec.query not in supports
        assert {spec.query, *supports} <= set(setting["pools"][class_id])


@given(settings_1way(), st.integers(1, 60))
def test_classes_are_balanced_over_any_prefix(setting: dict[str, Any], episodes: int) -> None:
    specs = EpisodeSampler(**setting).take(episodes)
    counts = Counter(spec.classes[0] for spec in specs)
    sizes = [counts[c] for c in setting["pools"]]
    assert max(sizes) - min(sizes) <= 1


@given(settings_1way())
def test_queries_of_a_class_cover_its_pool_before_one_repeats(setting: dict[str, Any]) -> None:
    pools = setting["pools"]
    specs = EpisodeSampler(**setting).take(3 * len(pools) * max(map(len, pools.values())))
    for class_id, pool in pools.items():
        queries = [spec.query for spec in specs if spec.classes == (class_id,)]
        laps = [queries[i : i + len(pool)] for i in range(0, len(queries), len(pool))]
        assert all(sorted(lap) == sorted(pool) for lap in laps[:-1])
        assert len(set(laps[-1])) == len(laps[-1])


def test_every_image_of_a_pool_serves_as_support() -> None:
    specs = sampler(disjoint_pools(1, 6)).take(200)
    counts = Counter(spec.supports[0][0] for spec in specs)
    assert len(counts) == 6
    assert min(counts.values()) > 200 / 6 / 2


def test_one_shot_is_a_prefix_of_five_shot() -> None:
    pools = disjoint_pools()
    for ways in (1, 2, 3):
        ones = sampler(pools, ways=ways, shots=1).take(60)
        fives = sampler(pools, ways=ways, shots=5).take(60)
        assert [s.query for s in ones] == [s.query for s in fives]
        assert [s.classes for s in ones] == [s.classes for s in fives]
        assert [s.supports for s in ones] == [tuple(way[:1] for way in s.supports) for s in fives]


def test_another_seed_or_fold_gives_other_episodes() -> None:
    pools = disjoint_pools(5, 100)

    def drawn(**changes: Any) -> list[tuple[str, tuple[tuple[str, ...], ...]]]:
        return [(s.query, s.supports) for s in sampler(pools, **changes).take(100)]

    variants = [drawn(), drawn(seed=1), drawn(seed=2), drawn(fold=1)]
    for i, a in enumerate(variants):
        for b in variants[:i]:
            assert sum(x == y for x, y in zip(a, b, strict=True)) < 5


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 2**30))
def test_n_way_episodes_have_distinct_classes_and_images(ways: int, shots: int, seed: int) -> None:
    shared_names = [f"shared{i}" for i in range(20)]
    pools = {c: [*shared_names, *p] for c, p in disjoint_pools(5, 3).items()}
    for spec in sampler(pools, ways=ways, shots=shots, seed=seed).take(25):
        assert len(set(spec.classes)) == ways
        assert [len(way) for way in spec.supports] == [shots] * ways
        supports = [image for way in spec.supports for image in way]
        assert len({spec.query, *supports}) == 1 + ways * shots
        assert spec.images == (spec.query, *supports)
        for class_id, way in zip(spec.classes, spec.supports, strict=True):
            assert set(way) <= set(pools[class_id])
        assert any(spec.query in pools[class_id] for class_id in spec.classes)


def test_the_primary_class_of_an_n_way_episode_has_no_fixed_place() -> None:
    specs = sampler(disjoint_pools(5), ways=2).take(100)
    places = Counter(spec.classes.index(1 + i % 5) for i, spec in enumerate(specs))
    assert min(places[0], places[1]) > 25
    partners = Counter(frozenset(spec.classes) for spec in specs)
    assert len(partners) == 10  # all pairs of five classes occur


def test_too_few_images_names_class_count_and_cure() -> None:
    pools = {1: ["a", "b", "c"], 4: ["a", "b"]}
    with pytest.raises(EpisodeError) as error:
        sampler(pools, shots=2, names={4: "cat"})
    text = str(error.value)
    assert "class 4 (cat) has 2 qualifying images" in text
    assert "2-shot episodes need 3" in text
    assert "fewer --shots" in text
    assert "--rule short_classes=skip" in text
    assert "\n" not in text


def test_too_few_images_names_the_other_classes_too() -> None:
    pools = {1: ["a", "b", "c"], 4: ["a"], 6: ["b"], 7: ["c"]}
    with pytest.raises(EpisodeError) as error:
        sampler(pools, names={6: "cat"})
    text = str(error.value)
    assert text.startswith("class 4 has 1 qualifying images, 1-shot episodes need 2 (also ")
    assert "(also too few: class 6 (cat), class 7): use fewer --shots" in text
    with pytest.raises(EpisodeError, match="need 2: use fewer --shots"):
        sampler({1: ["a", "b"], 4: ["a"]})


def test_an_image_listed_twice_counts_once() -> None:
    with pytest.raises(EpisodeError, match="has 1 qualifying images"):
        sampler({1: ["a", "a", "a"]})
    assert sampler({1: ["b", "a", "a"]}).take(9) == sampler({1: ["a", "b"]}).take(9)


def test_short_classes_are_skipped_and_reported() -> None:
    pools = {1: ["a", "b"], 2: ["a"], 3: ["b", "c"], 9: []}
    drawn = sampler(pools, short_classes="skip")
    assert drawn.skipped == (2, 9)
    assert drawn.classes == (1, 3)
    assert {spec.classes for spec in drawn.take(20)} == {(1,), (3,)}


def test_skipping_every_class_is_an_error() -> None:
    with pytest.raises(EpisodeError, match=r"need 1 classes with at least 2 .* found 0: use fewer"):
        sampler({1: ["a"]}, short_classes="skip")


def test_more_ways_than_classes_is_an_error() -> None:
    with pytest.raises(EpisodeError, match=r"4-way 1-shot .* found 3: use fewer --ways"):
        sampler(ways=4)


@pytest.mark.parametrize(("name", "value"), [("shots", 0), ("ways", 0), ("shots", -1)])
def test_counts_below_one_are_an_error(name: str, value: int) -> None:
    with pytest.raises(EpisodeError, match=f"--{name} is {value}: it must be 1 or more"):
        sampler(**{name: value})


def test_pools_used_up_by_other_ways_are_an_error_not_an_endless_loop() -> None:
    same = ["a", "b", "c"]
    with pytest.raises(EpisodeError, match=r"all 3 images of class . .* fewer --ways or --shots"):
        sampler({1: same, 2: same}, ways=2, shots=2).take(1)


@pytest.mark.parametrize(
    ("setting", "sha256"),
    [
        (
            {"fold": 0, "seed": 0},
            "e8d3cebaa5858a631e6c90458f5cd2d9f0ce58dff498c678e3ba4c59f4e60efe",
        ),
        (
            {"fold": 3, "seed": 42, "ways": 2, "shots": 2},
            "5d58866dc2903f6ab49c43e89fe7293a1c55690d68f16ec73b2aab052aa6d714",
        ),
        (
            {"fold": 1, "seed": 7, "ways": 1, "shots": 5},
            "99572f70c4e78c65c917e03707bbb48ab1df957456ed6cc90ce86b631fdcbe61",
        ),
    ],
)
def test_published_episodes_never_change(setting: dict[str, Any], sha256: str) -> None:
    # Scores are compared by these digests: a change here makes every published run another one.
    assert episodes_sha256(sampler(**setting).take(100)) == sha256


def test_a_line_has_the_keys_in_order_and_no_spaces() -> None:
    spec = EpisodeSpec(0, 0, (1,), "2007_000033", (("2010_001174",),))
    assert list(to_jsonl([spec])) == [
        '{"index":0,"fold":0,"classes":[1],"query":"2007_000033","supports":[["2010_001174"]]}\n'
    ]


def test_several_ways_and_shots_on_a_line() -> None:
    spec = EpisodeSpec(7, 3, (16, 20), "q", (("a", "b"), ("c", "d")))
    assert list(to_jsonl([spec])) == [
        '{"index":7,"fold":3,"classes":[16,20],"query":"q","supports":[["a","b"],["c","d"]]}\n'
    ]


def test_names_that_are_not_ascii_stay_readable_and_survive() -> None:
    spec = EpisodeSpec(0, 0, (1,), "été 日本", (('a"b\\c',),))
    (line,) = to_jsonl([spec])
    assert "été 日本" in line
    row = json.loads(line)
    assert (row["query"], row["supports"]) == ("été 日本", [['a"b\\c']])


def test_digest_is_over_the_bytes_of_the_file(tmp_path: Path) -> None:
    specs = sampler(shots=3).take(40)
    file = tmp_path / "episodes.jsonl"
    file.write_bytes("".join(to_jsonl(specs)).encode("utf-8"))
    assert episodes_sha256(specs) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(file.read_bytes().split(b"\n")) == 41
    assert episodes_sha256([]) == hashlib.sha256(b"").hexdigest()


def test_digest_depends_on_order() -> None:
    specs = sampler().take(5)
    assert episodes_sha256(specs) != episodes_sha256(specs[::-1])


@pytest.fixture
def tree_with_a_mixed_image(make_folder: Callable[..., Path]) -> Path:
    """Classes 1 and 2 are base in fold 1; image c1_0 shows one pixel of novel class 3 too."""
    root = make_folder(classes=4, per_class=4)
    labels = np.zeros((48, 64), np.uint8)
    labels[:, :32] = 1
    labels[10, 40] = 3
    Image.fromarray(labels).save(root / "masks" / "c1_0.png")
    return root


@pytest.mark.parametrize(("base_images", "kept"), [("drop", False), ("background", True)])
def test_training_episodes_hold_no_novel_class(
    tree_with_a_mixed_image: Path, base_images: str, kept: bool
) -> None:
    dataset = create_dataset("folder", tree_with_a_mixed_image)
    protocol = PROTOCOLS["standard"].replace_rules(
        {"min_pixels": 1, "base_images": base_images, "short_classes": "skip"}
    )
    specs = train_sampler(dataset, protocol, fold=1, shots=2).take(60)
    assert {spec.classes for spec in specs} == {(1,), (2,)}
    seen = {image for spec in specs for image in spec.images}
    for image in seen:
        novel = np.isin(dataset.load_labels(image), (3, 4)).any()
        assert not novel or kept
    assert ("c1_0" in seen) == kept


def test_a_kept_image_shows_its_novel_object_as_background(tree_with_a_mixed_image: Path) -> None:
    dataset = create_dataset("folder", tree_with_a_mixed_image)
    mask = dataset.load_mask("c1_0", 1)
    assert mask[10, 40] == 0
    assert mask.sum() == 48 * 32


def test_training_and_test_share_no_image(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=4, per_class=6)
    images = [f"c{c}_{i}" for c in range(1, 5) for i in range(6)]
    (root / "train.txt").write_text("\n".join(i for i in images if i[-1] in "012"))
    (root / "test.txt").write_text("\n".join(i for i in images if i[-1] in "345"))
    dataset = create_dataset("folder", root)
    protocol = PROTOCOLS["standard"].replace_rules({"min_pixels": 100, "episodes": 40})
    training = train_sampler(dataset, protocol, fold=0, shots=2).take(40)
    testing = create_setting(dataset, protocol, fold=0, shots=2).specs
    assert {image[-1] for spec in training for image in spec.images} == set("012")
    assert {image[-1] for spec in testing for image in spec.images} == set("345")
    assert {c for spec in training for c in spec.classes} == {3, 4}
    assert {c for spec in testing for c in spec.classes} == {1, 2}


def test_consecutive_laps_of_a_class_have_different_orders() -> None:
    specs = sampler(disjoint_pools(1, 8)).take(32)
    laps = [[s.query for s in specs[i : i + 8]] for i in range(0, 32, 8)]
    assert all(a != b for a, b in pairwise(laps))


# Rules that can be changed on their own

POOLS = {1: ["a", "b", "c", "d"], 2: ["b", "d", "e"], 3: ["c", "f", "g", "h"]}


def drawn(episodes: int = 60, shots: int = 1, ways: int = 1, **rules: Any) -> list[EpisodeSpec]:
    sampler = EpisodeSampler(POOLS, fold=0, ways=ways, shots=shots, seed=5, **rules)
    return sampler.take(episodes)


def test_uniform_classes_come_by_chance() -> None:
    specs = drawn(3000, class_draw="uniform")
    counts = Counter(spec.classes[0] for spec in specs)
    assert all(900 < counts[c] < 1100 for c in POOLS)
    assert [s.classes for s in specs[:30]] != [s.classes for s in drawn(30)]
    queries = Counter(spec.query for spec in specs if spec.classes == (1,))
    assert set(queries) == set(POOLS[1])
    assert max(queries.values()) < 1.5 * min(queries.values())


def test_pairs_come_one_after_the_other() -> None:
    pairs = sorted((image, c) for c, pool in POOLS.items() for image in pool)
    found = [(spec.query, spec.classes[0]) for spec in drawn(25, class_draw="pairs")]
    assert found == [pairs[i % len(pairs)] for i in range(25)]


def test_images_come_one_after_the_other_and_the_class_is_drawn() -> None:
    specs = drawn(800, class_draw="image")
    assert [spec.query for spec in specs[:9]] == [*"abcdefgh", "a"]
    of_b = Counter(spec.classes[0] for spec in specs if spec.query == "b")
    assert set(of_b) == {1, 2}
    assert min(of_b.values()) > 30


def test_small_objects_may_be_drawn_where_the_image_qualifies() -> None:
    present = {"a": [1, 3], "e": [2], "z": [4]}  # z shows no class that has a pool
    specs = drawn(200, class_draw="image", present=present)
    assert {(spec.query, spec.classes[0]) for spec in specs} == {("a", 1), ("a", 3), ("e", 2)}
    assert all(image in POOLS[s.classes[0]] for s in specs for image in s.supports[0])


def test_supports_repeat_only_where_they_may() -> None:
    assert all(len(set(s.supports[0])) == 2 for s in drawn(shots=2))
    repeated = drawn(shots=3, support_draw="repeat")
    assert any(len(set(spec.supports[0])) < 3 for spec in repeated)
    assert not any(spec.query in spec.supports[0] for spec in repeated)
    assert {s.classes for s in repeated} == {(1,), (2,), (3,)}
    two = EpisodeSampler({1: ["a", "b"]}, fold=0, shots=5, support_draw="repeat")
    assert two[0].supports[0] in ((("a",) * 5), (("b",) * 5))


def test_the_query_is_a_support_only_where_it_may_be() -> None:
    possible = drawn(shots=2, support_query="possible")
    assert any(spec.query in spec.supports[0] for spec in possible)
    assert all(len(set(spec.supports[0])) == 2 for spec in possible)
    alone = EpisodeSampler({1: ["a"]}, fold=0, support_query="possible")
    assert alone[3] == EpisodeSpec(3, 0, (1,), "a", (("a",),))


@pytest.mark.parametrize(
    ("rule", "sha256"),
    [
        ("uniform", "7184dc4d075873df18273b7aba6311e2863b8d3ab18f2bd0eb569c4be96a71a2"),
        ("pairs", "717bd92d05d6c9e670cc3b6b1fd34c5d2c4c8199bf5d89670893c1d2dbff564f"),
        ("image", "ea38e5131024e1c44ffec24fe6a259f06a1966f4b7df98f9c2a33d0420cd0596"),
    ],
)
def test_episodes_of_other_draws_never_change(rule: str, sha256: str) -> None:
    assert episodes_sha256(drawn(100, ways=2, class_draw=rule)) == sha256


@pytest.mark.parametrize("rule", ["uniform", "pairs", "image"])
def test_every_draw_is_a_function_of_its_number(rule: str) -> None:
    sampler = EpisodeSampler(POOLS, fold=0, ways=2, class_draw=rule, seed=5)
    assert [sampler[i] for i in (40, 3, 17)] == [sampler.take(41)[i] for i in (40, 3, 17)]
    for spec in sampler.take(50):
        assert len(set(spec.classes)) == 2
        assert spec.query not in {image for way in spec.supports for image in way}


def test_too_few_images_under_other_rules() -> None:
    with pytest.raises(EpisodeError, match="has 1 qualifying images, 5-shot episodes need 2"):
        EpisodeSampler({1: ["a"]}, fold=0, shots=5, support_draw="repeat")
