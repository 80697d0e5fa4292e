"""The log of a run for TensorBoard."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fss_bench.errors import FssBenchError


def check_board() -> None:
    """Raise FssBenchError where tensorboard is not installed."""
    if find_spec("tensorboard") is None:
        raise FssBenchError(
            "--tensorboard needs tensorboard, which is not installed: pip install "
            "'fss-bench[tensorboard]'"
        )


class Board:
    """Writes the numbers of log lines as curves.

    Args:
        folder: where its files go.
        step: that the run goes on from; what was written of later ones is hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter  # it has no types
        self._writer = writer(str(folder), purge_step=step + 1)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write a line of the log."""
        for name, value in entry.items():
            if name not in ("kind", "step", "seconds"):
                self._writer.add_scalar(f"{entry['kind']}/{name}", value, entry["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
