"""How training images and masks are changed: what comes out, and that it hangs on the key alone."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import fss_bench
from fss_bench.errors import FssBenchError
from fss_bench.geometry import place_image, place_mask
from fss_bench.protocols import PROTOCOLS
from fss_bench.training.augmentation import (
    MEAN_COLOUR,
    Augmentation,
    augment,
    augment_together,
    prepare,
)

STANDARD = PROTOCOLS["standard"]
NOTHING = Augmentation(flip=0.0)
EVERYTHING = Augmentation("crop", (0.9, 1.1), 10.0, 0.5, 0.5)
Pixels = NDArray[np.uint8]


def noise(height: int = 40, width: int = 30) -> tuple[Pixels, Pixels]:
    """An image and a mask of 0, 1 and 255 that no mirror leaves as it is; read-only."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.choice(np.array([0, 0, 1, 255], np.uint8), (height, width))
    image.flags.writeable = mask.flags.writeable = False
    return image, mask


def coordinates(height: int, width: int) -> Pixels:
    """An image that says of each pixel where it is: row, column, 0."""
    rows, columns = np.indices((height, width), dtype=np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2)


def plain(mask: Pixels) -> Pixels:
    """A picture of a mask: 200 on it, 50 off it, the mean colour at 255."""
    colours = np.full((256, 3), 50, np.uint8)
    colours[1], colours[255] = 200, MEAN_COLOUR
    return colours[mask]


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    prepare(EVERYTHING)  # not within a test's time


@pytest.mark.parametrize("name", ["standard", "hsnet", "pfenet", "panet", "oslsm"])
@pytest.mark.parametrize("shape", [(40, 30), (24, 48), (48, 48)])
def test_without_augmentation_a_pair_is_placed_by_the_protocol(
    name: str, shape: tuple[int, int]
) -> None:
    image, mask = noise(*shape)
    protocol = PROTOCOLS[name]
    square, target = augment(image, mask, 48, NOTHING, protocol, 7)
    assert torch.equal(square, place_image(image, 48, protocol))
    assert torch.equal(target, place_mask(mask.copy(), 48, protocol))
    assert square.dtype == (torch.float32 if name == "pfenet" else torch.uint8)
    assert target.dtype == torch.uint8


def test_a_flip_is_that_of_the_image_before_it_is_placed() -> None:
    image, mask = noise(40, 30)
    protocol = PROTOCOLS["pfenet"]
    square, target = augment(image, mask, 48, Augmentation(flip=1.0), protocol, 7)
    assert torch.equal(square, place_image(image[:, ::-1].copy(), 48, protocol))
    assert torch.equal(target, place_mask(mask[:, ::-1].copy(), 48, protocol))


def test_a_blur_is_five_pixels_wide_and_leaves_masks_alone() -> None:
    image, mask = np.zeros((11, 11, 3), np.uint8), np.zeros((11, 11), np.uint8)
    image[5, 5], mask[5, 5] = 255, 1
    square, target = augment(image, mask, 11, Augmentation(blur=1.0, flip=0.0), STANDARD, 0)
    near = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.1**2))
    expected = np.zeros((11, 11))
    expected[3:8, 3:8] = 255 * np.outer(near, near) / near.sum() ** 2
    assert np.abs(square.numpy() - expected).max() <= 1.5
    assert torch.equal(target, torch.from_numpy(mask))


def seen(changed: tuple[Tensor, Tensor]) -> bytes:
    return changed[0].numpy().tobytes() + changed[1].numpy().tobytes()


@pytest.mark.parametrize("augmentation", [EVERYTHING, Augmentation(rotate=30.0, blur=0.5)])
def test_the_key_alone_decides(augmentation: Augmentation) -> None:
    image, mask = noise()

    def made(key: int) -> bytes:
        return seen(augment(image, mask, 32, augmentation, STANDARD, key))

    keys = [3, 2**64 - 1, 5, 3, 11]
    alone = [made(key) for key in keys]
    assert alone[0] == alone[3]
    assert len(set(alone)) == 4
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert [made(key) for key in reversed(keys)] == alone[::-1]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made, keys * 4)) == alone * 4


def test_global_generators_are_left_alone() -> None:
    def states() -> list[Any]:
        return [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()]

    before = states()
    augment(*noise(), 32, EVERYTHING, STANDARD, 3)
    assert states() == before


def test_a_blur_and_a_flip_come_independently() -> None:
    """albumentations' own way to seed gives both the same draw, so that they come together."""
    image, mask = noise(24, 24)
    mirrored = image[:, ::-1]
    found = {(False, False): 0, (False, True): 0, (True, False): 0, (True, True): 0}
    for key in range(80):
        square, target = augment(image, mask, 24, Augmentation(blur=0.5), STANDARD, key)
        pixels = square.numpy().transpose(1, 2, 0)
        flipped = not np.array_equal(target.numpy(), mask)
        found[flipped, not np.array_equal(pixels, mirrored if flipped else image)] += 1
    assert min(found.values()) >= 10


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_a_flip_is_as_frequent_as_it_should_be(probability: float) -> None:
    image, mask = noise(8, 8)
    augmentation = Augmentation(flip=probability)
    flips = sum(
        not np.array_equal(augment(image, mask, 8, augmentation, STANDARD, k)[1].numpy(), mask)
        for k in range(200)
    )
    assert abs(flips / 200 - probability) <= 0.1 * (0 < probability < 1)


def bar() -> Pixels:
    """A mask of a bar, 100 x 40 px, in the middle of 150 x 150."""
    mask = np.zeros((150, 150), np.uint8)
    mask[55:95, 25:125] = 1
    return mask


def angle_and_size(mask: Pixels) -> tuple[float, float]:
    """Of the bar: how it lies, in degrees, and its size relative to `bar`."""
    place = np.argwhere(mask == 1)
    values, vectors = np.linalg.eigh(np.cov(place.T))
    row, column = vectors[:, values.argmax()]
    return float(np.degrees(np.arctan(row / column))), float(np.sqrt(len(place) / (100 * 40)))


def test_angles_and_scales_fill_their_range_independently() -> None:
    augmentation = Augmentation("crop", (0.8, 1.2), rotate=20.0, flip=0.0)
    image = plain(bar())
    measured = [
        angle_and_size(augment(image, bar(), 180, augmentation, STANDARD, key)[1].numpy())
        for key in range(60)
    ]
    angles, sizes = np.array(measured).T
    assert -20.5 < angles.min() < -15 < 15 < angles.max() < 20.5
    assert 0.78 < sizes.min() < 0.85 < 1.15 < sizes.max() < 1.22
    assert abs(np.corrcoef(angles, sizes)[0, 1]) < 0.3


def test_one_angle_is_that_angle() -> None:
    """No more than the largest, and masks stay what they are: new corners are 255."""
    mask = bar()
    square, target = augment(plain(mask), mask, 150, Augmentation(rotate=45.0), STANDARD, 1)
    angle, size = angle_and_size(target.numpy())
    assert 3 < abs(angle) <= 45.5
    assert size == pytest.approx(1, abs=0.02)
    assert set(target.unique().tolist()) == {0, 1, 255}
    assert target[0, 0] == 255
    assert tuple(square[:, 0, 0].tolist()) == MEAN_COLOUR == (124, 116, 104)


@pytest.mark.parametrize(
    "augmentation",
    [
        EVERYTHING,
        Augmentation("crop", (0.5, 2.0)),
        Augmentation("crop", (1.3, 1.3), rotate=90.0),
        Augmentation(rotate=180.0, flip=0.5),
    ],
)
def test_image_and_mask_change_alike(augmentation: Augmentation) -> None:
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (6, 8)).repeat(16, 0).repeat(16, 1)
    image = plain(mask)
    for key in range(6):
        square, target = augment(image, mask, 112, augmentation, STANDARD, key)
        assert set(target.unique().tolist()) <= {0, 1, 255}
        assert {0, 1} <= set(target.unique().tolist())
        away = np.abs(square.numpy().transpose(1, 2, 0) - plain(target.numpy()).astype(float))
        assert (away.max(2) < 60).mean() > 0.93  # all but the borders, which are interpolated


def test_masks_of_an_image_change_alike() -> None:
    image, mask = noise()
    other = np.where(mask == 1, np.uint8(7), np.uint8(3))
    for key in range(5):
        _, (first, second) = augment_together(image, [mask, other], 32, EVERYTHING, STANDARD, key)
        assert (first == 1).any()
        assert torch.equal(first == 1, second == 7)
        assert torch.equal(second == 255, (first == 255) & (second != 3))
        alone = augment(image, mask, 32, EVERYTHING, STANDARD, key)[1]
        assert torch.equal(alone, first)


def test_a_crop_is_a_part_of_the_image() -> None:
    image = coordinates(60, 80)
    corners = []
    for key in range(100):
        mask = image[..., 1] % 2 + 1
        square, target = augment(image, mask, 50, Augmentation("crop", flip=0.0), STANDARD, key)
        top, left = square[:2, 0, 0].tolist()
        expected = image[top : top + 50, left : left + 50]
        assert np.array_equal(square.numpy().transpose(1, 2, 0), expected)
        assert np.array_equal(target.numpy(), mask[top : top + 50, left : left + 50])
        corners.append((top, left))
    lowest, highest = np.array(corners).min(0), np.array(corners).max(0)
    assert (lowest == 0).all()
    assert (highest == (10, 30)).all()


def test_what_a_crop_does_not_fill_is_mean_colour_and_ignored() -> None:
    image, mask = noise(20, 30)
    square, target = augment(image, mask, 48, Augmentation("crop", flip=0.0), STANDARD, 5)
    inside = np.zeros((48, 48), bool)
    inside[14:34, 9:39] = True
    pixels = square.numpy().transpose(1, 2, 0)
    assert np.array_equal(pixels[inside].reshape(20, 30, 3), image)
    assert (pixels[~inside] == MEAN_COLOUR).all()
    assert np.array_equal(target.numpy()[inside].reshape(20, 30), mask)
    assert (target.numpy()[~inside] == 255).all()


@pytest.mark.parametrize("around", [0, 255])
def test_crops_are_tried_until_one_shows_the_class(around: int) -> None:
    """One in nine crops does; of ten, two in three. Ignored pixels are none of the class."""
    mask = np.full((200, 200), around, np.uint8)
    mask[98:102, 98:102] = 2
    image = coordinates(200, 200)
    crop = Augmentation("crop", flip=0.0)
    shown = sum(
        bool((augment(image, mask, 50, crop, STANDARD, key)[1] == 2).any()) for key in range(60)
    )
    assert 0.5 * 60 < shown < 0.9 * 60


def test_the_first_mask_decides_the_crop() -> None:
    object_there, everywhere = np.zeros((200, 200), np.uint8), np.ones((200, 200), np.uint8)
    object_there[98:102, 98:102] = 1
    crop = Augmentation("crop", flip=0.0)
    for key in range(10):
        masks = [object_there, everywhere]
        _, (first, _) = augment_together(coordinates(200, 200), masks, 50, crop, STANDARD, key)
        alone = augment(coordinates(200, 200), object_there, 50, crop, STANDARD, key)[1]
        assert torch.equal(first, alone)


def test_an_image_without_the_class_is_cropped_all_the_same() -> None:
    square, target = augment(
        coordinates(80, 80), np.zeros((80, 80), np.uint8), 50, EVERYTHING, STANDARD, 0
    )
    assert square.shape == (3, 50, 50)
    assert not (target == 1).any()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"place": "stretch"}, "place='stretch'"),
        ({"place": "crop", "scale": (1.2, 0.9)}, "smaller factor comes first"),
        ({"place": "crop", "scale": (0.0, 1.0)}, "from 0.01 to 100"),
        ({"place": "crop", "scale": (0.5,)}, "two factors"),
        ({"place": "crop", "scale": (0.5, float("inf"))}, "two factors"),
        ({"place": "crop", "scale": ("a", "b")}, "two factors"),
        ({"scale": (0.9, 1.1)}, "use place=crop"),
        ({"rotate": -1.0}, "rotate=-1.0"),
        ({"rotate": 181.0}, "0 to 180"),
        ({"rotate": float("nan")}, "rotate=nan"),
        ({"blur": 1.5}, "blur=1.5"),
        ({"flip": -0.1}, "flip=-0.1"),
        ({"flip": True}, "a probability"),
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(FssBenchError) as caught:
        Augmentation(**options)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_albumentations_does_not_ask_the_network_when_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    prepare(NOTHING)
    assert "NO_ALBUMENTATIONS_UPDATE" not in os.environ
    prepare(EVERYTHING)
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_one_module_alone_imports_albumentations() -> None:
    folder = Path(fss_bench.__file__).parent
    found = [f for f in folder.rglob("*.py") if "import albumentations" in f.read_text("utf-8")]
    assert [str(file.relative_to(folder)) for file in found] == ["training/augmentation.py"]
