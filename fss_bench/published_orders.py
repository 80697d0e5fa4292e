"""Published episode orders, replayed exactly from the official lists.

The lists are their authors' and not ours to ship: they are read from `--split-lists DIR`, and their
content is checked against sha256 values.
"""

import gzip
import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import DatasetError, EpisodeError, one_line

LARGEST_LIST = 1 << 26
"""Bytes that a packed list may have; the official ones have 4 million."""
HSNET_LISTS = {
    ("pascal5i", 0): "e5a5304ef9637f540df50183f8f7295b437bff2f338b4bd1f2e1642221625d1a",
    ("pascal5i", 1): "8492297cd366d0537686972f9d70cce6fcdaa295d92701c62576688db1e6704f",
    ("pascal5i", 2): "fe757b590123e0b8321df7f27b33943747b3b3c5097819a24cee4aecc3ff65c4",
    ("pascal5i", 3): "db2413654034209249cb44d3a0106b99233410b1a1d63fad01b460ea7294468b",
    ("coco20i", 0): "c015336116dfa2480b3ed0f5c494d3018a1a9cb4b92a6db8297cefde9f279cad",
    ("coco20i", 1): "f191e54e3d9f0d4bf71b50c22fbcdc6b93259cf7dddf82da233423508a4925ac",
    ("coco20i", 2): "d95ef6af08629e86c31923f9b9320a4fdf7c960b0887173643abeee89e62d697",
    ("coco20i", 3): "ad014aed909014c6f380eaa17ee26d9f4cec2f132e4dce74622b053a5de5d5ff",
}
"""(dataset, fold) -> sha256 over the canonical JSON of the official test list."""


@dataclass(frozen=True)
class HSNetLists:
    """One fold's test list.

    Attributes:
        pairs: (image, class id) in file order; empty for COCO, whose queries are drawn by class.
        by_class: class id -> its images in file order.
    """

    pairs: Sequence[tuple[str, int]]
    by_class: Mapping[int, Sequence[str]]

    def restricted_to(self, images: Iterable[str]) -> "HSNetLists":
        """The lists without images that a tree does not have."""
        kept = set(images)
        by_class = {c: [i for i in found if i in kept] for c, found in self.by_class.items()}
        return HSNetLists([pair for pair in self.pairs if pair[0] in kept], by_class)


def hsnet_episodes(
    lists: HSNetLists,
    *,
    fold: int,
    shots: int,
    episodes: int,
    seed: int = 0,
    repeats: bool = True,
) -> list[EpisodeSpec]:
    """HSNet's test episodes: NumPy's legacy stream from seed 0, one episode after the other.

    PASCAL walks the pair list and draws supports; COCO draws class, query, then supports. A support
    is never the query but may repeat among the shots: that is part of the protocol. `choice`
    without replacement consumes a permutation of the whole list, so lengths and order of the lists
    matter.

    Args:
        lists: the fold's list.
        fold: copied into the specs.
        shots: supports an episode.
        episodes: how many.
        seed: of the stream.
        repeats: whether supports may repeat, as published; else they are drawn until they differ.

    Raises:
        EpisodeError: a class has too few images.
    """
    rng = np.random.RandomState(seed)
    least = 2 if repeats else shots + 1

    def choice(pool: Sequence[Any]) -> Any:
        return pool[int(rng.choice(len(pool), 1, replace=False)[0])]

    specs = []
    for i in range(episodes):
        if lists.pairs:
            query, class_id = lists.pairs[i % len(lists.pairs)]
        else:
            class_id = choice(sorted(lists.by_class))
            query = choice(_pool(lists, class_id, least))
        supports: list[str] = []
        pool = _pool(lists, class_id, least)
        while len(supports) < shots:
            support = choice(pool)
            if support != query and (repeats or support not in supports):
                supports.append(support)
        specs.append(EpisodeSpec(i, fold, (class_id,), query, (tuple(supports),)))
    return specs


def hsnet_digest(specs: Iterable[EpisodeSpec]) -> str:
    """Hex sha256 of lines `class0 query s1,s2,...`, classes from 0: the published form."""
    lines = (f"{s.classes[0] - 1} {s.query} {','.join(s.supports[0])}\n" for s in specs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_hsnet_lists(folder: Path, dataset: str, fold: int) -> HSNetLists:
    """The official test list of a fold.

    PASCAL: `pascal/val/fold<i>.txt`. COCO: `coco/val/fold<i>.pkl` as published, or the same as
    `coco_json/val_fold<i>.json.gz`.

    Raises:
        EpisodeError: a dataset without such lists.
        DatasetError: a file is missing, unreadable, or not the official one.
    """
    if (dataset, fold) not in HSNET_LISTS:
        raise EpisodeError(
            f"protocol hsnet has no list for {dataset} fold {fold}: it covers pascal5i and "
            "coco20i, folds 0 to 3"
        )
    names = (
        [f"pascal/val/fold{fold}.txt"]
        if dataset == "pascal5i"
        else [f"coco/val/fold{fold}.pkl", f"coco_json/val_fold{fold}.json.gz"]
    )
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise DatasetError(
            f"split list not found: looked for {' and '.join(str(folder / n) for n in names)}: "
            "pass the folder of HSNet's published lists with --split-lists"
        )
    lists = _read_pairs(file) if file.suffix == ".txt" else _read_by_class(file)
    digest = hashlib.sha256(
        json.dumps([lists.pairs, sorted(lists.by_class.items())]).encode()
    ).hexdigest()
    if digest != HSNET_LISTS[dataset, fold]:
        raise DatasetError(
            f"{file} is not the official list: its content has sha256 {digest[:16]}, expected "
            f"{HSNET_LISTS[dataset, fold][:16]}: fetch it again"
        )
    return lists


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers and strings; admits no class and no function."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not admitted")


def _read_pairs(file: Path) -> HSNetLists:
    pairs = []
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    for line in lines:
        found = re.fullmatch(r"(.+)__(\d{1,3})", line, re.ASCII)
        if not found:
            raise DatasetError(
                f"{file}: line {line[:40]!r} is not of the form image__class: fetch it again"
            )
        pairs.append((found[1], int(found[2])))
    by_class: dict[int, list[str]] = {}
    for image, number in pairs:
        by_class.setdefault(number, []).append(image)
    return HSNetLists(pairs, by_class)


def _read_by_class(file: Path) -> HSNetLists:
    try:
        raw = file.read_bytes()
        data = (
            _PlainUnpickler(io.BytesIO(raw)).load()
            if file.suffix == ".pkl"
            else json.loads(_unpacked(raw))
        )
        by_class = {
            int(str(class_id)) + 1: [Path(name).stem[-12:] for name in names]
            for class_id, names in data.items()
            if names
        }
    except Exception as error:  # damaged bytes raise anything, MemoryError and OverflowError too
        raise _unreadable(file, error) from error
    return HSNetLists([], by_class)


def _unpacked(raw: bytes) -> bytes:
    with gzip.open(io.BytesIO(raw)) as stream:
        content = stream.read(LARGEST_LIST + 1)
    if len(content) > LARGEST_LIST:
        raise ValueError(f"it unpacks to more than {LARGEST_LIST} bytes")
    return content


def _unreadable(file: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{file} cannot be read ({one_line(error)}): fetch it again")


def _pool(lists: HSNetLists, class_id: int, least: int) -> Sequence[str]:
    pool = lists.by_class.get(class_id, ())
    if len(set(pool)) < least:
        raise EpisodeError(
            f"class {class_id} has {len(pool)} listed images, an episode needs {least}: use a "
            "larger tree"
        )
    return pool
