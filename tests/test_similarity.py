import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench import similarity
from fss_bench.similarity import (
    chained_masks,
    gram_distances,
    inside,
    masked_means,
    prior_masks,
    similarity_map,
)


def bilinear(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=True)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def disc(size: int, radius: float, x: float = 0.4, y: float = 0.55) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((rows - y * size) ** 2 + (columns - x * size) ** 2 < (radius * size) ** 2).float()


def naive_map(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """The formula cell by cell: query [C, h, w], support [C, h, w], mask [h, w]."""
    threshold = mask[mask > 0].mean()
    pairs = [
        (support[:, y, x] * mask[y, x])
        for y in range(mask.shape[0])
        for x in range(mask.shape[1])
        if mask[y, x] >= threshold
    ]
    out = torch.zeros(query.shape[1:])
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            cell = query[:, y, x]
            cosines = [
                (cell / (cell.norm() + 1e-5)) @ (other / (other.norm() + 1e-5)) for other in pairs
            ]
            out[y, x] = torch.stack(cosines).clamp(min=0).mean()
    return out


def naive_prior(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """All cells with all cells, masked ones included: query, support [C, h, w], mask [h, w]."""
    cells, others = query.flatten(1), (support * mask).flatten(1)
    cosines = others.T @ cells / (others.norm(dim=0)[:, None] * cells.norm(dim=0) + 1e-7)
    best = cosines.amax(dim=0)
    return ((best - best.min()) / (best.max() - best.min() + 1e-7)).view(query.shape[1:])


@pytest.mark.parametrize("chunk", [1, 200, 1 << 22])
def test_similarity_maps_equal_the_formula_cell_by_cell(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    query, support = features(1, 6, 7, 5, seed=1), features(2, 6, 7, 5, seed=2)
    masks = torch.stack([bilinear(disc(40, r)[None, None], 35)[0] for r in (0.2, 0.35)])
    masks = F.interpolate(masks, (7, 5), mode="bilinear", align_corners=True)
    found = similarity_map(query, support, masks)
    for k in range(2):
        wanted = naive_map(query[0], support[k], masks[k, 0])
        torch.testing.assert_close(found[k, 0], wanted, atol=2e-6, rtol=0)


def test_similarity_of_opposite_cells_counts_as_zero_before_the_mean() -> None:
    support = torch.tensor([[1.0, -1.0]]).view(1, 1, 1, 2)
    found = similarity_map(torch.ones(1, 1, 1, 1), support, torch.ones(1, 1, 1, 2))
    assert found.item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("chunk", [1, 300, 1 << 22])
@pytest.mark.parametrize("positive", [True, False])
def test_priors_of_the_masked_part_equal_those_of_all_cells(
    monkeypatch: pytest.MonkeyPatch, chunk: int, positive: bool
) -> None:
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    query, support = features(1, 4, 8, 8, seed=3), features(3, 4, 8, 8, seed=4)
    if positive:
        query, support = query.relu(), support.relu()
    masks = torch.stack([disc(8, 0.2), disc(8, 0.4), torch.ones(8, 8)])[:, None]
    found = prior_masks(query, support, masks)
    for k in range(3):
        wanted = naive_prior(query[0], support[k], masks[k, 0])
        torch.testing.assert_close(found[k, 0], wanted, atol=1e-6, rtol=0)


def test_masks_are_resized_one_from_the_other() -> None:
    mask = disc(121, 0.23)[None, None]
    sizes = [(31, 31), (16, 16), (16, 16), (8, 8)]
    found = chained_masks(mask, sizes)
    first = bilinear(bilinear(mask, 62), 31)
    second = bilinear(first, 16)
    wanted = [first, second, second, bilinear(second, 8)]
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0)
    at_once = bilinear(mask, 16)
    assert len(inside(found[1].flatten())) != len(inside(at_once.flatten()))


def test_positions_inside_are_those_above_the_mean_of_the_positive() -> None:
    # the mean of all five would be 0.32 and keep 0.4
    assert inside(torch.tensor([0.0, 0.2, 0.4, 1.0, 0.0])).tolist() == [3]
    assert inside(torch.zeros(5)).tolist() == []


def test_a_constant_mask_keeps_all_positions_whatever_its_mean_rounds_to() -> None:
    for count in (3, 7, 1000, 3600):
        for value in (0.1, 1 / 3, 1 - 2**-24, 1.0):
            assert len(inside(torch.full((count,), value))) == count


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_give_finite_maps(value: float) -> None:
    query, support = features(1, 4, 5, 5).relu(), features(2, 4, 5, 5, seed=1).relu()
    masks = torch.full((2, 1, 5, 5), value)
    maps = similarity_map(query, support, masks)
    priors = prior_masks(query, support, masks)
    means = masked_means(support, masks)
    for found in (maps, priors, means):
        assert found.isfinite().all()
        assert bool(found.any()) == bool(value)


def test_gram_distances_equal_the_formula_channel_by_channel() -> None:
    query, support = features(1, 3, 4, 4), features(2, 3, 4, 4, seed=1)

    def gram(maps: Tensor) -> Tensor:
        rows = maps.flatten(1)
        return torch.stack(
            [torch.stack([a @ b / (a.norm() * b.norm() + 1e-7) for b in rows]) for a in rows]
        )

    found = gram_distances(query, support)
    for k in range(2):
        wanted = (gram(query[0]) - gram(support[k])).pow(2).sum().sqrt() / 3
        assert found[k].item() == pytest.approx(wanted.item(), abs=1e-6)


def test_masked_means_pad_the_area() -> None:
    maps, mask = torch.full((1, 1, 2, 2), 3.0), torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    assert masked_means(maps, mask).item() == pytest.approx(4.5 / 1.5005, abs=1e-6)


def test_autocast_changes_nothing() -> None:
    query, support = features(1, 6, 7, 7), features(2, 6, 7, 7, seed=1)
    masks = disc(7, 0.3).expand(2, 1, 7, 7)
    for function, given in (
        (similarity_map, (query, support, masks)),
        (prior_masks, (query, support, masks)),
        (gram_distances, (query, support)),
        (masked_means, (support, masks)),
    ):
        plain = function(*given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = function(*given)
        torch.testing.assert_close(under, plain, atol=0, rtol=0)
