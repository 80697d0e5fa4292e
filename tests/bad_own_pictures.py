"""Pictures and masks as they should not be, for `predict`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from bad_data import READ, Attempt, Case, WrongReadingError
from bad_pictures import BAD_PICTURES, GOOD, GOOD_MASK, bomb, filled, shades, sixteen_labels
from bad_trees import HEIGHT, WIDTH, labels

from fss_bench.own_pictures import read_picture, read_supports


def _support(root: Path, picture: bytes, mask: bytes) -> tuple[Path, Path]:
    (root / "a.img").write_bytes(picture)
    (root / "a-mask.png").write_bytes(mask)
    return root / "a.img", root / "a-mask.png"


def _predict(root: Path, picture: Path, mask: Path) -> tuple[object, ...]:
    files = ("--support", picture, "--mask", mask, "--query", picture, "-o", root / "out.png")
    return ("predict", "panet", *files, "--backbone", "resnet18", "--weights", "none", "--quiet")


def _own_picture_case(fault: str) -> Case:
    promised, make, _ = BAD_PICTURES[fault]
    promised = {"turned by EXIF": READ}.get(fault, promised)

    def prepare(root: Path) -> Attempt:
        content, expected = make()
        picture, mask = _support(root, content, filled(255))

        def read() -> None:
            found = read_picture(picture)
            wanted = np.rot90(expected, -1) if fault == "turned by EXIF" else expected
            if not np.array_equal(found, wanted):
                raise WrongReadingError(f"other pixels, {found.shape}")

        return Attempt(read, _predict(root, picture, mask) if promised != READ else ())

    return Case(f"picture {fault}", "predict", promised, prepare)


OWN_MASKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "truncated": ("cannot be read", lambda: GOOD_MASK[: len(GOOD_MASK) // 2]),
    "of 2.5 gigapixels": ("cannot be read", lambda: bomb(50_000, 50_000)),
    "of 100 megapixels": ("cut it up", lambda: bomb(10_000, 10_000)),
    "of 16 bits": ("mode I;16", sixteen_labels),
    "of no object": ("has no pixel of the object", lambda: filled(0)),
    "of another size": ("make the mask at that size", lambda: filled(255, (WIDTH + 1, HEIGHT))),
    "of colours": ("has colours", lambda: GOOD),
    "all 255": (READ, lambda: filled(255)),
    "of one bit": (READ, lambda: shades("1")),
}


def _own_mask_case(fault: str) -> Case:
    promised, make = OWN_MASKS[fault]

    def prepare(root: Path) -> Attempt:
        picture, mask = _support(root, GOOD, make())

        def read() -> None:
            found = read_supports([picture], [mask])["object"][0].mask
            expected = labels(1) if fault == "of one bit" else np.ones((HEIGHT, WIDTH))
            if not np.array_equal(found, expected):
                raise WrongReadingError("another mask")

        return Attempt(read, _predict(root, picture, mask) if promised != READ else ())

    return Case(f"mask {fault}", "predict", promised, prepare)


def cases() -> Iterator[Case]:
    yield from (_own_picture_case(fault) for fault in BAD_PICTURES)
    yield from (_own_mask_case(fault) for fault in OWN_MASKS)
