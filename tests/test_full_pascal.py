"""The episode lists of the whole of PASCAL-5i: the digests that docs/episode-digests.csv publishes.

Label maps are all that episodes need, so the photographs may be empty files.
"""

import csv
import zipfile
from pathlib import Path

import pytest

from fss_bench.dataset import SegDataset, create_dataset
from fss_bench.protocols import PROTOCOLS
from fss_bench.setting import create_setting

PAGE = Path(__file__).parents[1] / "docs" / "episode-digests.csv"


@pytest.fixture(scope="module")
def pascal(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> SegDataset:
    root = tmp_path_factory.mktemp("full-pascal")
    with zipfile.ZipFile(shared / "data" / "voc_aug_masks.zip") as archive:
        archive.extractall(root)
    val = (shared / "lists" / "pfenet" / "val.txt").read_text().splitlines()
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(Path(line.split()[0]).stem for line in val) + "\n")
    (root / "JPEGImages").mkdir()
    for mask in (root / "SegmentationClassAug").glob("*.png"):
        (root / "JPEGImages" / f"{mask.stem}.jpg").touch()
    return create_dataset("pascal5i", root)


def rows(dataset: SegDataset, split_lists: Path) -> list[list[str]]:
    """Protocol, fold, shots, number of episodes, digest."""
    found = []
    for name in PROTOCOLS:
        for fold in range(4):
            for shots in (1, 5):
                setting = create_setting(
                    dataset, name, fold=fold, shots=shots, split_lists=split_lists
                )
                found.append([name, str(fold), str(shots), str(len(setting.specs)), setting.sha256])
    return found


@pytest.mark.slow
def test_published_digests(pascal: SegDataset, shared: Path) -> None:
    assert pascal.identity == "pascal5i"
    with PAGE.open(encoding="utf-8", newline="") as file:
        header, *published = csv.reader(file)
    assert header == ["protocol", "fold", "shots", "episodes", "sha256"]
    assert published == rows(pascal, shared / "lists" / "hsnet")
