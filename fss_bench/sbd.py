"""Stands in for the conversion of SBD until that is here."""

from collections.abc import Callable
from pathlib import Path


def convert(
    sbd: Path, voc: Path, output: Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write SBD's and VOC's label maps as PNGs into a folder."""
    raise NotImplementedError
