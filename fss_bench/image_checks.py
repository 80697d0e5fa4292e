"""What is worth telling of an image's files, though they are read rightly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fss_bench.errors import DatasetError
from fss_bench.image_lists import Finding
from fss_bench.images import FORMATS, UNREADABLE

ORIENTATION = 0x0112
"""The EXIF tag; 1 is upright."""


@dataclass(frozen=True)
class MaskCheck:
    """What was found in the source of an image's mask.

    Attributes:
        size: height and width of the mask; None where it cannot be read.
        findings: what is wrong with it, or worth telling.
    """

    size: tuple[int, int] | None
    findings: tuple[Finding, ...] = ()


def picture_remarks(files: Sequence[Path], root: Path | None) -> Iterator[Finding]:
    """Remarks on an image's files, the photograph first; what cannot be read is passed over.

    Args:
        files: of one image.
        root: the dataset's folder.
    """
    for file in files:
        if leads_out(file, root):
            yield Finding(
                f"{file} is a link to {file.resolve()}, outside of its folder: it is followed; "
                "copy the file if it must not change",
                grave=False,
            )
    try:
        with Image.open(files[0], formats=FORMATS) as picture:
            turned = picture.getexif().get(ORIENTATION, 1)
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    except UNREADABLE:
        return
    if turned not in (0, 1):
        yield Finding(
            f"image {files[0]} has EXIF orientation {turned}, which is not applied: its mask must "
            "be of the picture as stored",
            grave=False,
        )
    if frames > 1:
        yield Finding(f"image {files[0]} has {frames} frames: the first is read", grave=False)


def leads_out(file: Path, root: Path | None) -> bool:
    """Whether a file is itself a link, to a place outside of its folder and of the root."""
    if not file.is_symlink() or not file.exists():
        return False
    homes = [file.parent, *([root] if root else [])]
    target = file.resolve()
    return not any(target.is_relative_to(home.resolve()) for home in homes)


def check_size(image: str, mask: Sequence[int], pixels: Sequence[int]) -> None:
    """Raise DatasetError if a mask's shape [H, W] is not its image's [H, W, 3]."""
    if tuple(mask[:2]) != tuple(pixels[:2]):
        raise DatasetError(
            f"mask of image {image} is {mask[1]}x{mask[0]}, the image {pixels[1]}x{pixels[0]} "
            "(width x height): make the mask again at the image's size"
        )
