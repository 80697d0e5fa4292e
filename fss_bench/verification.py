"""`data verify`: everything that is wrong with a dataset, in one pass."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fss_bench.dataset import SPLITS, SegDataset
from fss_bench.errors import DatasetError


@dataclass(frozen=True)
class Problem:
    """One thing to mend; the text says what and how."""

    split: str
    image: str
    text: str


def verify(
    dataset: SegDataset, progress: Callable[[int, int], None] | None = None
) -> Iterator[Problem]:
    """Missing files, unreadable images and masks, masks of another size, class ids out of range.

    Args:
        dataset: the data; its index is not needed.
        progress: called with images done and in all.
    """
    splits: dict[str, str] = {}  # image -> split; one that serves both is checked once
    for split in SPLITS:
        try:
            splits |= {i: split for i in dataset.list_images(split) if i not in splits}
        except DatasetError as error:
            yield Problem(split, "", str(error))

    def check(image: str) -> list[Problem]:
        return [Problem(splits[image], image, text) for text in dataset.problems(image)]

    with ThreadPoolExecutor() as pool:
        for done, found in enumerate(pool.map(check, splits), start=1):
            yield from found
            if progress:
                progress(done, len(splits))
