"""Pictures and masks as they should not be, in every tree."""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from bad_data import READ, Attempt, Case, WrongReadingError
from bad_trees import FIRST, HEIGHT, MAKERS, MASKS, PHOTOGRAPHS, WIDTH, attempt, labels, photograph
from numpy.typing import NDArray
from PIL import Image

Make = Callable[[], tuple[bytes, NDArray[np.uint8] | None]]
"""A file, and the pixels [H, W, 3] that must be read from it."""


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _grey() -> NDArray[np.uint8]:
    return photograph()[..., 0]


def _three(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as this."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with a comment of 64 MB, packed."""
    good = _saved(Image.fromarray(photograph()), "PNG")
    data = b"Comment\0\0" + zlib.compress(bytes(1 << 26), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data
    return good[:33] + chunk + struct.pack(">I", zlib.crc32(b"zTXt" + data)) + good[33:]


def _cmyk() -> tuple[bytes, NDArray[np.uint8]]:
    picture = Image.fromarray(photograph()).convert("CMYK")
    return _saved(picture, "TIFF"), np.asarray(picture.convert("RGB"))


def _cmyk_jpeg() -> tuple[bytes, NDArray[np.uint8]]:
    content = _saved(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "JPEG", quality=100)
    return content, np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8)


def _alpha(mode: str) -> tuple[bytes, NDArray[np.uint8]]:
    pixels = photograph() if mode == "RGBA" else _three(_grey())
    picture = Image.fromarray(pixels).convert(mode)
    picture.putalpha(Image.fromarray(np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))))
    return _saved(picture, "PNG"), pixels


def _palette() -> tuple[bytes, NDArray[np.uint8]]:
    picture = Image.fromarray(photograph()).quantize(32)
    return _saved(picture, "PNG", transparency=3), np.asarray(picture.convert("RGB"))


def _sixteen(kind: str, order: str = "<") -> tuple[bytes, NDArray[np.uint8]]:
    """Twice as bright a level in each byte, so that a wrapped or clipped one shows."""
    values = _grey().astype(np.uint16) * 256 + 99
    picture = Image.frombytes(
        "I;16" if order == "<" else "I;16B", (WIDTH, HEIGHT), values.astype(f"{order}u2").tobytes()
    )
    return _saved(picture, kind), _three(_grey())


def _animated(kind: str) -> tuple[bytes, NDArray[np.uint8]]:
    first = Image.fromarray(_grey())
    second = Image.fromarray(255 - _grey())
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    pictures = [
        picture.convert("RGB") if kind == "WEBP" else picture for picture in (first, second)
    ]
    content = _saved(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    return content, _three(_grey())


def _turned() -> tuple[bytes, NDArray[np.uint8]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(Image.fromarray(photograph()), "PNG", exif=exif), photograph()


def _bits() -> tuple[bytes, NDArray[np.uint8]]:
    on = _grey() > 127
    return _saved(Image.fromarray(on), "PNG"), _three((on * 255).astype(np.uint8))


def _damaged(content: bytes) -> Make:
    return lambda: (content, None)


def _float() -> bytes:
    return _saved(Image.fromarray(np.full((HEIGHT, WIDTH), 0.5, np.float32)), "TIFF")


def _odd_samples() -> bytes:
    """A TIFF of 255 samples a pixel, of which Pillow writes to its log."""
    content = _saved(Image.fromarray(photograph()), "TIFF")
    samples = struct.pack("<HHIH", 277, 3, 1, 3)
    assert content.count(samples) == 1
    return content.replace(samples, struct.pack("<HHIH", 277, 3, 1, 255))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
GOOD = _saved(Image.fromarray(photograph()), "PNG")
BAD_PICTURES: dict[str, tuple[str, Make, str]] = {
    "truncated": ("cannot be read", _damaged(GOOD[: len(GOOD) // 2]), "problem"),
    "empty": ("cannot be read", _damaged(b""), "problem"),
    "a web page": ("cannot be read", _damaged(b"<html>404</html>"), "problem"),
    "of 2.5 gigapixels": ("cannot be read", _damaged(bomb(50_000, 50_000)), "problem"),
    "of 100 megapixels": ("cut it up", _damaged(bomb(10_000, 10_000)), "problem"),
    "with a packed comment of 64 MB": ("cannot be read", _damaged(text_bomb()), "problem"),
    "of 255 samples a pixel": ("cannot be read", _damaged(_odd_samples()), "problem"),
    "EPS by content": ("it is none of JPEG", _damaged(EPS), "problem"),
    "DDS by content": ("it is none of JPEG", _damaged(b"DDS " + bytes(300)), "problem"),
    "of floats": ("brightest value is not known", _damaged(_float()), "problem"),
    "of 16 bits (PNG)": (READ, lambda: _sixteen("PNG"), ""),
    "of 16 bits (TIFF)": (READ, lambda: _sixteen("TIFF"), ""),
    "of 16 bits (big-endian TIFF)": (READ, lambda: _sixteen("TIFF", ">"), ""),
    "CMYK": (READ, _cmyk, ""),
    "CMYK (JPEG)": (READ, _cmyk_jpeg, ""),
    "greyscale": (READ, lambda: (_saved(Image.fromarray(_grey()), "PNG"), _three(_grey())), ""),
    "black and white": (READ, _bits, ""),
    "with alpha": (READ, lambda: _alpha("RGBA"), ""),
    "greyscale with alpha": (READ, lambda: _alpha("LA"), ""),
    "palette with a transparent colour": (READ, _palette, ""),
    "turned by EXIF": (READ, _turned, "note"),
    "animated (GIF)": (READ, lambda: _animated("GIF"), "note"),
    "animated (PNG)": (READ, lambda: _animated("PNG"), "note"),
    "animated (WebP)": (READ, lambda: _animated("WEBP"), "note"),
    "of several pages (TIFF)": (READ, lambda: _animated("TIFF"), "note"),
}
EVERYWHERE = ("truncated", "of 2.5 gigapixels", "of 16 bits (PNG)", "turned by EXIF")
"""Tried in every tree; the others, read by the same function, in one."""


def _mask(mode: str) -> bytes:
    return _saved(Image.fromarray(labels(1)).convert(mode), "PNG")


def sixteen_labels() -> bytes:
    return _saved(Image.fromarray(labels(1).astype(np.uint16)), "PNG")


def filled(value: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    return _saved(Image.new("L", size, value), "PNG")


def _palette_labels() -> bytes:
    picture = Image.fromarray(labels(1))
    picture.putpalette(bytes(range(256)) * 3)
    return _saved(picture, "PNG")


GOOD_MASK = _mask("L")
BAD_MASKS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "truncated": ("cannot be read", lambda: GOOD_MASK[: len(GOOD_MASK) // 2], "problem"),
    "empty": ("cannot be read", lambda: b"", "problem"),
    "of 2.5 gigapixels": ("cannot be read", lambda: bomb(50_000, 50_000), "problem"),
    "of 100 megapixels": ("cut it up", lambda: bomb(10_000, 10_000), "problem"),
    "of 16 bits": ("mode I;16", sixteen_labels, "problem"),
    "of colours": ("mode RGB", lambda: _mask("RGB"), "problem"),
    "with alpha": ("mode RGBA", lambda: _mask("RGBA"), "problem"),
    "of one bit": ("mode 1", lambda: _mask("1"), "problem"),
    "with ids beyond the classes": ("holds class id 99", lambda: filled(99), "problem"),
    "of another size": ("width x height", lambda: filled(1, (WIDTH + 1, HEIGHT)), "problem"),
    "turned": ("width x height", lambda: filled(1, (HEIGHT, WIDTH)), "problem"),
    "all 255": (READ, lambda: filled(255), "note"),
    "of no object": (READ, lambda: filled(0), "note"),
    "palette": (READ, _palette_labels, ""),
}


def _sixteen_grey() -> bytes:
    """127 and 128 of 255, of 16 bits: clipped to 8 they would both be white."""
    values = np.where(labels(1) == 1, 128, 127).astype(np.uint16) * 257
    return _saved(Image.fromarray(values), "PNG")


BAD_SHADES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "truncated": ("cannot be read", lambda: GOOD_MASK[: len(GOOD_MASK) // 2], "problem"),
    "of another size": ("width x height", lambda: filled(255, (WIDTH + 1, HEIGHT)), "problem"),
    "of 16 bits": (READ, _sixteen_grey, ""),
    "of colours": (READ, lambda: shades("RGB"), ""),
    "with alpha": (READ, lambda: shades("RGBA"), ""),
    "of one bit": (READ, lambda: shades("1"), ""),
    "of no object": (READ, lambda: filled(0), "note"),
}


def shades(mode: str) -> bytes:
    return _saved(Image.fromarray(labels(1) * 255).convert(mode), "PNG")


def _photograph_case(kind: str, fault: str) -> Case:
    promised, make, told = BAD_PICTURES[fault]

    def prepare(root: Path) -> Attempt:
        tree = MAKERS[kind](root / "tree")
        file = tree / PHOTOGRAPHS[kind]
        content, expected = make()
        file.write_bytes(content)
        image = {"coco20i": "000000000101", "fss1000": "c2/0", "folder (COCO)": file.name}

        def check(dataset: Any) -> None:
            found = dataset.load_image(image.get(kind, FIRST))
            if expected is not None and not np.array_equal(found, expected):
                raise WrongReadingError(f"other pixels: {found[0, :3]} for {expected[0, :3]}")

        return attempt(kind, tree, check)

    return Case(f"photograph {fault}", kind, promised, prepare, told)


def _mask_case(kind: str, fault: str, promised: str, make: Callable[[], bytes], told: str) -> Case:
    def prepare(root: Path) -> Attempt:
        tree = MAKERS[kind](root / "tree")
        (tree / MASKS[kind]).write_bytes(make())
        image, class_id = ("c2/0", 2) if kind == "fss1000" else (FIRST, 1)
        value = {"all 255": 255, "of no object": 0}.get(fault)
        expected = labels(1) if value is None else np.full((HEIGHT, WIDTH), value)

        def check(dataset: Any) -> None:
            if not np.array_equal(dataset.load_mask(image, class_id), expected):
                raise WrongReadingError("another mask")

        return attempt(kind, tree, check)

    return Case(f"mask {fault}", kind, promised, prepare, told)


def cases() -> Iterator[Case]:
    for fault in BAD_PICTURES:
        kinds = PHOTOGRAPHS if fault in EVERYWHERE else ("folder",)
        yield from (_photograph_case(kind, fault) for kind in kinds)
    for kind in ("pascal5i", "folder"):
        yield from (_mask_case(kind, fault, *rest) for fault, rest in BAD_MASKS.items())
    yield from (_mask_case("fss1000", fault, *rest) for fault, rest in BAD_SHADES.items())
