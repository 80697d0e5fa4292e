"""SBD's annotations as label PNGs: the folder `SegmentationClassAug` of a VOC 2012 tree.

Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011 (SBD). Its 11,355 maps have no
255 border; those of VOC 2012 train and val (2,913) have, and win where both exist. Together they
are 12,031 maps, of which 1,449 are VOC 2012 val.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fss_bench.errors import DatasetError, one_line, shorten
from fss_bench.files import sync_names
from fss_bench.image_lists import read_names
from fss_bench.images import IGNORE, read_label_map
from fss_bench.mat_files import read_field

CLASSES = 20


def convert(
    sbd: Path, voc: Path, output: Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write every label map of SBD and VOC 2012 as a palette PNG; all of them or none.

    Args:
        sbd: the folder `benchmark_RELEASE/dataset`, with `cls/*.mat`, `train.txt` and `val.txt`.
        voc: the folder `VOC2012`, with `SegmentationClass` and `ImageSets/Segmentation`.
        output: the folder to make, `SegmentationClassAug`; pixels are class ids 0 to 20 and 255.
        progress: called with maps written and in all.

    Returns:
        The number of maps.

    Raises:
        DatasetError: a folder, list or map is missing or damaged, or `output` is there already.
    """
    if output.exists():
        raise DatasetError(f"{output} is there already: delete it, or choose another -o")
    sources = _sources(sbd, voc)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as made:
            folder = Path(made) / output.name
            folder.mkdir()
            for done, (name, file) in enumerate(sources.items(), start=1):
                _write(folder / f"{name}.png", _read(file))
                if progress:
                    progress(done, len(sources))
            os.sync()  # the maps before the name: a power cut leaves all or none
            folder.rename(output)
        sync_names(output.parent)
    except OSError as error:
        raise DatasetError(
            f"cannot write {output} ({one_line(error)}): free space, mend permissions or choose "
            "another -o"
        ) from error
    return len(sources)


def read_mat(file: Path) -> NDArray[np.uint8]:
    """The label map [H, W] in a `.mat` file of SBD: field `Segmentation` of struct `GTcls`.

    Raises:
        DatasetError: damaged, or another file than SBD's.
    """
    try:
        return read_field(file, "GTcls", "Segmentation")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{file} is no annotation of SBD ({one_line(error)}): unpack SBD again"
        ) from error


def _sources(sbd: Path, voc: Path) -> dict[str, Path]:
    """Image -> the file of its map, sorted; every listed one is there."""
    found: dict[str, Path] = {}
    for folder, suffix, lists, names in (
        (sbd / "cls", ".mat", sbd, ("train", "val")),
        (voc / "SegmentationClass", ".png", voc / "ImageSets/Segmentation", ("train", "val")),
    ):
        there = {file.stem: file for file in folder.glob(f"*{suffix}")}
        listed = [n for name in names for n in read_names(lists / f"{name}.txt", "image names")]
        missing = [name for name in dict.fromkeys(listed) if name not in there]
        if missing or not there:
            raise DatasetError(
                f"{folder} lacks {len(missing)} of the {len(set(listed))} maps listed in {lists} "
                f"({shorten(f'{name}{suffix}' for name in missing)}): unpack it again"
            )
        found |= there
    return dict(sorted(found.items()))


def _read(file: Path) -> NDArray[np.uint8]:
    labels = read_mat(file) if file.suffix == ".mat" else read_label_map(file)
    wrong = labels[(labels > CLASSES) & (labels != IGNORE)]
    if wrong.size:
        raise DatasetError(
            f"{file} holds class id {wrong.flat[0]}, VOC has 1 to {CLASSES}: unpack it again"
        )
    return labels


def _write(file: Path, labels: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(labels)
    picture.putpalette(_palette())
    picture.save(file, format="PNG")


def _palette() -> bytes:
    """VOC's colours: bit 3j + c of an id is bit 7 - j of its channel c."""
    colours = np.zeros((256, 3), np.uint8)
    ids = np.arange(256)
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        colours[:, channel] |= (((ids >> bit) & 1) << place).astype(np.uint8)
    return colours.tobytes()
