"""Which items an episode needs, and the order in which episodes share them."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from fss_bench.episodes import EpisodeSpec
from fss_bench.items import Item, in_good_order, query_item, support_item, wants
from fss_bench.protocols import PROTOCOLS

STANDARD = PROTOCOLS["standard"]
TWO = EpisodeSpec(3, 0, (1, 2), "q", (("a", "b"), ("b", "q")))


def test_a_whole_image_is_wanted_once() -> None:
    found = wants(TWO, STANDARD, parts=False)
    assert [want.item for want in found] == [Item("q"), Item("a"), Item("b")]
    assert all((want.way, want.shot) == (-1, -1) for want in found)


def test_parts_are_the_query_and_every_support() -> None:
    found = wants(TWO, STANDARD, parts=True)
    assert [(w.item.image, w.item.role) for w in found] == [
        ("q", "query"),
        ("a", "support"),
        ("b", "support"),
        ("b", "support"),
        ("q", "support"),
    ]
    assert found[0].item == query_item(TWO)
    for want in found[1:]:
        assert want.item == support_item(TWO, want.way, want.shot, STANDARD)
        assert TWO.supports[want.way][want.shot] == want.item.image
        assert (want.spec, want.protocol) == (TWO, STANDARD)
    assert len({want.item for want in found}) == 5  # b with the masks of two classes is two


def test_a_support_that_repeats_is_wanted_once() -> None:
    again = EpisodeSpec(0, 0, (1,), "q", (("a", "b", "a"),))
    found = wants(again, STANDARD, parts=True)
    assert [(w.item.image, w.shot) for w in found] == [("q", -1), ("a", 0), ("b", 1)]
    points = STANDARD.replace_rules({"annotation": "points"})  # drawn anew for every shot
    assert [w.shot for w in wants(again, points, parts=True)] == [-1, 0, 1, 2]


classes = st.sampled_from([(1,), (2,), (3,), (1, 2), (2, 1)])
listed = st.lists(
    st.tuples(classes, st.sampled_from("abcde"), st.sampled_from("uvw")), max_size=30
).map(lambda rows: [EpisodeSpec(i, 0, c, q, ((s,),)) for i, (c, q, s) in enumerate(rows)])


@given(listed)
def test_a_good_order_is_a_permutation(specs: list[EpisodeSpec]) -> None:
    before = list(specs)
    found = in_good_order(specs)
    assert specs == before
    assert sorted(found, key=lambda s: s.index) == specs


@given(listed)
def test_a_class_comes_up_in_one_piece_and_in_it_a_query(specs: list[EpisodeSpec]) -> None:
    runs = [key for key, _ in groupby(in_good_order(specs), key=lambda s: s.classes)]
    assert runs == list(dict.fromkeys(s.classes for s in specs))  # the first comes first
    for _, group in groupby(in_good_order(specs), key=lambda s: s.classes):
        queries = [(query, list(same)) for query, same in groupby(group, key=lambda s: s.query)]
        assert len({query for query, _ in queries}) == len(queries)
        for _, same in queries:
            assert [s.index for s in same] == sorted(s.index for s in same)


def test_a_good_order_by_hand() -> None:
    rows = [((1,), "a"), ((2,), "c"), ((1,), "b"), ((2,), "a"), ((1,), "a"), ((2,), "c")]
    specs = [EpisodeSpec(i, 0, c, q, (("s",),)) for i, (c, q) in enumerate(rows)]
    assert [s.index for s in in_good_order(specs)] == [0, 4, 2, 3, 1, 5]
    assert in_good_order([]) == []
