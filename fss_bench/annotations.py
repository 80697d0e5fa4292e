"""Weak support annotations: what a hurried annotator would give instead of a mask.

Boxes and scribbles as in PANet (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391), points
as in guided networks (Rakelly et al., 2018, https://arxiv.org/abs/1806.07373). All are derived from
the mask at its own size and hold what a mask holds: 1 on the class, 0 off it, 255 unlabelled. Every
draw hashes the episode, so any worker or machine makes the same, and nothing depends on an order
that a library might change.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSpec, draw
from fss_bench.errors import UnknownNameError
from fss_bench.protocols import ANNOTATIONS, EvaluationProtocol

Mask = NDArray[np.uint8]
Region = NDArray[np.bool_]
Key = tuple[object, ...]

SPARSE = ("scribble", "points")
"""Annotations so thin that a mask's nearest resize would lose them: see `resize_labelled`."""
ANNOTATION_RULES = (
    "image_resize",
    "mask_resize",
    "support_ignore",
    "support_others",
    "annotation",
    "annotation_points",
)
"""Rules that a support's annotation depends on."""
CELLS = 48
"""Cells along the longer side of a region, in which its scribble is planned."""


def support_annotation(
    dataset: SegDataset, protocol: EvaluationProtocol, spec: EpisodeSpec, way: int, shot: int
) -> Mask:
    """A support's annotation under a protocol: [H, W] at its mask's size, 1, 0 or 255.

    Args:
        dataset: where the mask comes from.
        protocol: rules `support_ignore`, `support_others`, `annotation` and `annotation_points`.
        spec: the episode.
        way, shot: which of its supports, from 0.
    """
    class_id, image = spec.classes[way], spec.supports[way][shot]
    mask = dataset.load_mask(image, class_id)
    if protocol.support_ignore == "background":  # first: what is unlabelled later stays 255
        mask = np.where(mask == 255, np.uint8(0), mask)
    if protocol.support_others == "excluded":
        for other in spec.classes[:way] + spec.classes[way + 1 :]:
            covered = (dataset.load_mask(image, other) == 1) & (mask == 0)
            mask = np.where(covered, np.uint8(255), mask)
    key = ("annotation", spec.index, spec.fold, class_id, image, shot)
    return annotate(mask, protocol.annotation, key, protocol.annotation_points)


def annotation_key(spec: EpisodeSpec, way: int, shot: int, protocol: EvaluationProtocol) -> str:
    """Equal for supports of one image whose annotations are equal in their input squares.

    Args:
        spec, way, shot, protocol: see `support_annotation`.
    """
    named = [f"{name}={getattr(protocol, name)}" for name in ANNOTATION_RULES]
    others = spec.classes if protocol.support_others == "excluded" else spec.classes[way : way + 1]
    if protocol.annotation in SPARSE:  # drawn anew for every episode
        named += [f"episode={spec.index}", f"fold={spec.fold}", f"shot={shot}"]
    return " ".join([str(spec.classes[way]), "of", *map(str, sorted(others)), *named])


def annotate(mask: Mask, kind: str, key: Key = (), count: int = 5) -> Mask:
    """A mask as another kind of annotation.

    Args:
        mask: [H, W], 1 on the class, 0 off it, 255 ignore; not written to.
        kind: `mask` (as it is), `box`, `scribble` or `points`.
        key: what scribbles and points depend on beside the mask.
        count: points on the class, and as many off it.

    Raises:
        UnknownNameError: no such kind.
    """
    if kind == "mask":
        return mask
    if kind == "box":
        return box(mask)
    if kind == "scribble":
        return scribble(mask, key)
    if kind == "points":
        return points(mask, count, key)
    raise UnknownNameError("annotation", kind, ANNOTATIONS)


def box(mask: Mask) -> Mask:
    """The bounding box of the largest object: 1; outside of the boxes of all objects: 0.

    An object is a group of pixels of the class that touch, be it by a corner: masks do not tell
    instances apart. Of equal ones the first in reading order counts. What only smaller objects'
    boxes cover is 255, and so is ignore outside of the box.
    """
    objects, _ = ndimage.label(mask == 1, np.ones((3, 3)))
    boxes = ndimage.find_objects(objects)
    annotation = np.where(mask == 255, np.uint8(255), np.uint8(0))
    for place in boxes:
        annotation[place] = 255
    if boxes:
        annotation[boxes[_largest(objects) - 1]] = 1
    return annotation


def points(mask: Mask, count: int, key: Key) -> Mask:
    """Random pixels of the class: 1; as many off it: 0; the rest: 255.

    A region of fewer than `count` pixels gives all of them (guided networks leave it out).
    """
    annotation = np.full(mask.shape, 255, np.uint8)
    for label in (0, 1):
        pool = np.flatnonzero(mask == label)
        for i in range(min(count, len(pool))):
            chosen = draw(len(pool), *key, "point", label, i)
            annotation.flat[pool[chosen]] = label
            pool[chosen] = pool[-1]  # without replacement
            pool = pool[:-1]
    return annotation


def scribble(mask: Mask, key: Key) -> Mask:
    """One curve on the class: 1; one off it: 0; the rest: 255.

    Each runs in the largest connected part of its region, from a random place to the one farthest
    from there, keeps off the border where it can, and is about a hundredth of the image wide.
    """
    annotation = np.full(mask.shape, 255, np.uint8)
    for label in (0, 1):
        annotation[_curve(mask == label, (*key, "scribble", label))] = label
    return annotation


def resize_labelled(mask: Mask, shape: tuple[int, int]) -> Mask:
    """A mask [H, W] to another shape, so that no labelled region vanishes.

    Source row y falls into row floor(y * out / H). A cell takes the label of any source pixel that
    falls into it, 1 before 0 before 255. Where it enlarges, it takes the nearest source pixel.
    """
    rank = np.where(mask == 1, 2, mask == 0).astype(np.uint8)
    for axis, (length, out) in enumerate(zip(mask.shape, shape, strict=True)):
        if out < length:
            first = -(-np.arange(out) * length // out)  # rounded up
            rank = np.maximum.reduceat(rank, first, axis=axis)
        else:
            rank = rank.take(np.arange(out) * length // out, axis=axis)
    return np.array([255, 0, 1], np.uint8)[rank]


def _curve(region: Region, key: Key) -> Region:
    """A connected curve inside a region [H, W]; nothing if that is empty."""
    curve = np.zeros(region.shape, bool)
    parts, _ = ndimage.label(region)
    largest = _largest(parts)
    if not largest:
        return curve
    place = ndimage.find_objects(parts)[largest - 1]
    inside = parts[place] == largest
    cells, side = _cells(inside)
    path = _path(cells, key)
    centres = path * side + side // 2
    steps = np.diff(path, axis=0)[:, None] * np.arange(side)[:, None]  # [length - 1, side, 2]
    rows, columns = np.concatenate([(centres[:-1, None] + steps).reshape(-1, 2), centres[-1:]]).T
    thin = np.zeros(inside.shape, bool)
    thin[rows, columns] = True
    radius = max(region.shape) // 200
    if radius:  # the mask keeps it inside at every step, and so connected
        thin = ndimage.binary_dilation(thin, iterations=radius, mask=inside)
    curve[place] = thin
    return curve


def _cells(inside: Region) -> tuple[Region, int]:
    """Square cells [h, w] that lie wholly inside a region [H, W] and hang together; their side, px.

    Of the sides 1/48 of the region's, half of that and so on to 1 px, the first whose cells cover
    half of the region: few cells for a broad region, pixels for a thin one. Sides are odd, so that
    a diagonal from centre to centre leaves one cell where it enters the other.
    """
    side = max(inside.shape) // CELLS | 1
    while True:
        h, w = (length // side for length in inside.shape)
        blocks = inside[: h * side, : w * side].reshape(h, side, w, side).all(axis=(1, 3))
        parts, _ = ndimage.label(blocks)
        cells = (parts == _largest(parts)) & blocks
        if side == 1 or 2 * side**2 * cells.sum() >= inside.sum():
            return cells, side
        side = side // 2 | 1


def _path(cells: Region, key: Key) -> NDArray[np.int64]:
    """From a random cell to the one farthest from it: [length, 2] row and column, step by step.

    A step costs more the nearer it is to the border, up to nine times as much.
    """
    depth = ndimage.distance_transform_cdt(np.pad(cells, 1), "taxicab")[1:-1, 1:-1][cells]
    cost = 1 + 8 // depth  # whole numbers: sums are exact, and so are the ties below
    number = np.where(cells, np.cumsum(cells).reshape(cells.shape) - 1, -1)
    neighbours = (
        (number[:, :-1], number[:, 1:], 5),
        (number[:-1], number[1:], 5),
        (number[:-1, :-1], number[1:, 1:], 7),  # 7 / 5 is nearly the diagonal of a square
        (number[:-1, 1:], number[1:, :-1], 7),
    )
    steps = csr_matrix((len(cost), len(cost)), dtype=np.int64)
    for a, b, length in neighbours:
        source, target = a[(a >= 0) & (b >= 0)], b[(a >= 0) & (b >= 0)]
        price = length * (cost[source] + cost[target])
        steps += csr_matrix((price, (source, target)), shape=steps.shape)
    steps += steps.T
    start = draw(len(cost), *key)
    far = dijkstra(steps, indices=start)
    path = [int(far.argmax())]
    while path[-1] != start:  # not SciPy's own path: of equal ones, it may choose any
        here = path[-1]
        row = slice(steps.indptr[here], steps.indptr[here + 1])
        near, price = steps.indices[row], steps.data[row]
        path.append(int(near[far[near] + price == far[here]].min()))
    return np.argwhere(cells)[path]


def _largest(labels: NDArray[np.int32]) -> int:
    """The label that most pixels have, 0 if there is none; of equal ones the lowest."""
    sizes = np.bincount(labels.ravel())[1:]
    return int(sizes.argmax()) + 1 if len(sizes) else 0
