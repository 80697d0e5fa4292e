"""Annotation files in COCO's format as they should not be, in COCO's tree and in one's own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_data import READ, Attempt, Case
from bad_trees import HEIGHT, MAKERS, WIDTH, attempt, box

FILES = {
    "coco20i": "annotations/instances_val2017.json",
    "folder (COCO)": "annotations.json",
}
Change = Callable[[dict[str, Any]], object]


def _first(part: str, **fields: Any) -> Change:
    return lambda content: content[part][0].update(fields)


def _same(part: str, field: str) -> Change:
    """The second entry has what is the first's alone."""
    return lambda content: content[part][1].update({field: content[part][0][field]})


def _region(segmentation: Any, **fields: Any) -> Change:
    return _first("annotations", segmentation=segmentation, **fields)


def _code(counts: Any, height: int = HEIGHT, width: int = WIDTH) -> Change:
    return _region({"size": [height, width], "counts": counts})


def _stranger(content: dict[str, Any]) -> None:
    content["annotations"].append(
        {"id": 99, "image_id": 999, "category_id": 10, "segmentation": box()}
    )


ALL = HEIGHT * WIDTH
ZIGZAG = [999_999.0, 999_999.0, -999_999.0, -999_999.0] * 3
"""Edges of 2,000,000 px; of tens of thousands pycocotools ends the process."""
CHANGES: dict[str, tuple[str, Change, str]] = {
    "image id twice": ("image id", _same("images", "id"), "problem"),
    "category id twice": ("category id", _same("categories", "id"), "problem"),
    "category name twice": ("category name", _same("categories", "name"), "problem"),
    "annotation id twice": (READ, _same("annotations", "id"), "note"),
    "category that is not listed": (
        "category id 7,",
        _first("annotations", category_id=7),
        "problem",
    ),
    "annotation of an image that is not listed": (READ, _stranger, "note"),
    "file_name that leads out": ("leads out", _first("images", file_name="../a.png"), "problem"),
    "absolute file_name": ("leads out", _first("images", file_name="/etc/passwd"), "problem"),
    "file_name of half a character": ("leads out", _first("images", file_name="\ud800"), "problem"),
    "image of 10^18 pixels": (
        "it must have 1 to",
        _first("images", height=10**9, width=10**9),
        "problem",
    ),
    "image of 100 megapixels": (
        "it must have 1 to",
        _first("images", height=10**4, width=10**4),
        "problem",
    ),
    "image of no height": ("it must have 1 to", _first("images", height=0), "problem"),
    "image of negative width": ("it must have 1 to", _first("images", width=-5), "problem"),
    "image of another size": ("width x height", _first("images", width=WIDTH - 1), "problem"),
    "image without annotations": (READ, lambda c: c["annotations"].pop(0), ""),
    "crowd alone": (READ, _first("annotations", iscrowd=1), "note"),
    "polygon outside of the image": (READ, _region(box(WIDTH + 2, WIDTH + 5)), "note"),
    "polygon over the edge": (READ, _region(box(4, WIDTH + 5)), "note"),
    "polygon of no area": (READ, _region([[3.0, 3.0] * 3]), "note"),
    "polygon a billion pixels away": ("a million pixels away", _region(box(0, 1e9)), "problem"),
    "polygon of NaN": ("not a number", _region(box(0, float("nan"))), "problem"),
    "polygon of two corners": ("cannot be decoded", _region([[0, 0, 5, 5]]), "problem"),
    "polygon of seven numbers": ("odd number", _region([[0, 0, 5, 0, 5, 5, 1]]), "problem"),
    "polygon of many long edges": ("px around", _region([ZIGZAG]), "problem"),
    "polygon of texts": ("cannot be decoded", _region([["a"] * 6]), "problem"),
    "polygons nested deeper": ("cannot be decoded", _region([[[0, 0, 5, 0, 5, 5]]]), "problem"),
    "no region": ("no polygon", _region([]), "problem"),
    "region that is a number": ("cannot be decoded", _region(5), "problem"),
    "counts of another size": ("its image is", _code([ALL], WIDTH, HEIGHT), "problem"),
    "counts of 10^18 pixels": ("its image is", _code([10**18], 10**9, 10**9), "problem"),
    "counts that do not fill the image": ("add up to 5", _code([5]), "problem"),
    "counts beyond the image": ("add up to", _code([ALL, 10**12]), "problem"),
    "negative counts": ("negative", _code([-5, ALL + 5]), "problem"),
    "code that does not fill the image": ("add up to 5", _code("5"), "problem"),
    "code beyond the image": ("add up to", _code("oooooo0"), "problem"),
    "code that is cut": ("cut", _code("oooo"), "problem"),
    "code of other characters": ("no RLE code", _code("\x7f\x20"), "problem"),
    "code of endless numbers": ("no RLE code", _code("o" * 5000), "problem"),
    "code that is not ASCII": ("cannot be decoded", _code("é"), "problem"),
}


def _with(change: Change) -> Callable[[bytes], bytes]:
    def changed(good: bytes) -> bytes:
        content = json.loads(good)
        change(content)
        return json.dumps(content).encode()

    return changed


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda good: good[: len(good) // 2],
    "empty": lambda good: b"",
    "nested 100,000 deep": lambda good: b"[" * 100_000,
    "not UTF-8": lambda good: good.replace(b"annotations", b"\xff\xfe", 1),
    "a list": lambda good: b"[]",
    "without categories": lambda good: good.replace(b"categories", b"kinds"),
    "with sizes of 1e999": lambda good: good.replace(b'"height": 12', b'"height": 1e999'),
    "with a number of 5,000 digits": lambda good: good.replace(
        b'"height": 12', b'"height": ' + b"9" * 5000
    ),
    "with a category id that is a list": _with(_first("categories", id=[1])),
    "with a list for an annotation's category": _with(_first("annotations", category_id=[1])),
    "with an image id that is null": _with(_first("images", id=None)),
    "with an image id that is true": _with(_first("images", id=True)),
    "with an image id that is 1.5": _with(_first("images", id=1.5)),
}


def _entry_case(kind: str, fault: str) -> Case:
    promised, change, told = CHANGES[fault]

    def prepare(root: Path) -> Attempt:
        tree = MAKERS[kind](root / "tree")
        file = tree / FILES[kind]
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        return attempt(kind, tree)

    return Case(fault, kind, promised, prepare, told)


def _content_case(kind: str, fault: str) -> Case:
    def prepare(root: Path) -> Attempt:
        tree = MAKERS[kind](root / "tree")
        file = tree / FILES[kind]
        file.write_bytes(CONTENTS[fault](file.read_bytes()))
        tried = attempt(kind, tree)
        if kind == "coco20i":
            return tried
        return Attempt(tried.library, ("data", "verify", *tried.verify))  # not even opened

    return Case(f"annotations {fault}", kind, "is not a COCO annotation file", prepare, "problem")


ALSO_IN_COCO = ("image id twice", "crowd alone", "image of 10^18 pixels", "counts beyond the image")


def cases() -> Iterator[Case]:
    for fault in CHANGES:
        yield _entry_case("folder (COCO)", fault)
    for fault in (
        "image id twice",
        "crowd alone",
        "image of 10^18 pixels",
        "counts beyond the image",
    ):
        yield _entry_case("coco20i", fault)
    for kind in FILES:
        yield from (_content_case(kind, fault) for fault in CONTENTS)
