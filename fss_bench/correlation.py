"""Similarity of every query cell with every support cell, and 4D convolution over the pairs."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fss_bench.ops import resize_corners
from fss_bench.products import convolves, product, product_over_rows


class Pairs(NamedTuple):
    """Values of all pairs of cells, a row for each support cell whose values are not all 0.

    Attributes:
        rows: [m, C, h, w], of m support cells with each cell of the query.
        where: [h', w'] long, the row of each support cell, in order; -1 for one without.
    """

    rows: Tensor
    where: Tensor

    def plus(self, other: "Pairs") -> "Pairs":
        """The sum with pairs of equal sizes; both have all rows."""
        return Pairs(self.rows + other.rows, self.where)


def query_cells(maps: Tensor) -> Tensor:
    """Cells of maps [n, C, h, w] as unit vectors, [n, h, w, C], contiguous."""
    return _unit(maps.permute(0, 2, 3, 1))


def support_cells(maps: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors of the cells under a mask, and where these are.

    Args:
        maps: [n, C, h', w'].
        weights: [h', w'] in [0, 1], which the cells are multiplied with.

    Returns:
        [n, m, C], contiguous, of the m cells with any weight; and `where` of `Pairs`.
    """
    flat = weights.flatten()
    inside = flat.nonzero()[:, 0]
    where = torch.full_like(flat, -1, dtype=torch.long)
    where[inside] = torch.arange(len(inside), device=where.device)
    cells = maps.flatten(2).index_select(2, inside) * flat[inside]
    return _unit(cells.mT), where.reshape(weights.shape)


def correlation(query: Tensor, cells: Tensor, where: Tensor) -> Pairs:
    """Cosine similarity, negative ones set to 0, of all pairs of cells; a channel for each block.

    Args:
        query: [n, h, w, C], see `query_cells`.
        cells, where: [n, m, C] and [h', w'], see `support_cells`.
    """
    flat, size = query.flatten(1, 2), query.shape[1:3]
    if not convolves(cells, flat):
        found = (cells @ flat.mT).relu().transpose(0, 1)
        return Pairs(found.reshape(*found.shape[:2], *size), where)
    rows = flat.new_empty(cells.shape[1], len(cells), flat.shape[1])
    for block, (shown, asked) in enumerate(zip(cells, flat, strict=True)):
        torch.clamp(product_over_rows(asked, shown).mT, min=0, out=rows[:, block])
    return Pairs(rows.reshape(*rows.shape[:2], *size), where)


class CenterPivotConv4d(nn.Module):
    """4D convolution whose kernel is cut to two planes through its centre.

    For a query cell and a support cell, `conv1` sees the query cell's neighbours paired with that
    support cell, `conv2` the support cell's neighbours paired with that query cell; the two are
    added. The support side can be strided.

    Args:
        inputs, outputs: channels.
        kernel: odd side of both kernels; the padding keeps the query's size.
        stride: over the support; its side n becomes ceil(n / stride).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, pairs: Pairs) -> Pairs:
        """Pairs of C channels to those of C2, with a row for each of the strided support cells."""
        taps = self._taps(pairs.where)
        size = (taps.shape[0], taps.shape[1])
        over = self._over_some if convolves(pairs.rows, self.conv2.weight) else self._over_all
        return _every(over(pairs.rows, taps.flatten(0, 1)), size)

    def _taps(self, where: Tensor) -> Tensor:
        """Rows under the kernel at each strided support cell, [h'', w'', kernel^2]; -1 for none."""
        padded = F.pad(where, [self.kernel // 2] * 4, value=-1)
        windows = padded.unfold(0, self.kernel, self.stride).unfold(1, self.kernel, self.stride)
        return windows.flatten(2)

    def _over_all(self, rows: Tensor, taps: Tensor) -> Tensor:
        """Rows [p, C2, h, w] of all taps [p, kernel^2] at once, with a row of zeros for none."""
        padded = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
        over_query = self.conv1(padded[taps[:, taps.shape[1] // 2]])
        near = padded[taps].flatten(1, 2)
        return over_query + F.conv2d(near, self._taps_first(), self.conv2.bias)  # type: ignore[no-any-return]

    def _over_some(self, rows: Tensor, taps: Tensor) -> Tensor:
        """As `_over_all`, of the rows that there are: for a CPU where nothing learns."""
        table, centre = taps.tolist(), taps.shape[1] // 2
        there = [p for p, near in enumerate(table) if near[centre] >= 0]
        pivots = _picked(rows, [table[p][centre] for p in there])
        out = F.conv2d(pivots, self.conv1.weight, padding=self.kernel // 2)
        if len(there) < len(table):
            every = out.new_zeros(len(table), *out.shape[1:])
            out = every.index_copy_(0, torch.tensor(there, dtype=torch.long), out)
        weight = self._taps_first().reshape(out.shape[1], -1, rows.shape[1])
        for sums, near in zip(out.flatten(2), table, strict=True):
            if seen := [tap for tap, row in enumerate(near) if row >= 0]:
                values = _picked(rows, [near[tap] for tap in seen]).flatten(0, 1).flatten(1)
                sums += product(weight[:, seen].flatten(1), values)
        bias = cast("Tensor", self.conv1.bias) + cast("Tensor", self.conv2.bias)
        return out.add_(bias[:, None, None])

    def _taps_first(self) -> Tensor:
        """`conv2`'s weight for the rows of all taps in turn, [C2, kernel^2 C, 1, 1]."""
        return self.conv2.weight.flatten(2).mT.flatten(1)[..., None, None]


def _picked(rows: Tensor, numbers: Sequence[int]) -> Tensor:
    """Rows by number; not copied if they follow one another."""
    first = numbers[0] if numbers else 0
    if list(numbers) == list(range(first, first + len(numbers))):
        return rows[first : first + len(numbers)]
    return rows[list(numbers)]


class SqueezeBlock(nn.Sequential):
    """4D convolutions, each with group norm (4 groups, over all four axes) and ReLU.

    Args:
        inputs: channels of the first.
        widths, kernels, strides: of each, see `CenterPivotConv4d`.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], kernels: Sequence[int], strides: Sequence[int]
    ) -> None:
        layers: list[nn.Module] = []
        for width, kernel, stride in zip(widths, kernels, strides, strict=True):
            layers += [
                CenterPivotConv4d(inputs, width, kernel, stride),
                nn.GroupNorm(4, width),
                nn.ReLU(),
            ]
            inputs = width
        super().__init__(*layers)

    def forward(self, pairs: Pairs) -> Pairs:
        """Pairs to pairs of the last width, with a row for each support cell that is left."""
        layers = list(self)
        for convolution, norm in zip(layers[::3], layers[1::3], strict=True):
            rows, where = convolution(pairs)
            pairs = Pairs(normalised(rows, cast("nn.GroupNorm", norm)), where)
        return pairs


def normalised(rows: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group norm over the rows too, then ReLU, of rows [m, C, h, w]; `rows` may be overwritten."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    groups = rows.reshape(len(rows), norm.num_groups, -1)
    free = not torch.is_grad_enabled()
    mean = groups.mean(dim=2).mean(dim=0)[:, None]
    centred = groups.sub_(mean) if free else groups - mean
    squares = torch.linalg.vector_norm(centred, dim=2).square().mean(dim=0) / centred.shape[2]
    inverse = (squares + norm.eps).rsqrt()[:, None]
    scale = (norm.weight.reshape(norm.num_groups, -1) * inverse).flatten()[:, None, None]
    shift, values = norm.bias[:, None, None], centred.view_as(rows)
    return values.mul_(scale).add_(shift).relu_() if free else F.relu(values * scale + shift)


def resize_pairs(pairs: Pairs, like: Pairs) -> Pairs:
    """Pairs with all rows to the four sizes of another.

    Bilinear with align_corners=True over the query, and over the support where its size differs.
    """
    rows, size = pairs.rows, (like.where.shape[0], like.where.shape[1])
    if pairs.where.shape != like.where.shape:
        grid = rows.flatten(1).mT.reshape(1, -1, *pairs.where.shape)
        rows = resize_corners(grid, size)[0].flatten(1).mT.reshape(-1, *rows.shape[1:])
    return _every(resize_corners(rows, (like.rows.shape[2], like.rows.shape[3])), size)


def _every(rows: Tensor, size: tuple[int, int]) -> Pairs:
    """Pairs with a row for every cell of a support of this size."""
    return Pairs(rows, torch.arange(len(rows), device=rows.device).reshape(size))


def _unit(cells: Tensor) -> Tensor:
    """Unit vectors over the last axis, contiguous; 1e-5 is added to their lengths."""
    exact = cells.to(torch.promote_types(cells.dtype, torch.float32))  # squares overflow fp16
    exact = exact.contiguous()
    lengths: Tensor = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    return exact / (lengths + 1e-5)
