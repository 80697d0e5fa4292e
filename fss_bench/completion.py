"""What Tab offers: registered names. Needs no torch, and runs no plug-in."""

from collections.abc import Iterable


def method_names(incomplete: str) -> list[str]:
    """Methods that go on with what is typed, behind the last comma."""
    from fss_bench.registry import methods

    return _after_comma(incomplete, methods.names())


def dataset_names(incomplete: str) -> list[str]:
    """Datasets that go on with what is typed."""
    from fss_bench.registry import datasets

    return _after_comma(incomplete, datasets.names())


def backbone_names(incomplete: str) -> list[str]:
    """Registered backbones that go on with what is typed; timm's thousand are left out."""
    from fss_bench.registry import backbones

    return _after_comma(incomplete, backbones.names())


def protocol_names(incomplete: str) -> list[str]:
    """Protocols that go on with what is typed, behind the last comma."""
    from fss_bench.protocols import SUMMARIES

    return _after_comma(incomplete, SUMMARIES)


def things_to_fetch(incomplete: str) -> list[str]:
    """What `data fetch` fetches."""
    from fss_bench.sources import DATASETS, WEIGHTS

    return _after_comma(incomplete, (*DATASETS, "weights", *WEIGHTS))


def kinds(incomplete: str) -> list[str]:
    """What `list` lists."""
    return _after_comma(incomplete, ("methods", "datasets", "backbones", "protocols"))


def _after_comma(incomplete: str, names: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]
