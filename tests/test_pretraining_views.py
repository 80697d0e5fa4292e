"""Finding, checking and decoding images, and the random views of them."""

import hashlib
import pickle
import random
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from tiny_pretraining import make_images
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from fss_bench.errors import DatasetError
from fss_bench.pretraining import pictures as pictures_module
from fss_bench.pretraining.pictures import (
    check_pictures,
    find_pictures,
    note_skipped,
    read_picture,
    take_pictures,
)
from fss_bench.pretraining.recipes import RECIPES
from fss_bench.pretraining.views import (
    AdditiveJitter,
    Views,
    blur_range,
    collate,
    create_views,
    seeded,
)

KEYS = list(RECIPES)


def blank(path: Path, size: tuple[int, int] = (4, 3), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 10)).save(path, **options)
    return path


def names(*folders: Path) -> list[str]:
    return [picture.name for picture in find_pictures(folders)]


def test_listing_is_sorted_and_recursive(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a.webp", "c/d/e.bmp", "c/f.tif", "g.jpeg"):
        blank(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    assert names(tmp_path) == ["a.webp", "b/10.JPG", "b/2.png", "c/d/e.bmp", "c/f.tif", "g.jpeg"]


def test_hidden_files_masks_and_loops_are_left_out(tmp_path: Path) -> None:
    for name in ("x/1.jpg", "x/1.png", "x/2.png", ".hidden/3.jpg", "x/.4.jpg", "y/1.png"):
        blank(tmp_path / name)
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["x/1.jpg", "x/2.png", "y/1.png"]


def test_a_file_met_twice_counts_once(tmp_path: Path) -> None:
    blank(tmp_path / "a" / "1.jpg")
    blank(tmp_path / "a" / "b" / "2.jpg")
    assert names(tmp_path / "a" / "b", tmp_path / "a") == ["2.jpg", "1.jpg"]


def test_folder_without_images_is_refused(
    tmp_path: Path, refusal: Callable[[Callable[[], object]], str]
) -> None:
    assert str(tmp_path) in refusal(lambda: find_pictures([tmp_path]))
    assert "no such folder" in refusal(lambda: find_pictures([tmp_path / "none"]))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (16, 8), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 8, 8))  # left half
    for orientation, size, corner in (
        (1, (16, 8), (0, 0)),
        (3, (16, 8), (15, 7)),
        (6, (8, 16), (0, 0)),
        (8, (8, 16), (0, 15)),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        picture.save(path, exif=exif)
        upright = read_picture(path)
        assert upright.size == size
        assert upright.getpixel(corner) == (255, 255, 255)
        far = tuple(s - 1 - c for s, c in zip(size, corner, strict=True))
        assert upright.getpixel(far) == (0, 0, 0)


def broken_folder(folder: Path) -> Path:
    make_images(folder, 4)
    whole = (folder / "000.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpeg").write_text("not an image")
    return folder


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_broken_images_are_skipped_and_counted(tmp_path: Path, workers: int) -> None:
    found = find_pictures([broken_folder(tmp_path)])
    told: list[tuple[int, int]] = []
    checked, _ = check_pictures(found, workers, lambda done, total: told.append((done, total)))
    assert [p.name for p in checked.usable] == [f"00{i}.jpg" for i in range(4)]
    assert [name for name, _ in checked.skipped] == ["cut.jpg", "empty.png", "text.jpeg"]
    assert all("cannot be read" in reason for _, reason in checked.skipped)
    assert told[-1] == (7, 7)
    note = note_skipped(checked)
    assert note is not None
    assert note.startswith("3 of 7 images cannot be used")
    assert "cut.jpg" in note


def test_too_large_images_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blank(tmp_path / "large.png", (30, 20))
    blank(tmp_path / "small.png", (29, 20))
    monkeypatch.setattr(pictures_module, "LARGEST", 599)
    checked, _ = check_pictures(find_pictures([tmp_path]))
    assert [p.name for p in checked.usable] == ["small.png"]
    assert "30 x 20" in checked.skipped[0][1]


@pytest.mark.parametrize("kind", [MemoryError, NotImplementedError, struct.error, RuntimeError])
@pytest.mark.parametrize("place", ["_look", "read_image"])
def test_whatever_a_decoder_raises_the_image_is_skipped(
    kind: type[Exception], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path, 2)
    whole = getattr(pictures_module, place)

    def fail(path: Path) -> Any:
        if path.name == "001.jpg":
            raise kind("of a decoder")
        return whole(path)

    monkeypatch.setattr(pictures_module, place, fail)
    found = find_pictures([tmp_path])
    with pytest.raises(DatasetError, match=r"001\.jpg cannot be read .*of a decoder"):
        read_picture(found[1].path)
    checked, _ = check_pictures(found)
    assert [p.name for p in checked.usable] == ["000.jpg"]
    views = Views(found, RECIPES["npid", 1], seed=0)
    assert "001.jpg cannot be read" in str(collate([views[0, 0], views[0, 1]]).problem)


def test_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    make_images(tmp_path / "a", 3)
    make_images(tmp_path / "b", 3)
    digests = [check_pictures(find_pictures([tmp_path / x]))[0].sha256 for x in "ab"]
    assert digests[0] == digests[1]
    expected = hashlib.sha256()
    for i in range(3):
        content = (tmp_path / "a" / f"00{i}.jpg").read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        expected.update(f"00{i}.jpg\0{digest}\0".encode())
    assert digests[0] == expected.hexdigest()


def test_a_second_check_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, known = broken_folder(tmp_path / "images"), tmp_path / "known.json"
    first = take_pictures([images], known)
    with monkeypatch.context() as patch:
        patch.setattr(pictures_module, "read_picture", None)
        assert take_pictures([images], known) == first
    blank(images / "000.jpg", (9, 9))
    assert take_pictures([images], known).sha256 != first.sha256
    known.write_text("{}")
    assert len(take_pictures([images], known).usable) == 4


def draw(key: tuple[str, int], picture: Image.Image, count: int, **options: Any) -> list[Any]:
    """Views of a picture under `count` seeds: one tuple of tensors each."""
    make = create_views(RECIPES[key].replace_options({"image_size": 16, **options}))
    drawn = []
    for seed in range(count):
        with seeded(seed):
            drawn.append(make(picture))
    return drawn


Drawn = Callable[[tuple[str, int], tuple[int, int, int]], list[Any]]
EVEN, WHITE = (100, 100, 100), (255, 255, 255)
RED, DARK_RED = (200, 60, 60), (120, 20, 20)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """240 draws of the views of an even picture, by method and colour; made once for all tests."""

    @cache
    def once(key: tuple[str, int], colour: tuple[int, int, int]) -> list[Any]:
        return draw(key, Image.new("RGB", (16, 16), colour), 240)

    return once


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


@pytest.mark.parametrize("key", KEYS)
def test_views_are_squares_in_zero_to_one(key: tuple[str, int], tmp_path: Path) -> None:
    picture = read_picture(make_images(tmp_path, 1) / "000.jpg")
    for views in draw(key, picture, 20):
        assert len(views) == (1 if key[0] == "npid" else 2)
        for view in views:
            assert view.shape == (3, 16, 16)
            assert view.dtype == torch.float32
            assert view.min() >= 0
            assert view.max() <= 1
            assert (255 * view - (255 * view).round()).abs().max() < 1e-3  # not normalised


@pytest.mark.parametrize("key", KEYS)
def test_a_fifth_of_views_is_grey(key: tuple[str, int], drawn: Drawn) -> None:
    red = DARK_RED if key[0] == "moco" else RED  # which SimCLR's brightness would make black
    grey = [bool((v[0] == v[1]).all() and (v[1] == v[2]).all()) for (v, *_) in drawn(key, red)]
    assert 0.14 < share(grey) < 0.26


@pytest.mark.parametrize(
    ("key", "unchanged"),
    [(("moco", 1), 0.0), (("npid", 1), 0.0), (("moco", 2), 0.2), (("simclr", 1), 0.2)],
)
def test_share_of_views_without_jitter(
    key: tuple[str, int], unchanged: float, drawn: Drawn
) -> None:
    """Of what a view does, jitter of brightness alone changes an even grey."""
    kept = share([bool(((255 * v).round() == 100).all()) for (v, *_) in drawn(key, EVEN)])
    assert abs(kept - unchanged) < (0.04 if unchanged == 0 else 0.07)  # a jitter may be near 1


@pytest.mark.parametrize(("key", "most"), [(("moco", 1), 0.4), (("moco", 2), 0.4)])
def test_strength_of_brightness(key: tuple[str, int], most: float, drawn: Drawn) -> None:
    factors = torch.stack([view.mean() * 2.55 for (view, *_) in drawn(key, EVEN)])
    assert (factors - 1).abs().max() <= most + 0.01
    assert (factors - 1).max() > 0.9 * most
    assert (factors - 1).min() < -0.9 * most


def hue(view: Tensor) -> float:
    """Hue in turns, of an evenly coloured view; 0.5 is the opposite of red."""
    pixel = Image.fromarray((255 * view[:, 8, 8]).byte().numpy()[None, None])
    return ((pixel.convert("HSV").getpixel((0, 0))[0] / 256 + 0.5) % 1) - 0.5  # type: ignore[index]


@pytest.mark.parametrize(
    ("key", "most"),
    [(("moco", 1), 0.4), (("moco", 2), 0.1), (("moco", 3), 0.1)],
)
def test_strength_of_hue(key: tuple[str, int], most: float, drawn: Drawn) -> None:
    views = [v for (v, *_) in drawn(key, DARK_RED)]
    turns = [abs(hue(v)) for v in views if v[:, 8, 8].unique().numel() > 1]
    assert 0.85 * most < max(turns) < most + 0.03


def test_brightness_of_simclr_is_added(drawn: Drawn) -> None:
    """Up to 0.8 of the range: multiplied, a grey of 40 would not reach beyond 72."""
    dark = drawn(("simclr", 1), (40, 40, 40))
    values = torch.stack([255 * view.mean() for (view, *_) in dark])
    assert values.min() == 0
    assert 225 < values.max() <= 40 + 204


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_hue_of_simclrs_jitter(strength: float) -> None:
    jitter = AdditiveJitter(strength)
    jitter.most = 0.0
    red = Image.new("RGB", (16, 16), (120, 20, 20))
    turns = []
    for seed in range(100):
        with seeded(seed):
            turns.append(abs(hue(F.to_image(jitter(red)) / 255)))
    assert 0.85 * 0.2 * strength < max(turns) < 0.2 * strength + 0.02


def striped() -> Image.Image:
    columns = np.where(np.arange(16) % 2, 255, 0).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(columns[None, :, None], (16, 16, 3)).copy())


def test_blur_shrinks_with_the_view() -> None:
    assert blur_range(224) == (0.1, 2.0)
    assert blur_range(56) == (0.025, 0.5)


@pytest.mark.parametrize("key", [("moco", 2), ("moco", 3), ("simclr", 1)])
def test_views_are_blurred_as_their_size_asks(
    key: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sigmas that reach Pillow fill the range of the view's size and do not leave it."""
    sigmas: list[float] = []

    class Recorder(ImageFilter.GaussianBlur):
        def __init__(self, radius: float) -> None:
            sigmas.append(radius)
            super().__init__(radius)

    monkeypatch.setattr(ImageFilter, "GaussianBlur", Recorder)
    draw(key, striped(), 60, image_size=56)
    low, high = blur_range(56)
    assert low <= min(sigmas) < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < max(sigmas) <= high
    blurs = {("moco", 2): 2 * 0.5, ("moco", 3): 1 + 0.1, ("simclr", 1): 2 * 0.5}  # of two views
    assert abs(len(sigmas) / 60 - blurs[key]) < 0.3


def test_share_of_blurred_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripes of a pixel lose their contrast to blurs of more than half a pixel: 0.77 of them."""
    monkeypatch.setattr("fss_bench.pretraining.views.blur_range", lambda _: (0.1, 2.0))
    blurred = {}
    for key in (("moco", 1), ("moco", 2), ("moco", 3)):
        drawn = draw(key, striped(), 160, crop_min=1.0)
        for i in range(2):
            inner = [views[i][:, 4:12, 4:12] for views in drawn]
            flat = [bool((v[:, :, 1:] - v[:, :, :-1]).abs().mean() < 0.25) for v in inner]
            blurred[key[1], i] = share(flat)
    assert blurred[1, 0] == blurred[1, 1] == 0
    assert 0.28 < blurred[2, 0] < 0.48
    assert 0.28 < blurred[2, 1] < 0.48
    assert 0.66 < blurred[3, 0] < 0.88
    assert blurred[3, 1] < 0.4  # a tenth blurred, and a fifth whose white was solarised to black


def test_only_the_second_view_of_moco_v3_is_solarised(drawn: Drawn) -> None:
    """Jitter leaves white above 128; solarised, it is below."""
    white = drawn(("moco", 3), WHITE)
    dark = [share([bool(views[i].mean() < 0.5) for views in white]) for i in range(2)]
    assert dark[0] == 0
    assert 0.14 < dark[1] < 0.26


def test_smallest_crop() -> None:
    """The crop's area shows in the range of a ramp: nothing but crop and flip acts on it."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    picture = Image.fromarray(ramp.copy())
    for least in (0.2, 0.9):
        make = create_views(RECIPES["npid", 1].replace_options({"crop_min": least}))
        crop = make.view.transforms[0]  # type: ignore[attr-defined]
        assert crop.scale == (least, 1.0)
        with seeded(0):
            widths = [np.ptp(np.asarray(crop(picture))[0, :, 0]) / 255 for _ in range(50)]
        assert min(widths) > (least * 3 / 4) ** 0.5 - 0.05


def test_view_is_a_function_of_seed_epoch_and_image(tmp_path: Path) -> None:
    found = find_pictures([make_images(tmp_path, 2)])
    recipe = RECIPES["moco", 2].replace_options({"image_size": 16})
    views = Views(found, recipe, seed=0)

    def first(views: Views, epoch: int, index: int) -> Tensor:
        made = views[epoch, index][1]
        assert isinstance(made, list)
        return made[0]

    once = first(views, 3, 1)
    first(views, 0, 0)
    torch.manual_seed(5)
    assert torch.equal(once, first(Views(found, recipe, seed=0), 3, 1))
    assert not torch.equal(once, first(views, 4, 1))
    assert not torch.equal(once, first(Views(found, recipe, seed=1), 3, 1))


def test_no_generator_is_left_changed(tmp_path: Path) -> None:
    views = Views(find_pictures([make_images(tmp_path, 1)]), RECIPES["moco", 3], seed=0)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    views[0, 0]
    after = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    assert after == (torch.rand(1).item(), random.random(), np.random.rand())


def test_workers_do_not_matter(tmp_path: Path) -> None:
    views = Views(
        find_pictures([make_images(tmp_path, 8)]),
        RECIPES["moco", 2].replace_options({"image_size": 16}),
        seed=0,
    )
    order = [[(0, 5), (0, 2), (0, 7)], [(1, 2), (1, 0), (1, 1)]]
    alone, helped = (
        list(DataLoader(views, batch_sampler=order, collate_fn=collate, num_workers=n))
        for n in (0, 2)
    )
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.first, other.first)
        assert torch.equal(one.second, other.second)
        assert one.indices.tolist() == other.indices.tolist()
    assert not torch.equal(alone[0].first[1], alone[1].first[0])  # image 2 in another epoch


@pytest.mark.parametrize("key", KEYS)
def test_views_can_be_sent_to_a_fresh_process(key: tuple[str, int], tmp_path: Path) -> None:
    """As workers get them where processes are not forked."""
    views = Views(find_pictures([make_images(tmp_path, 1)]), RECIPES[key], seed=0)
    one, other = views[0, 0][1], pickle.loads(pickle.dumps(views))[0, 0][1]
    assert torch.equal(one[0], other[0])  # type: ignore[arg-type]


def test_a_lost_image_is_a_problem_of_its_batch(tmp_path: Path) -> None:
    found = find_pictures([make_images(tmp_path, 2)])
    views = Views(found, RECIPES["npid", 1], seed=0)
    found[1].path.unlink()
    batch = collate([views[0, 0], views[0, 1]])
    assert batch.problem is not None
    assert "001.jpg is missing" in batch.problem


def test_strange_files_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images", 2)
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (folder / "dds.png").write_bytes(b"DDS " + (124).to_bytes(4, "little") + bytes(200))
    (folder / "two\nlines.jpg").write_text("no image")
    pictures = take_pictures([folder], tmp_path / "known.json")
    assert [p.name for p in pictures.usable] == ["000.jpg", "001.jpg"]
    skipped = dict(pictures.skipped)
    assert set(skipped) == {"dangling.jpg", "loop.jpg", "eps.jpg", "dds.png", "two\nlines.jpg"}
    assert "it is none of JPEG" in skipped["eps.jpg"]
    note = note_skipped(pictures)
    assert note is not None
    assert note.startswith("5 of 7 images cannot be used")
    assert "\n" not in note
