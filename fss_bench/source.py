"""What is known of a published file: where it is, how large, its hashes, where it goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceFile:
    """A published file.

    Attributes:
        name: of the file, here and on a mirror.
        url: where its publisher has it.
        page: what to read when that is gone.
        terms: of use, in a word.
        size: bytes; None where nobody states it.
        hashes: algorithm (`sha256`, `md5`) -> hex digits; the first of them where no more are
            published.
        known_from: who states size and hashes.
        lands: path in the data root of a file that is used as it is; "" for an archive, and for
            weights, which are named by their own name.
        unpack: path in the archive -> path in the data root; "." are the folders of the root.
        listed_in: lists in the data root of the folders that "." stands for.
    """

    name: str
    url: str
    page: str
    terms: str
    size: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    known_from: str = ""
    lands: str = ""
    unpack: Mapping[str, str] = field(default_factory=dict)
    listed_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a user names: a dataset, or weights.

    Attributes:
        name: of it.
        title: what it is.
        folder: the data root when none is given.
        files: in the order in which they are fetched.
        dataset: registered name; "" for weights.
        backbone: that the weights are for; "" for a dataset.
    """

    name: str
    title: str
    folder: str
    files: tuple[SourceFile, ...]
    dataset: str = ""
    backbone: str = ""
