import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench import similarity
from fss_bench.similarity import (
    cells_under,
    chained_masks,
    gram,
    gram_distance,
    grouped,
    highest_cosines,
    inside,
    masked_means,
    mean_cosines,
    unit_cells,
    unit_cells_inside,
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


def similarity_map(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Map [h, w] of one block: query, support [1, C, h, w], mask [h, w]."""
    return mean_cosines(unit_cells([query]), unit_cells_inside([support], mask))[0]


def prior(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Prior [h, w]: arguments as in `similarity_map`."""
    cells, rows = query[0].float().permute(1, 2, 0), cells_under(support, mask)
    lengths = cells.norm(dim=-1), rows.norm(dim=-1)
    return highest_cosines(grouped(cells), grouped(rows), *lengths)


@pytest.mark.parametrize("chunk", [1, 200, 1 << 22])
def test_similarity_maps_equal_the_formula_cell_by_cell(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    blocks = [features(3, 6, 7, 5, seed=seed) for seed in (1, 2)]
    query, support = ([b[i : i + 1] for b in blocks] for i in (0, 1))
    large = [bilinear(disc(40, r)[None, None], 35) for r in (0.2, 0.35)]
    masks = [F.interpolate(m, (7, 5), mode="bilinear", align_corners=True)[0, 0] for m in large]
    one = torch.zeros(7, 5)
    one[2, 3] = 0.3
    for mask in (*masks, one):
        wanted = torch.stack([naive_map(b[0], b[1], mask) for b in blocks])
        for learns in (False, True):  # by block, or all blocks at once
            given = [one.clone().requires_grad_(learns) for one in query]
            found = mean_cosines(unit_cells(given), unit_cells_inside(support, mask))
            torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)


def test_similarity_of_opposite_cells_counts_as_zero_before_the_mean() -> None:
    support = torch.tensor([[1.0, -1.0]]).view(1, 1, 1, 2)
    found = similarity_map(torch.ones(1, 1, 1, 1), support, torch.ones(1, 2))
    assert found.item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("chunk", [1, 300, 1 << 22])
@pytest.mark.parametrize("positive", [True, False])
def test_priors_of_the_masked_part_equal_those_of_all_cells(
    monkeypatch: pytest.MonkeyPatch, chunk: int, positive: bool
) -> None:
    monkeypatch.setattr(similarity, "CHUNK", chunk)
    query, support = features(1, 4, 8, 8, seed=3), features(1, 4, 8, 8, seed=4)
    if positive:
        query, support = query.relu(), support.relu()
    query[:, :, 0, 0] = 0
    one = torch.zeros(8, 8)
    one[3, 4] = 0.2
    for mask in (disc(8, 0.2), disc(8, 0.4), one, torch.ones(8, 8)):
        wanted = naive_prior(query[0], support[0], mask)
        torch.testing.assert_close(prior(query, support, mask), wanted, atol=1e-6, rtol=0)


def test_cells_that_a_mask_leaves_out_are_one_row_of_zeros() -> None:
    maps = features(1, 3, 2, 2)
    mask = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    wanted = torch.stack([0.5 * maps[0, :, 0, 0], maps[0, :, 1, 1], torch.zeros(3)])
    assert torch.equal(cells_under(maps, mask), wanted)
    assert torch.equal(cells_under(maps, torch.ones(2, 2)), maps[0].flatten(1).T)
    assert torch.equal(cells_under(maps, torch.zeros(2, 2)), torch.zeros(1, 3))


@pytest.mark.parametrize("group", [1, 2, 3, 512])
def test_priors_do_not_depend_on_groups_of_channels(
    monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(similarity, "GROUP", group)
    query, support, mask = features(1, 4, 6, 5), features(1, 4, 6, 5, seed=1), disc(6, 0.3)[:, :5]
    rows = grouped(query[0].permute(1, 2, 0))
    assert rows.shape == {1: (4, 6, 5, 1), 2: (2, 6, 5, 2), 3: (2, 6, 5, 2)}.get(
        group, (1, 6, 5, 4)
    )
    wanted = naive_prior(query[0], support[0], mask)
    torch.testing.assert_close(prior(query, support, mask), wanted, atol=1e-6, rtol=0)
    seven = torch.arange(7.0)
    padded = {1: 7, 2: 8, 3: 9, 512: 7}[group]
    assert grouped(seven[None])[:, 0].flatten().tolist() == [*range(7), *[0] * (padded - 7)]


@pytest.mark.parametrize("shape", [(1, 5, 4, 3), (1, 1, 3, 3), (1, 4, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inputs_are_not_written_to(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    maps = features(*shape).contiguous(memory_format=layout)
    copy = maps.clone()
    unit_cells([maps])
    unit_cells_inside([maps], torch.ones(shape[2:]))
    prior(maps, maps, torch.ones(shape[2:]))
    gram(maps)
    assert torch.equal(maps, copy)


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
    query, support = features(1, 4, 5, 5).relu(), features(1, 4, 5, 5, seed=1).relu()
    mask = torch.full((5, 5), value)
    means = masked_means(support, mask[None, None])
    for found in (similarity_map(query, support, mask), prior(query, support, mask), means):
        assert found.isfinite().all()
        assert bool(found.any()) == bool(value)


def test_gram_distances_equal_the_formula_channel_by_channel() -> None:
    query, support = features(1, 3, 4, 4), features(2, 3, 4, 4, seed=1)

    def naive_gram(maps: Tensor) -> Tensor:
        rows = maps.flatten(1)
        return torch.stack(
            [torch.stack([a @ b / (a.norm() * b.norm() + 1e-7) for b in rows]) for a in rows]
        )

    torch.testing.assert_close(gram(query), naive_gram(query[0]), atol=1e-6, rtol=0)
    for k in range(2):
        found = gram_distance(gram(query), gram(support[k : k + 1]))
        wanted = (naive_gram(query[0]) - naive_gram(support[k])).pow(2).sum().sqrt() / 3
        assert found.item() == pytest.approx(wanted.item(), abs=1e-6)


def test_masked_means_pad_the_area() -> None:
    maps, mask = torch.full((1, 1, 2, 2), 3.0), torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    assert masked_means(maps, mask).item() == pytest.approx(4.5 / 1.5005, abs=1e-6)


def test_autocast_changes_nothing() -> None:
    query, support = features(1, 6, 7, 7), features(1, 6, 7, 7, seed=1)
    mask = disc(7, 0.3)
    for function in (
        lambda: similarity_map(query, support, mask),
        lambda: prior(query, support, mask),
        lambda: gram_distance(gram(query), gram(support)),
        lambda: masked_means(support, mask[None, None]),
    ):
        plain = function()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = function()
        torch.testing.assert_close(under, plain, atol=0, rtol=0)
