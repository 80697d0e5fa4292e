"""The resize rules against explicit index formulas and plain NumPy, there and back."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fss_bench.annotations import annotate
from fss_bench.dataset import create_dataset
from fss_bench.geometry import (
    fit_logits,
    place_image,
    place_mask,
    place_target,
    placed_shape,
    resize_mask,
    square_side,
)
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol

RESIZES = ["warp", "pad", "native"]
NEAREST = ["nearest", "nearest-pil", "nearest-opencv"]


def protocol(**rules: Any) -> EvaluationProtocol:
    return PROTOCOLS["standard"].replace_rules(rules)


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.RandomState(height * width).randint(1, 256, (height, width, 3), dtype=np.uint8)


def labels(height: int, width: int) -> NDArray[np.uint8]:
    values = np.random.RandomState(height + width).choice([0, 1, 255], (height, width))
    return np.asarray(values, dtype=np.uint8)


# shapes


@pytest.mark.parametrize("shape", [(1, 1), (375, 500), (64, 64)])
def test_placed_shapes_of_warp_and_native(shape: tuple[int, int]) -> None:
    assert placed_shape(shape, 64, "warp") == (64, 64)
    assert placed_shape(shape, 64, "native") == shape


@pytest.mark.parametrize(
    ("shape", "side", "placed"),
    [
        ((375, 500), 473, (352, 472)),  # int(375 * 473 / 500) = 354
        ((500, 375), 473, (472, 352)),
        ((500, 500), 473, (472, 472)),
        ((480, 640), 641, (480, 640)),
        ((427, 640), 641, (424, 640)),  # 427.67
        ((473, 473), 473, (472, 472)),
        ((100, 473), 473, (96, 472)),
        ((50, 100), 48, (24, 48)),
        ((6, 500), 473, (8, 472)),  # int(5.7) = 5, and never nothing
        ((1, 1000), 64, (8, 64)),
        ((1000, 1), 64, (64, 8)),
    ],
)
def test_padded_images_have_sides_that_are_multiples_of_8(
    shape: tuple[int, int], side: int, placed: tuple[int, int]
) -> None:
    assert placed_shape(shape, side, "pad") == placed


def published_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """The published rounding, written out: ratio first, then int, then down to eights."""
    if height >= width:
        ratio = side * 1.0 / height
        new_height, new_width = side, int(width * ratio)
    else:
        ratio = side * 1.0 / width
        new_height, new_width = int(height * ratio), side
    return max(int(new_height / 8) * 8, 8), max(int(new_width / 8) * 8, 8)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(8, 700))
@example(117, 117, 120)
def test_padded_shapes_are_the_published_ones(height: int, width: int, side: int) -> None:
    placed = placed_shape((height, width), side, "pad")
    assert placed == published_shape(height, width, side)
    assert max(placed) <= side


def test_the_ratio_is_rounded_before_it_is_used() -> None:
    # 296 * 473 / 407 is 344, a multiple of 8; 473 / 407 in floating point is a little less
    assert placed_shape((407, 296), 473, "pad") == (472, 336)


# images


@pytest.mark.parametrize("image_filter", ["pil-bilinear", "opencv-bilinear"])
def test_a_padded_image_is_top_left_on_black(image_filter: str) -> None:
    square = place_image(
        photograph(30, 50), 43, protocol(image_resize="pad", image_filter=image_filter)
    )
    assert square.shape == (3, 43, 43)
    inside = square[:, :24, :40]  # 43 -> 40, int(30 * 43 / 50) = 25 -> 24
    assert inside.min() > 0
    outside = square.clone()
    outside[:, :24, :40] = 0
    assert not outside.any()


@pytest.mark.parametrize(
    ("resize", "shape"), [("warp", (43, 43)), ("pad", (24, 40))], ids=["warp", "pad"]
)
def test_filters_are_those_of_their_libraries(resize: str, shape: tuple[int, int]) -> None:
    pixels, (height, width) = photograph(30, 50), shape
    wanted: dict[str, NDArray[Any]] = {
        "opencv-bilinear": cv2.resize(
            pixels.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        ),
        "pil-bilinear": np.array(
            Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        ),
    }
    for image_filter, expected in wanted.items():
        rules = protocol(image_resize=resize, image_filter=image_filter)
        square = place_image(pixels, 43, rules)
        assert square.numpy().dtype == expected.dtype
        assert np.array_equal(square[:, :height, :width].permute(1, 2, 0).numpy(), expected)
        assert square.is_contiguous()


def test_opencv_rounds_nothing_and_does_not_average() -> None:
    # columns of 0 and 90: to a third of the width Pillow sees all three columns, OpenCV the middle
    row = np.array([0, 90, 0, 0, 90, 0, 90, 0, 90], np.uint8)
    pixels = np.broadcast_to(row[None, :, None], (3, 9, 3)).copy()
    found = {
        name: place_image(pixels, 3, protocol(image_filter=f"{name}-bilinear"))[0, 1].tolist()
        for name in ("pil", "opencv")
    }
    assert found["opencv"] == [90.0, 90.0, 0.0]
    assert all(0 < value < 90 for value in found["pil"])
    fractions = place_image(photograph(30, 50), 43, protocol(image_filter="opencv-bilinear"))
    assert fractions.dtype == torch.float32
    assert (fractions != fractions.round()).any()
    assert place_image(photograph(30, 50), 43, protocol()).dtype == torch.uint8


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(RESIZES),
    st.sampled_from(["pil-bilinear", "opencv-bilinear"]),
)
@settings(max_examples=40)
def test_a_flat_image_stays_flat_and_nothing_leaves_the_square(
    height: int, width: int, resize: str, image_filter: str
) -> None:
    side = 24
    pixels = np.full((height, width, 3), 200, np.uint8)
    rules = protocol(image_resize=resize, image_filter=image_filter)
    square = place_image(pixels, side, rules)
    rows, columns = placed_shape((height, width), side, resize)
    assert square.shape == (3, side, side)
    assert (square[:, :rows, :columns] - 200.0).abs().max() < 1e-3
    assert float(square.sum()) == pytest.approx(3 * rows * columns * 200, rel=1e-6)


@pytest.mark.parametrize("shape", [(20, 32), (32, 32)], ids=["smaller", "as large"])
@pytest.mark.parametrize("image_filter", ["pil-bilinear", "opencv-bilinear"])
def test_a_native_image_is_copied_pixel_by_pixel(shape: tuple[int, int], image_filter: str) -> None:
    pixels = photograph(*shape)
    before = pixels.copy()
    square = place_image(pixels, 32, protocol(image_resize="native", image_filter=image_filter))
    assert square.dtype == torch.uint8
    assert np.array_equal(square[:, : shape[0], : shape[1]].permute(1, 2, 0).numpy(), before)
    assert not square[:, shape[0] :].any()
    square.fill_(7)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("resize", RESIZES)
def test_an_image_of_the_squares_size_is_never_the_datasets_array(resize: str) -> None:
    pixels = photograph(32, 32)
    before = pixels.copy()
    pixels.flags.writeable = False  # as an array over Pillow's memory is
    square = place_image(pixels, 32, protocol(image_resize=resize))
    assert np.array_equal(square.permute(1, 2, 0).numpy(), before)
    square.fill_(7)
    assert np.array_equal(pixels, before)


# masks


def float32_index(n_in: int, n_out: int) -> list[int]:
    scale = np.float32(n_in) / np.float32(n_out)
    return [min(int(np.float32(i) * scale), n_in - 1) for i in range(n_out)]


def double_index(n_in: int, n_out: int) -> list[int]:
    # OpenCV divides twice: by out / in, not times in / out
    step = 1 / (n_out / n_in)
    return [min(int(i * step), n_in - 1) for i in range(n_out)]


def centre_index(n_in: int, n_out: int) -> list[int]:
    # Pillow adds the step up, from the middle of the first pixel
    step = n_in / n_out
    place, found = 0.5 * step, []
    for _ in range(n_out):
        found.append(int(place))
        place += step
    return found


INDEX: dict[str, Callable[[int, int], list[int]]] = {
    "nearest": float32_index,
    "nearest-pil": centre_index,
    "nearest-opencv": double_index,
}


@pytest.mark.parametrize("kind", NEAREST)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150))
def test_nearest_is_a_gather(
    kind: str, height: int, width: int, new_height: int, new_width: int
) -> None:
    mask = np.random.RandomState(height).randint(0, 256, (height, width)).astype(np.uint8)
    found = resize_mask(mask, (new_height, new_width), kind)
    rows, columns = INDEX[kind](height, new_height), INDEX[kind](width, new_width)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), mask[rows][:, columns])


def sources(kind: str, n_in: int, n_out: int) -> list[int]:
    """Which of up to 65,536 pixels of a row each new one comes from."""
    row = np.arange(n_in)[None]
    high, low = (
        resize_mask(part.astype(np.uint8), (1, n_out), kind)[0].numpy().astype(int)
        for part in (row // 256, row % 256)
    )
    return [int(v) for v in 256 * high + low]


@pytest.mark.parametrize("kind", NEAREST)
@pytest.mark.parametrize(("n_in", "n_out"), [(500, 417), (375, 352), (333, 472), (640, 384)])
def test_nearest_at_published_sizes(kind: str, n_in: int, n_out: int) -> None:
    found = sources(kind, n_in, n_out)
    assert found == INDEX[kind](n_in, n_out)
    exact = [(2 * i + 1) * n_in // (2 * n_out) for i in range(n_out)]
    if kind != "nearest-pil":
        exact = [i * n_in // n_out for i in range(n_out)]
    assert found == exact


def test_the_three_nearest_rules_differ() -> None:
    # a third of a row of 9: its first pixels, or its middle ones
    assert sources("nearest", 9, 3) == sources("nearest-opencv", 9, 3) == [0, 3, 6]
    assert sources("nearest-pil", 9, 3) == [1, 4, 7]
    # where i * in / out is whole, float32 and double may fall to different sides of it, as on VOC
    assert sources("nearest", 500, 472)[118] == 124  # 118 * 500 / 472 is 125
    assert sources("nearest-opencv", 500, 472)[118] == 125
    pairs = [(n, m) for n in range(1, 60) for m in range(1, 60)]
    float32 = [sources("nearest", n, m) for n, m in pairs]
    double = [sources("nearest-opencv", n, m) for n, m in pairs]
    differing = [p for p, a, b in zip(pairs, float32, double, strict=True) if a != b]
    assert differing
    assert all(
        abs(a - b) <= 1 and (a == b or i * n % m == 0)
        for n, m in differing
        for i, (a, b) in enumerate(
            zip(sources("nearest", n, m), sources("nearest-opencv", n, m), strict=True)
        )
    )


def test_rules_of_nearest_on_a_mask_of_a_few_pixels() -> None:
    mask = np.array([[0, 1, 255], [1, 0, 0], [0, 0, 1]], np.uint8)
    found = {kind: resize_mask(mask, (1, 1), kind).tolist() for kind in NEAREST}
    assert found == {"nearest": [[0]], "nearest-pil": [[0]], "nearest-opencv": [[0]]}
    wide = {kind: resize_mask(mask[:1], (1, 2), kind).tolist() for kind in NEAREST}
    # columns floor(i * 1.5) = 0, 1; floor((i + 1/2) * 1.5) = 0, 2
    assert wide == {"nearest": [[0, 1]], "nearest-pil": [[0, 255]], "nearest-opencv": [[0, 1]]}


@pytest.mark.parametrize("kind", NEAREST)
@pytest.mark.parametrize(
    ("resize", "shape"),
    [("warp", (43, 43)), ("pad", (24, 40)), ("native", (30, 41))],
    ids=RESIZES,
)
def test_a_supports_mask_is_top_left_on_255(resize: str, shape: tuple[int, int], kind: str) -> None:
    mask = labels(30, 41) if resize == "native" else labels(30, 50)
    before = mask.copy()
    found = place_mask(mask, 43, protocol(image_resize=resize, mask_resize=kind))
    assert found.shape == (43, 43)
    assert found.dtype == torch.uint8
    height, width = shape
    rows, columns = INDEX[kind](mask.shape[0], height), INDEX[kind](mask.shape[1], width)
    assert np.array_equal(found[:height, :width].numpy(), mask[rows][:, columns])
    assert (found[height:] == 255).all()
    assert (found[:, width:] == 255).all()
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("annotation", ["points", "scribble"])
@pytest.mark.parametrize("resize", RESIZES)
def test_sparse_annotations_survive(annotation: str, resize: str) -> None:
    mask = np.zeros((200, 160), np.uint8)
    mask[61, 33] = 1
    sparse = annotate(mask, annotation, ("key",), 1)
    rules = protocol(annotation=annotation, annotation_points=1, image_resize=resize)
    side = 224 if resize == "native" else 16
    found = place_mask(sparse, side, rules)
    assert {0, 1, 255} == set(found.unique().tolist())
    where = [int(v) for v in (found == 1).nonzero()[0]]
    scale = {"warp": (16 / 200, 16 / 160), "pad": (16 / 200, 8 / 160), "native": (1, 1)}[resize]
    assert where == [int(61 * scale[0]), int(33 * scale[1])]
    as_mask = place_mask(sparse, side, protocol(image_resize=resize))
    assert (1 in as_mask) == (resize == "native")  # what a mask's own resize would leave


# targets


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("kind", NEAREST)
def test_the_truth_at_both_resolutions(resize: str, kind: str) -> None:
    truth = labels(30, 50)
    rules = {"image_resize": resize, "mask_resize": kind}
    original = place_target(truth, 64, protocol(**rules, iou_at="original"))
    assert np.array_equal(original.numpy(), truth)
    at_input = place_target(truth, 64, protocol(**rules, iou_at="input"))
    # what surrounds the image is left out, not ignored
    height, width = {"warp": (64, 64), "pad": (32, 64), "native": (30, 50)}[resize]
    assert at_input.shape == (height, width)
    rows, columns = INDEX[kind](30, height), INDEX[kind](50, width)
    assert np.array_equal(at_input.numpy(), truth[rows][:, columns])


# logits


def positions(n_in: int, n_out: int, corners: bool) -> NDArray[np.float64]:
    i = np.arange(n_out)
    if corners:
        return i * ((n_in - 1) / (n_out - 1)) if n_out > 1 else np.zeros(1)
    return np.asarray(np.clip((i + 0.5) * (n_in / n_out) - 0.5, 0, None))


def slow_bilinear(
    maps: NDArray[np.float64], shape: tuple[int, int], corners: bool
) -> NDArray[np.float64]:
    """Maps [P, h, w] to [P, *shape], a pixel at a time."""
    ys, xs = (positions(n, m, corners) for n, m in zip(maps.shape[1:], shape, strict=True))
    found = np.zeros((len(maps), *shape))
    for (i, y), (j, x) in [(p, q) for p in enumerate(ys) for q in enumerate(xs)]:
        top, left = int(y), int(x)
        bottom, right = min(top + 1, maps.shape[1] - 1), min(left + 1, maps.shape[2] - 1)
        upper = maps[:, top, left] * (1 - (x - left)) + maps[:, top, right] * (x - left)
        lower = maps[:, bottom, left] * (1 - (x - left)) + maps[:, bottom, right] * (x - left)
        found[:, i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return found


def random_logits(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(sum(shape)).randn(*shape))


CORNERS = pytest.mark.parametrize(
    ("logits_resize", "corners"), [("bilinear", False), ("bilinear-corners", True)]
)


@CORNERS
@pytest.mark.parametrize(
    ("resize", "iou_at", "shape", "square"),
    [
        ("warp", "original", (18, 30), (18, 30)),
        ("warp", "input", (24, 24), (24, 24)),
        ("pad", "original", (18, 30), (30, 30)),  # a square of the longer side, then cut
        ("pad", "original", (30, 18), (30, 30)),
        ("pad", "input", (8, 24), (24, 24)),
        ("native", "original", (18, 20), (24, 24)),
        ("native", "input", (18, 20), (24, 24)),
    ],
)
@pytest.mark.parametrize("size", [(6, 6), (24, 24), (5, 7)], ids=["coarse", "whole", "uneven"])
def test_logits_are_fitted_to_the_truth(
    resize: str,
    iou_at: str,
    shape: tuple[int, int],
    square: tuple[int, int],
    size: tuple[int, int],
    logits_resize: str,
    corners: bool,
) -> None:
    logits = random_logits(3, *size)
    before = logits.clone()
    rules = protocol(image_resize=resize, iou_at=iou_at, logits_resize=logits_resize)
    found = fit_logits(logits, shape, 24, rules)
    expected = slow_bilinear(logits.numpy(), square, corners)[:, : shape[0], : shape[1]]
    assert found.shape == (3, *shape)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert torch.equal(logits, before)


def test_corners_aligned_and_not_on_two_pixels() -> None:
    logits = torch.tensor([[[0.0, 4.0]]])
    found = [
        fit_logits(logits, (1, 4), 4, protocol(logits_resize=rule))[0, 0].tolist()
        for rule in ("bilinear", "bilinear-corners")
    ]
    assert found[0] == [0.0, 1.0, 3.0, 4.0]
    assert found[1] == pytest.approx([0.0, 4 / 3, 8 / 3, 4.0])


@pytest.mark.parametrize("resize", RESIZES)
def test_a_pixel_of_the_image_comes_back_to_its_place(resize: str) -> None:
    # an image of 50 x 100: its left half foreground, in the image and in its square
    shape, side = (50, 100), 128
    mask = np.zeros(shape, np.uint8)
    mask[:, :50] = 1
    for iou_at in ("original", "input"):
        rules = protocol(image_resize=resize, iou_at=iou_at)
        square = place_mask(mask, side, rules)
        target = place_target(mask, side, rules)
        logits = torch.stack([(square != 1).float(), (square == 1).float()])
        guess = fit_logits(logits, (target.shape[0], target.shape[1]), side, rules).argmax(dim=0)
        wrong = (guess != target).nonzero()
        assert all(abs(x - target.shape[1] // 2) <= 1 for _, x in wrong.tolist())


# sides


@pytest.mark.parametrize(
    ("shapes", "side"),
    [([(48, 64)], 64), ([(48, 64), (65, 10)], 96), ([(5, 5)], 32), ([(33, 20), (20, 31)], 64)],
)
def test_a_native_square_holds_every_image(
    shapes: Sequence[tuple[int, int]], side: int, tmp_path: Path
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for i, shape in enumerate(shapes):
        Image.fromarray(photograph(*shape)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(labels(*shape) % 2).save(tmp_path / "masks" / f"{i}.png")
    dataset = create_dataset("folder", tmp_path)
    found = square_side(protocol(image_resize="native"), dataset, 473)
    assert found == side
    assert found % 32 == 0
    assert all(max(shape) <= found for shape in shapes)
    for resize in ("warp", "pad"):
        assert square_side(protocol(image_resize=resize), dataset, 473) == 473
