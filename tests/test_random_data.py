"""Random annotations, pictures and lists: read as a naive reader would, or refused in a line."""

import json
from io import BytesIO
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle_tools

from fss_bench.coco_masks import CROWDS, OVERLAPS, CocoReader, class_masks
from fss_bench.coco_regions import lengths_of, run_lengths
from fss_bench.errors import DatasetError
from fss_bench.image_lists import is_inside, listing_of, read_listing
from fss_bench.images import read_binary_mask, read_image, read_label_map
from fss_bench.index import IGNORE_ROW

Bits = NDArray[np.bool_]
sizes = st.tuples(st.integers(1, 14), st.integers(1, 14))
seeds = st.integers(0, 2**32 - 1)


# --- regions


def fill(lengths: list[int], height: int, width: int) -> Bits:
    """Runs of off and on, column by column."""
    flat = [bool(i % 2) for i, length in enumerate(lengths) for _ in range(length)]
    return np.array(flat, bool).reshape(width, height).T


def runs_of(mask: Bits) -> list[int]:
    """Runs of off and on, column by column; the first is off."""
    runs = [(value, len(list(group))) for value, group in groupby(mask.T.ravel().tolist())]
    return [*([0] if runs[0][0] else []), *(length for _, length in runs)]


@given(size=sizes, seed=seeds)
def test_codes_of_pycocotools_are_read(size: tuple[int, int], seed: int) -> None:
    mask = np.random.RandomState(seed).rand(*size) > 0.6
    code = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert lengths_of(code) == runs_of(mask)
    assert np.array_equal(fill(lengths_of(code), *size), mask)


@given(size=sizes, code=st.one_of(st.binary(max_size=12), st.text("0123:;PQo`", max_size=9)))
@settings(max_examples=300)
def test_any_code_is_what_its_lengths_say_or_refused(
    size: tuple[int, int], code: str | bytes
) -> None:
    try:
        checked = run_lengths({"size": list(size), "counts": code}, *size)
    except ValueError:
        return
    assert np.array_equal(rle_tools.decode(checked), fill(lengths_of(code), *size))


# --- annotation files

corners = st.floats(-9, 25, allow_nan=False)
polygons = st.lists(st.lists(corners, min_size=6, max_size=12), min_size=1, max_size=2)
flags = st.sampled_from([0, 0, 0, 1])


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, Any]:
    """An image and its annotations, of which some are faulty."""
    height, width = draw(sizes)
    entries = []
    for number in range(draw(st.integers(0, 4))):
        mask = np.random.RandomState(draw(seeds)).rand(height, width) > 0.7
        size = [height, width]
        code = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        forms = (
            draw(polygons),
            {"size": size, "counts": runs_of(mask)},
            {"size": size, "counts": code.decode()},
            [],
            {"size": [width + 1, height], "counts": runs_of(mask)},
        )
        entries.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": draw(st.sampled_from([10, 20, 10, 20, 10, 20, 30])),
                "iscrowd": draw(flags),
                "segmentation": draw(st.sampled_from([*forms[:3] * 3, *forms])),
            }
        )
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "annotations": entries,
        "categories": [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}],
    }


def draw_region(region: Any, height: int, width: int) -> Bits:
    if isinstance(region, dict):
        counts = region["counts"]
        return fill(counts if isinstance(counts, list) else lengths_of(counts), height, width)
    parts = [rle_tools.frPyObjects([part], height, width)[0] for part in region]
    return np.logical_or.reduce([rle_tools.decode(part).astype(bool) for part in parts])


def naive_masks(content: dict[str, Any], overlap: str, crowd: str) -> dict[int, Bits] | None:
    """Masks pixel by pixel; None where something cannot be drawn."""
    height, width = content["images"][0]["height"], content["images"][0]["width"]
    drawn = []
    for entry in content["annotations"]:
        region = entry["segmentation"]
        sized = not isinstance(region, dict) or region["size"] == [height, width]
        sized &= isinstance(region, dict) or all(len(part) % 2 == 0 for part in region)
        if entry["category_id"] == 30 or not region or not sized:
            return None
        drawn.append((entry, draw_region(region, height, width)))
    plain = [d for d in drawn if not d[0]["iscrowd"] or crowd == "include"]
    if overlap == "smaller":
        plain = sorted(plain, key=lambda found: -int(found[1].sum()))
    masks = {class_id: np.zeros((height, width), bool) for class_id in (1, 2, IGNORE_ROW)}
    for y in range(height):
        for x in range(width):
            classes = [entry["category_id"] // 10 for entry, mask in plain if mask[y, x]]
            crowds = [entry for entry, mask in drawn if entry["iscrowd"] and mask[y, x]]
            for class_id in classes if overlap == "both" else classes[-1:]:
                masks[class_id][y, x] = True
            if crowd == "ignore" and crowds and not classes:
                masks[IGNORE_ROW][y, x] = True
    return {class_id: mask for class_id, mask in masks.items() if mask.any()}


@given(content=annotations(), overlap=st.sampled_from(OVERLAPS), crowd=st.sampled_from(CROWDS))
@settings(max_examples=120)
def test_masks_are_those_of_a_naive_drawing_or_refused(
    content: dict[str, Any], overlap: Any, crowd: Any
) -> None:
    expected = naive_masks(content, overlap, crowd)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.json"
        file.write_text(json.dumps(content))
        reader = CocoReader(file, Path(folder), overlap, crowd, lambda info: info["file_name"])
        checked = reader.check("a.png")
        assert (expected is None) == any(finding.grave for finding in checked.findings)
        if expected is None:
            with pytest.raises(DatasetError, match=r"^annotation [^\n]+$"):
                reader.counts("a.png")
            return
        _, _, found = class_masks(reader.annotations, 1, overlap, crowd)
        counted = reader.counts("a.png")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[class_id], mask) for class_id, mask in expected.items())
    size = content["images"][0]
    nothing = np.zeros((size["height"], size["width"]), bool)
    covered = np.logical_or.reduce([nothing, *found.values()])
    background = int(covered.size - covered.sum())
    assert counted.pixels == {0: background, **{c: int(m.sum()) for c, m in expected.items()}}


# --- pictures

FORMS = [
    *((mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *((mode, "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B")),
    *((mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
    *((mode, "WEBP") for mode in ("RGB", "RGBA")),
    *((mode, "BMP") for mode in ("1", "L", "P", "RGB")),
    *((mode, "GIF") for mode in ("L", "P")),
]


def picture(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.RandomState(seed)
    if mode.startswith("I;16"):
        order = ">" if mode.endswith("B") else "<"
        values = rng.randint(0, 1 << 16, size).astype(f"{order}u2")
        return Image.frombytes(mode, size[::-1], values.tobytes())
    pixels = Image.fromarray(rng.randint(0, 256, (*size, 4), dtype=np.uint8))
    if mode in ("LA", "RGBA"):
        return pixels.convert(mode)
    return pixels.convert("RGB").convert(mode)


@pytest.mark.parametrize(("mode", "form"), FORMS)
@given(size=sizes, seed=seeds)
@settings(max_examples=5)
def test_pictures_are_converted_as_pillow_says(
    mode: str, form: str, size: tuple[int, int], seed: int
) -> None:
    stream = BytesIO()
    picture(mode, size, seed).save(stream, form)
    with Image.open(BytesIO(stream.getvalue())) as stored:
        if stored.mode.startswith("I"):
            grey = (np.asarray(stored).astype(int) // 256).astype(np.uint8)
            expected = np.stack([grey] * 3, axis=2)
        else:
            expected = np.asarray(stored.convert("RGB"))
        mode_stored, values = stored.mode, np.asarray(stored)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.img"
        file.write_bytes(stream.getvalue())
        assert np.array_equal(read_image(file), expected)
        assert read_image(file).shape == (*size, 3)
        assert read_binary_mask(file).shape == size
        if mode_stored in ("P", "L"):
            assert np.array_equal(read_label_map(file), values)
        else:
            with pytest.raises(DatasetError, match=f"has mode {mode_stored}"):
                read_label_map(file)


# --- lists

names = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["a", "a", "b c", "..", "../a", "a/../../b", "/etc/passwd", ".", "a\0", "é", "C:\\a", "..\\a"]
)


@given(given_names=st.lists(names, max_size=6))
@settings(max_examples=80)
def test_names_stay_in_their_folder(given_names: list[str]) -> None:
    found = listing_of(given_names, Path("list.txt"))
    assert list(found.images) == list(dict.fromkeys(n for n in given_names if is_inside(n)))
    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name in found.images:
            assert (root / name).resolve().is_relative_to(root)
            assert not (root / name).exists()  # can be asked for
    grave = any(finding.grave for finding in found.findings)
    assert grave == any(not is_inside(name) for name in given_names)
    assert not any("\n" in finding.text for finding in found.findings)


@given(content=st.binary(max_size=60))
@settings(max_examples=80)
def test_any_bytes_are_a_list_or_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "list.txt"
        file.write_bytes(content)
        found = read_listing(file, "names")
    try:
        lines = [line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
        wanted = [line.decode().strip() for line in lines]
    except UnicodeDecodeError:
        assert any("is not UTF-8" in finding.text for finding in found.findings)
        return
    assert list(found.images) == list(dict.fromkeys(n for n in wanted if n and is_inside(n)))
