"""Answers of several supports and ways against loops over pixels written from the rules' text."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from fss_bench.shots import label_map, merge_shots, vote_logits

RULES = ["mean", "or", "vote"]
Logits = NDArray[np.float64]


def one_way(*shots: Sequence[float]) -> Tensor:
    """Logits [K, 2, 1, P] of shots whose foreground beats the background by so much at P pixels."""
    margins = torch.tensor(shots)[:, None, None]
    return torch.cat([torch.zeros_like(margins), margins], dim=1)


def said(*shots: Sequence[int], ways: int) -> Tensor:
    """Logits [K, 1 + N, 1, P] of shots that are sure of a way number at P pixels."""
    numbers = torch.tensor(shots)
    scores = torch.nn.functional.one_hot(numbers, 1 + ways).float()  # [K, P, 1 + N]
    return scores.permute(0, 2, 1)[:, :, None]


def merged(logits: Tensor, rule: str) -> list[int]:
    return [int(v) for v in label_map(merge_shots(logits, rule))[0]]


# labels


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(-2, 2).map(float),
    )
)
def test_labels_are_argmax_and_of_equal_channels_the_first(scores: NDArray[np.float32]) -> None:
    tensor = torch.from_numpy(scores)
    before = tensor.clone()
    labels = label_map(tensor)
    assert labels.dtype == torch.uint8
    assert np.array_equal(labels.numpy(), scores.argmax(axis=0))  # NumPy's is the first
    assert torch.equal(tensor, before)


def test_labels_of_four_pixels() -> None:
    scores = torch.tensor([[[1.0, 0.0, 2.0, 5.0]], [[1.0, 3.0, 2.0, 5.0]], [[0.0, 3.0, 2.0, 6.0]]])
    assert label_map(scores).tolist() == [[0, 1, 0, 2]]
    assert label_map(scores[:1]).tolist() == [[0, 0, 0, 0]]
    assert label_map(-torch.inf * torch.ones(2, 1, 1)).tolist() == [[0]]


def test_labels_do_not_depend_on_precision() -> None:
    scores = torch.randn(4, 9, 7, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(label_map(scores.to(dtype)), scores.to(dtype).argmax(dim=0).byte())


# hand-made pixels, one way


def test_one_way_of_two_shots() -> None:
    # both say yes; one is sure and one is not; one is less sure; both say no
    logits = one_way([3.0, 4.0, 1.0, -1.0], [1.0, -1.0, -2.0, -1.0])
    assert merged(logits, "mean") == [1, 1, 0, 0]
    assert merged(logits, "or") == [1, 1, 1, 0]
    assert merged(logits, "vote") == [1, 1, 1, 0]  # the most votes are 2: one is half


def test_one_vote_of_five_is_enough_where_no_pixel_got_more_than_two() -> None:
    yes, no = 1.0, -1.0
    two_at_most = one_way([yes, yes, no, no], [yes, no, no, no], *[[no] * 4] * 3)
    assert merged(two_at_most, "vote") == [1, 1, 0, 0]
    three = one_way([yes, yes, no, no], [yes, no, no, no], [yes, no, no, no], *[[no] * 4] * 2)
    assert merged(three, "vote") == [1, 0, 0, 0]
    five = one_way(*[[yes, yes, yes, no]] * 2, [yes, yes, no, no], *[[yes, no, no, no]] * 2)
    assert merged(five, "vote") == [1, 1, 0, 0]  # 5, 3 and 2 votes: half of 5 is 2.5
    for logits, union in ((two_at_most, [1, 1, 0, 0]), (five, [1, 1, 1, 0])):
        assert merged(logits, "or") == union


def test_a_vote_does_not_ask_how_sure_a_shot_is() -> None:
    logits = one_way([0.001, 100.0, 0.001], [0.001, -0.001, -100.0], [0.001, -0.001, -100.0])
    assert merged(logits, "vote") == [1, 0, 0]
    assert merged(logits, "mean") == [1, 1, 0]
    assert merged(logits, "or") == [1, 1, 1]


@pytest.mark.parametrize("rule", RULES)
def test_nothing_found_is_background(rule: str) -> None:
    for logits in (one_way([-1.0, -5.0], [-0.1, -2.0]), one_way([0.0, 0.0], [0.0, 0.0])):
        assert merged(logits, rule) == [0, 0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ways", [1, 2, 3])
def test_a_single_shot_is_its_own_answer(rule: str, ways: int) -> None:
    logits = torch.randn(1, 1 + ways, 8, 9, generator=torch.Generator().manual_seed(ways))
    found = label_map(merge_shots(logits, rule))
    assert torch.equal(found == 0, logits[0].argmax(dim=0) == 0)
    if rule != "vote":  # of several ways each with all its votes, the margin decides
        assert torch.equal(found, logits[0].argmax(dim=0).byte())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ways", [1, 3])
def test_the_order_of_shots_changes_nothing_and_logits_are_left_alone(rule: str, ways: int) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randint(-4, 5, (4, 1 + ways, 8, 9), generator=generator).float()
    before = logits.clone()
    found = label_map(merge_shots(logits, rule))
    assert torch.equal(found, label_map(merge_shots(logits.flip(0), rule)))
    assert torch.equal(logits, before)
    assert merge_shots(logits, rule).shape == (1 + ways, 8, 9)


# hand-made pixels, several ways


def test_two_ways_of_three_shots() -> None:
    logits = said([1, 1, 2, 0], [1, 2, 2, 0], [1, 2, 0, 0], ways=2)
    assert merged(logits, "mean") == [1, 2, 2, 0]
    # way 1: 3, 1, 0, 0 votes; way 2: 0, 2, 2, 0: at the second pixel 1/3 against 2/2
    assert merged(logits, "vote") == [1, 2, 2, 0]
    assert merged(logits, "or")[0] == 1
    assert merged(logits, "or")[2:] == [2, 0]
    assert merged(logits, "or")[1] in (1, 2)


def test_or_of_two_ways_takes_the_surest_shot() -> None:
    first = [[0.0, 0.0, 0.0], [1.0, 5.0, -1.0], [-1.0, 2.0, -2.0]]  # background, way 1, way 2
    second = [[0.0, 0.0, 0.0], [-9.0, 1.0, -3.0], [2.0, 4.0, -1.0]]
    logits = torch.tensor([first, second])[:, :, None]
    assert merged(logits, "or") == [2, 1, 0]


def test_each_way_is_divided_by_its_own_largest_count() -> None:
    # way 2 is found by one shot of four: that is all its image has; way 1 has 4, and 1 at the next
    logits = said([1, 1, 2, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], ways=2)
    assert merged(logits, "vote") == [1, 0, 2, 0]


def test_of_ways_with_equal_votes_the_surer_wins() -> None:
    strong, weak = torch.tensor([0.0, 9.0, -9.0]), torch.tensor([0.0, -1.0, 1.0])
    logits = torch.stack([strong, weak])[:, :, None, None]
    assert merged(logits, "vote") == [1]
    assert merged(logits[:, [0, 2, 1]], "vote") == [2]


# a slow implementation of the rules' text


def slow_mean(shots: Logits) -> NDArray[np.int64]:
    return np.asarray((sum(shots) / len(shots)).argmax(axis=0))


def slow_or(shots: Logits) -> NDArray[np.int64]:
    """Foreground where any shot says so; of several ways the one that beats background most."""
    _, channels, height, width = shots.shape
    found = np.zeros((height, width), np.int64)
    for y, x in np.ndindex(height, width):
        best = 0.0
        for way in range(1, channels):
            margin = max(shot[way, y, x] - shot[0, y, x] for shot in shots)
            if margin > best:
                best, found[y, x] = margin, way
    return found


def votes_of(shots: Logits, way: int) -> NDArray[np.int64]:
    """Shots for which a way beats all else, a pixel."""
    others = np.delete(shots, way, axis=1)
    return np.asarray((shots[:, way] > others.max(axis=1)).sum(axis=0))


def slow_vote_foreground(shots: Logits) -> list[NDArray[np.bool_]]:
    """For each way the pixels with half as many votes as the pixel that has most."""
    found = []
    for way in range(1, shots.shape[1]):
        votes = votes_of(shots, way)
        most = max(votes.max(), 1)
        found.append(2 * votes >= most)  # integers: V / m >= 1/2
    return found


def shots_of(ways: st.SearchStrategy[int], values: int = 3) -> st.SearchStrategy[Logits]:
    shape = st.tuples(st.integers(1, 6), ways.map(lambda n: n + 1), st.just(2), st.integers(1, 5))
    return shape.flatmap(
        lambda s: arrays(np.float64, s, elements=st.integers(-values, values).map(float))
    )


@given(shots_of(st.integers(1, 3)))
def test_mean_equals_a_slow_mean(shots: Logits) -> None:
    # whole numbers, so that sums are exact and ties are ties: then argmax of the sum
    found = label_map(merge_shots(torch.from_numpy(shots), "mean")).numpy()
    assert np.array_equal(found, slow_mean(shots))


@given(shots_of(st.integers(1, 3)))
def test_or_equals_a_loop_over_pixels(shots: Logits) -> None:
    found = label_map(merge_shots(torch.from_numpy(shots), "or")).numpy()
    assert np.array_equal(found, slow_or(shots))
    union = (shots.argmax(axis=1) > 0).any(axis=0)
    assert np.array_equal(found > 0, union)


@given(shots_of(st.just(1)))
def test_a_vote_equals_counting(shots: Logits) -> None:
    found = label_map(merge_shots(torch.from_numpy(shots), "vote")).numpy()
    (expected,) = slow_vote_foreground(shots)
    assert np.array_equal(found == 1, expected)
    assert np.array_equal(found, vote_logits(torch.from_numpy(shots))[0].argmax(dim=0).numpy())


@given(shots_of(st.integers(2, 3)))
def test_a_vote_of_several_ways(shots: Logits) -> None:
    found = label_map(merge_shots(torch.from_numpy(shots), "vote")).numpy()
    foreground = slow_vote_foreground(shots)
    assert np.array_equal(found > 0, np.any(foreground, axis=0))
    shares = []
    for way in range(1, shots.shape[1]):
        votes = votes_of(shots, way)
        shares.append(votes / max(votes.max(), 1))
    for y, x in np.argwhere(found > 0):
        way = found[y, x]
        assert foreground[way - 1][y, x]
        assert shares[way - 1][y, x] >= max(share[y, x] for share in shares) - 1e-12


@given(shots_of(st.integers(1, 3)), st.sampled_from(["or", "vote"]))
def test_no_rule_but_the_mean_finds_what_no_shot_found(shots: Logits, rule: str) -> None:
    found = label_map(merge_shots(torch.from_numpy(shots), rule)).numpy()
    union = (shots.argmax(axis=1) > 0).any(axis=0)
    assert not (found > 0)[~union].any()
