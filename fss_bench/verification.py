"""`data verify`: everything that is wrong with a dataset, in one pass."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fss_bench.dataset import SPLITS, SegDataset
from fss_bench.image_lists import Finding


@dataclass(frozen=True)
class Problem:
    """One thing to mend, or only worth telling; the text says what and how.

    Attributes:
        split: where it was met first.
        image: the image; empty if it is about a list or a file of annotations.
        text: one line.
        grave: whether it must be mended.
    """

    split: str
    image: str
    text: str
    grave: bool = True


def verify(
    dataset: SegDataset, progress: Callable[[int, int], None] | None = None
) -> Iterator[Problem]:
    """All faults of lists, annotation files, images and masks, each told once.

    Args:
        dataset: the data; its index is not needed.
        progress: called with images done and in all.
    """
    splits: dict[str, str] = {}  # image -> split; one that serves both is checked once
    told: set[Finding] = set()  # so is a list that both splits need
    for split in SPLITS:
        listing = dataset.listing(split)
        splits |= {image: split for image in listing.images if image not in splits}
        fresh = [finding for finding in listing.findings if finding not in told]
        told.update(fresh)
        yield from (_problem(split, "", finding) for finding in fresh)

    def check(image: str) -> list[Problem]:
        return [_problem(splits[image], image, found) for found in dataset.problems(image)]

    with ThreadPoolExecutor() as pool:
        for done, found in enumerate(pool.map(check, splits), start=1):
            yield from found
            if progress:
                progress(done, len(splits))


def _problem(split: str, image: str, finding: Finding) -> Problem:
    return Problem(split, image, finding.text, finding.grave)
