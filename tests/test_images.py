"""Reading photographs and masks: however they are stored, and whatever is wrong with them."""

import os
from collections.abc import Callable
from pathlib import Path
from struct import error as StructError

import numpy as np
import pytest
from bad_pictures import EPS
from PIL import EpsImagePlugin, Image, ImageFile

from fss_bench.image_checks import picture_remarks
from fss_bench.images import FORMATS, read_binary_mask, read_image, read_label_map, write_png

Refusal = Callable[[Callable[[], object]], str]

IDS = np.array([[0, 1, 2, 20], [5, 5, 0, 255]], np.uint8)
READERS = [read_image, read_label_map, read_binary_mask]
PILLOWS = (
    *(RuntimeError("frame"), NotImplementedError("kind"), EOFError(), TypeError("none")),
    *(KeyError("tag"), IndexError("off"), StructError("short"), ZeroDivisionError("none")),
)
"""What its decoders may raise for damaged files."""


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    noise = np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photograph.jpg")
    return tmp_path / "photograph.jpg"


def save_palette(file: Path, ids: np.ndarray) -> Path:
    picture = Image.fromarray(ids)
    picture.putpalette(np.random.RandomState(1).randint(0, 256, 768).tolist())
    assert picture.mode == "P"
    picture.save(file)
    return file


def test_palette_and_greyscale_masks_give_the_same_ids(tmp_path: Path) -> None:
    write_png(tmp_path / "grey.png", IDS)
    for file in (tmp_path / "grey.png", save_palette(tmp_path / "palette.png", IDS)):
        labels = read_label_map(file)
        assert labels.dtype == np.uint8
        assert labels.tolist() == IDS.tolist()


def test_a_palette_of_few_colours_is_stored_in_few_bits_and_read_alike(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    picture.save(tmp_path / "small.png", bits=2)
    assert (tmp_path / "small.png").read_bytes()[24] == 2  # bit depth in the PNG header
    assert read_label_map(tmp_path / "small.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16"])
def test_a_mask_without_class_ids_is_refused_with_the_cure(
    tmp_path: Path, mode: str, refusal: Refusal
) -> None:
    file = tmp_path / "mask.png"
    Image.new(mode, (4, 3)).save(file)
    text = refusal(lambda: read_label_map(file))
    assert str(file) in text
    assert f"mode {mode}" in text
    assert "save it as an 8-bit palette (P) or greyscale (L) PNG" in text


@pytest.mark.parametrize("read", READERS)
def test_truncated_file(photograph: Path, read: Callable[[Path], object], refusal: Refusal) -> None:
    photograph.write_bytes(photograph.read_bytes()[:1000])
    assert str(photograph) in refusal(lambda: read(photograph))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"this is no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8"])
def test_file_that_is_no_picture(
    tmp_path: Path, read: Callable[[Path], object], content: bytes, refusal: Refusal
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    text = refusal(lambda: read(file))
    assert str(file) in text
    assert "cannot be read" in text


@pytest.mark.parametrize("read", READERS)
def test_missing_file(tmp_path: Path, read: Callable[[Path], object], refusal: Refusal) -> None:
    file = tmp_path / "gone.png"
    text = refusal(lambda: read(file))
    assert str(file) in text
    assert "missing" in text


def test_a_folder_in_place_of_a_picture(tmp_path: Path, refusal: Refusal) -> None:
    assert str(tmp_path) in refusal(lambda: read_image(tmp_path))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_antialiased_mask_is_foreground_from_128(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8))
    grey.convert(mode).save(tmp_path / "mask.png")
    assert read_binary_mask(tmp_path / "mask.png").tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(
    ("mode", "suffix", "colour", "rgb"),
    [
        ("RGB", "png", (10, 20, 30), [10, 20, 30]),
        ("RGBA", "png", (10, 20, 30, 0), [10, 20, 30]),
        ("L", "png", 77, [77, 77, 77]),
        ("LA", "png", (77, 0), [77, 77, 77]),
        ("L", "jpg", 77, [77, 77, 77]),
        ("1", "png", 1, [255, 255, 255]),
        ("CMYK", "tif", (0, 255, 255, 0), [255, 0, 0]),
        ("I;16", "png", 0x8040, [128, 128, 128]),
        ("I;16", "tif", 0x0140, [1, 1, 1]),
    ],
)
def test_photographs_of_every_mode_become_rgb(
    tmp_path: Path, mode: str, suffix: str, colour: int, rgb: list[int]
) -> None:
    file = tmp_path / f"photograph.{suffix}"
    Image.new(mode, (3, 2), colour).save(file)
    pixels = read_image(file)
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert pixels.reshape(-1, 3).tolist() == [rgb] * 6


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    pixels = read_image(tmp_path / "cmyk.jpg")
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels[8, 8].astype(int) - [255, 0, 0]).max() <= 3


def test_palette_photograph_with_transparent_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([1, 2, 3, 40, 50, 60])
    picture.save(tmp_path / "icon.png", transparency=bytes([0, 128]))
    assert read_image(tmp_path / "icon.png").tolist() == [[[1, 2, 3], [40, 50, 60]]]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_a_photograph_whose_white_is_unknown_is_refused(
    tmp_path: Path, mode: str, refusal: Refusal
) -> None:
    file = tmp_path / "measured.tif"
    Image.new(mode, (3, 2), 1).save(file)
    text = refusal(lambda: read_image(file))
    assert str(file) in text
    assert "8 or 16 bits" in text


def test_written_png_is_read_back(tmp_path: Path) -> None:
    write_png(tmp_path / "mask.png", IDS)
    assert read_label_map(tmp_path / "mask.png").tolist() == IDS.tolist()
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    write_png(tmp_path / "picture.png", colours)
    assert read_image(tmp_path / "picture.png").tolist() == colours.tolist()


@pytest.mark.parametrize("read", READERS)
def test_no_other_program_is_asked_to_read_a_picture(
    tmp_path: Path,
    read: Callable[[Path], object],
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pillow would start Ghostscript for EPS, whatever the file's name."""
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\n: > {started}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for once a process
    file = tmp_path / "a.jpg"
    file.write_bytes(EPS)
    assert "cannot be read" in refusal(lambda: read(file))
    assert list(picture_remarks([file], tmp_path)) == []
    assert not started.exists()
    with pytest.raises(OSError), Image.open(file) as picture:  # noqa: PT011
        picture.load()
    assert started.exists()  # the trap works


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_that_is_promised_is_read(tmp_path: Path, kind: str) -> None:
    Image.new("L", (3, 2), 255).save(tmp_path / "a.jpg", kind)
    assert read_image(tmp_path / "a.jpg").tolist() == [[[255] * 3] * 3] * 2


@pytest.mark.parametrize("error", PILLOWS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("read", READERS)
def test_whatever_pillow_raises_is_a_line(
    photograph: Path,
    read: Callable[[Path], object],
    error: Exception,
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Image.Image) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert f"{photograph} cannot be read ({type(error).__name__}" in refusal(
        lambda: read(photograph)
    )
