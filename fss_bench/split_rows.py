"""Rows of the index: one an (image, class), read from the cached table a split at a time."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fss_bench.errors import DatasetError, one_line

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("split", "image", "height", "width", "class_id", "pixels", "digest")
CODES = ("code_start", "code_bytes")
"""Columns with the place of a mask's run-length code; 0 bytes where the dataset keeps none."""
NUMBERS = ("height", "width", "class_id", "pixels", *CODES)


class SplitRows:
    """Rows of one split: `image` and `NUMBERS`."""

    def __init__(self, rows: "pd.DataFrame") -> None:
        self._rows = rows

    @property
    def there(self) -> "pd.DataFrame":
        """Rows with any pixel."""
        return self._rows[self._rows["pixels"] > 0]

    @cached_property
    def places(self) -> dict[str, int]:
        """Image -> its place among the split's images."""
        names = self._rows["image"].iloc[self._bounds[:-1]].tolist()
        return {name: place for place, name in enumerate(names)}

    def size(self, image: str) -> tuple[int, int]:
        """Height and width."""
        row = self._bounds[self.places[image]]
        return int(self._numbers["height"][row]), int(self._numbers["width"][row])

    def code_place(self, image: str, class_id: int) -> tuple[int, int] | None:
        """Where the code of a class's mask starts and its bytes; None where there is none."""
        classes, start, size = (self._numbers[name] for name in ("class_id", *CODES))
        place = self.places[image]
        for row in range(self._bounds[place], self._bounds[place + 1]):
            if classes[row] == class_id and size[row]:
                return int(start[row]), int(size[row])
        return None

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """The first row of every image, whose rows stand together, and the end."""
        images = self._rows["image"]
        firsts = np.flatnonzero((images != images.shift()).to_numpy())
        return np.append(firsts, len(images))

    @cached_property
    def _numbers(self) -> dict[str, NDArray[np.integer[Any]]]:
        return {name: self._rows[name].to_numpy() for name in self._rows if name in NUMBERS}


def read_rows(file: Path, split: str | None = None) -> "pd.DataFrame":
    """All of a cached table; or `image` and `NUMBERS` of one split's rows.

    Raises:
        DatasetError: gone, or damaged.
    """
    import pandas as pd
    from pyarrow.lib import ArrowException

    try:
        if split is None:
            columns, filters = [*COLUMNS, *CODES], None
        else:
            columns, filters = ["image", *NUMBERS], [("split", "==", split)]
        return pd.read_parquet(
            file, columns=columns, filters=filters, page_checksum_verification=True
        )
    except (OSError, ValueError, ArrowException) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> DatasetError:
    """A cached file that was there when the index was opened."""
    return DatasetError(
        f"cannot read {file} ({one_line(error)}): remove what is left of it and run the command "
        "again, which builds the index anew"
    )
