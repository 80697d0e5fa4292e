"""What papers claim of a result that was measured here under the same protocol."""

import re
from collections.abc import Sequence

from fss_bench.leaderboard import Row, method_label
from fss_bench.published import PublishedRow

FAMILIES = {
    "vgg16": ("vgg16", "vgg16_bn_msanet", "vgg16_fcn32s", "vgg16_panet", "vgg16_sgone"),
    "resnet50": ("resnet50", "resnet50_deepstem"),
    "resnet101": ("resnet101", "resnet101_deepstem"),
    "swinb": ("swin_base_patch4_window12_384",),
}
"""As papers name a backbone, letters and digits alone -> the registered ones that may be meant."""


def claims(row: Row, published: Sequence[PublishedRow]) -> list[PublishedRow]:
    """The published rows of the same method, backbone, dataset, protocol, ways and shots.

    Of a part of a dataset, under a changed protocol, with options of the method's, or with other
    weights than ImageNet's or a checkpoint's nothing was published.
    """
    record = row.any_run.record
    usual = record["checkpoint"] is not None or record["weights"]["source"] == "imagenet"
    if not usual or method_label(record) != record["method"]:
        return []
    mine = (
        *(_plain(record["method"]), _family(record["backbone"])),
        *(record["dataset"]["name"], record["protocol"]["label"]),
        *(record["ways"], record["shots"]),
    )
    return [one for one in published if _key(one) == mine]


def _key(row: PublishedRow) -> tuple[str, str, str, str, int, int]:
    return (
        *(_plain(row.method), _plain(row.backbone)),
        *(row.dataset, row.protocol),
        *(row.ways, row.shots),
    )


def _plain(name: str) -> str:
    """Letters and digits alone: `SG-One` is `sgone`."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _family(name: str) -> str:
    """As papers name a registered backbone; others are only themselves."""
    return next((family for family, ours in FAMILIES.items() if name in ours), name)
