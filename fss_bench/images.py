"""Reading photographs and label maps, with errors that name the file."""

from io import BytesIO
from pathlib import Path
from struct import error as StructError

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fss_bench.errors import DatasetError, one_line

IGNORE = 255
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Files of a folder that are taken for pictures."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""By content, JPEG with MPO: Pillow would pass others, such as EPS, to programs outside."""
MOST_PIXELS = 89_478_485
"""Of a picture that is read: Pillow's limit, from which on it warns of a decompression bomb."""
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError),
    *(RuntimeError, StructError, Image.DecompressionBombError),
    Image.DecompressionBombWarning,  # where warnings are errors
)
"""What Pillow raises for a file that is damaged, no picture, or none of `FORMATS`."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """A photograph as [H, W, 3] uint8 RGB. EXIF rotation is not applied: masks are not rotated.

    Raises:
        DatasetError: missing, truncated, not an image, or of a kind without a known white.
    """
    return to_rgb(_open(path, "image"), path)


def to_rgb(picture: Image.Image, path: Path) -> NDArray[np.uint8]:
    """A picture as [H, W, 3] uint8, without alpha.

    Raises:
        DatasetError: of a kind without a known white; `path` is named.
    """
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        raise DatasetError(
            f"image {path} has mode {picture.mode}, whose brightest value is not known: save it "
            "with 8 or 16 bits"
        )
    picture.info.pop("transparency", None)  # Pillow warns of it; alpha is dropped in every mode
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip to 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    try:
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except ValueError as error:
        raise _unreadable(path, "image", error) from error


def read_label_map(path: Path) -> NDArray[np.uint8]:
    """A label map as [H, W] uint8 from a palette PNG or a plain greyscale PNG.

    Raises:
        DatasetError: missing, truncated, or a colour picture, whose ids cannot be known.
    """
    picture = _open(path, "mask")
    if picture.mode not in ("P", "L"):
        raise DatasetError(
            f"mask {path} has mode {picture.mode}: save it as an 8-bit palette (P) or greyscale "
            "(L) PNG whose values are class ids"
        )
    return np.asarray(picture, dtype=np.uint8)


def read_binary_mask(path: Path) -> NDArray[np.bool_]:
    """An anti-aliased black-and-white mask as [H, W] bool: brightness 128 and above is foreground.

    Raises:
        DatasetError: missing, truncated, or of a kind without a known white.
    """
    picture = _open(path, "mask")
    if picture.mode in ("1", "L", "P", "RGB"):
        return np.asarray(picture.convert("L")) >= 128
    return np.asarray(Image.fromarray(to_rgb(picture, path)).convert("L")) >= 128


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write [H, W] or [H, W, 3] uint8 as PNG."""
    Image.fromarray(pixels).save(path, format="PNG")


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes that `write_png` writes."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def decode(path: Path) -> Image.Image:
    """A picture of one of `FORMATS`, read to its end.

    Raises:
        Exception: one of `UNREADABLE`.
    """
    try:
        opened = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"by its content it is none of {', '.join(FORMATS)}") from error
    with opened as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(
                f"{picture.width}x{picture.height} are more than {MOST_PIXELS} pixels: cut it up"
            )
        picture.load()
        return picture


def _open(path: Path, what: str) -> Image.Image:
    if not path.is_file():
        raise DatasetError(
            f"{what} {path} is missing: restore it, or take it out of the image list"
        )
    try:
        return decode(path)
    except UNREADABLE as error:
        raise _unreadable(path, what, error) from error


def _unreadable(path: Path, what: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"{what} {path} cannot be read ({one_line(error)}): fetch it again, or take it out of the "
        "image list"
    )
