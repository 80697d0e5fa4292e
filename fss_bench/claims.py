"""What papers claim of a result that was measured here under the same protocol."""

import re
from collections.abc import Sequence

from fss_bench.leaderboard import Row
from fss_bench.published import PublishedRow

FAMILIES = {
    "vgg16": "vgg16",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "swinb": "swinb",  # swin_base_…, Swin-B
}
"""How the name of a backbone begins, letters and digits alone -> one name for it."""


def claims(row: Row, published: Sequence[PublishedRow]) -> list[PublishedRow]:
    """The published rows of the same method, backbone, dataset, protocol, ways and shots.

    Of a part of a dataset, or under a changed protocol, nothing was published.
    """
    record = row.any_run.record
    mine = (
        *(_plain(record["method"]), _family(record["backbone"])),
        *(record["dataset"]["name"], record["protocol"]["label"]),
        *(record["ways"], record["shots"]),
    )
    return [one for one in published if _key(one) == mine]


def _key(row: PublishedRow) -> tuple[str, str, str, str, int, int]:
    return (
        *(_plain(row.method), _family(row.backbone)),
        *(row.dataset, row.protocol),
        *(row.ways, row.shots),
    )


def _plain(name: str) -> str:
    """Letters and digits alone: `SG-One` is `sgone`."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _family(name: str) -> str:
    """One name for a backbone, however it is spelt: `vgg16_panet` is a `VGG16`."""
    plain = _plain(name).replace("swinbase", "swinb")
    return next((one for start, one in FAMILIES.items() if plain.startswith(start)), plain)
