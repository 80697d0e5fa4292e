"""One field of a struct in a MATLAB file (level 5, versions 6 and 7), read without trust.

MathWorks, MAT-File Format, chapter 1. Not through scipy: a wrong byte in a file makes its reader
(1.17) end the process, and nothing bounds what it unpacks.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from struct import error as StructError
from struct import unpack_from

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 26
"""Bytes that a file may unpack to, in all; SBD's are a hundred times smaller."""
LONGEST_NAME, MOST_FIELDS = 64, 256
"""Characters of a field's name, with the null; fields of a struct, of which SBD's have three."""
MOST_SIZES = 16
"""Numbers of which a header element, such as a shape, consists."""
UINT8_DATA, MATRIX, COMPRESSED = 2, 14, 15
"""Kinds of elements."""
STRUCT, UINT8 = 2, 9
"""Classes of arrays."""

Element = tuple[int, bytes]


def read_field(file: Path, variable: str, field: str) -> NDArray[np.uint8]:
    """A matrix of uint8 in a 1x1 struct.

    Args:
        file: a `.mat` file.
        variable: the struct.
        field: its field.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, of another version, or does not hold that.
    """
    content = file.read_bytes()
    if len(content) > LARGEST or content[124:128] != b"\x00\x01IM":
        raise ValueError("not a MATLAB file of level 5")
    left = LARGEST
    try:
        for kind, data in _elements(content[128:]):
            if kind == COMPRESSED:
                unpacked = _unpacked(data, left)
                left -= len(unpacked)
                kind, data = next(_elements(unpacked), (0, b""))
            if kind == MATRIX and _name(data) == variable:
                return _uint8(_field(data, field))
    except (StructError, zlib.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"damaged: {error}") from error
    raise ValueError(f"no {variable} in it")


def _elements(data: bytes) -> Iterator[Element]:
    """Kind and content of one element after the other."""
    place = 0
    while place < len(data):
        kind, size = unpack_from("<II", data, place)
        start = place + 8
        if kind >> 16:  # a short one: its content stands in the place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if start + size > len(data):
            raise ValueError("damaged: an element is cut")
        yield kind, data[start : start + size]
        place = start + size + (-(start + size) % 8 if kind != COMPRESSED else 0)


def _unpacked(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, most + 1)  # 0 would be without end
    if not stream.eof or len(unpacked) > most:
        raise ValueError("damaged, or larger than any map")
    return unpacked


def _name(matrix: bytes) -> str:
    return list(islice(_elements(matrix), 3))[2][1].decode("ascii")


def _field(matrix: bytes, name: str) -> bytes:
    """The matrix of a struct's field."""
    flags, shape, _, length, names, *values = islice(_elements(matrix), 5 + MOST_FIELDS)
    if flags[1][0] != STRUCT or _numbers(shape) != [1, 1]:
        raise ValueError("its variable is no struct")
    size, text = _numbers(length)[0], names[1]
    if not 1 <= size <= LONGEST_NAME or len(text) > size * MOST_FIELDS:
        raise ValueError(f"damaged: names of {size} characters, {len(text)} in all")
    fields = [text[i : i + size].split(b"\0")[0].decode() for i in range(0, len(text), size)]
    if name not in fields:
        raise ValueError(f"no field {name} in it")
    kind, data = values[fields.index(name)]
    if kind != MATRIX:
        raise ValueError(f"its field {name} is no matrix")
    return data


def _uint8(matrix: bytes) -> NDArray[np.uint8]:
    flags, shape, _, (kind, data) = islice(_elements(matrix), 4)
    sizes = _numbers(shape)
    if flags[1][0] != UINT8 or kind != UINT8_DATA or len(sizes) != 2:
        raise ValueError(f"{sizes} numbers that are not all of uint8")
    if min(sizes) < 1 or sizes[0] * sizes[1] != len(data):
        raise ValueError(f"{len(data)} numbers are no matrix of {sizes}")
    return np.frombuffer(data, np.uint8).reshape(sizes, order="F")


def _numbers(element: Element) -> Sequence[int]:
    _, data = element
    if len(data) > 4 * MOST_SIZES:
        raise ValueError(f"damaged: {len(data)} bytes of sizes")
    return list(unpack_from(f"<{len(data) // 4}i", data))
