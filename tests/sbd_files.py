"""Annotations of SBD's form."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat
from scipy.sparse import csc_matrix


def write_mat(file: Path, labels: NDArray[np.uint8]) -> None:
    """A file of SBD's form: boundaries are a cell of 20 sparse maps, which nobody reads here."""
    boundaries = np.empty((20, 1), object)
    boundaries[:, 0] = [csc_matrix(labels.shape, dtype=float)] * 20
    present = np.setdiff1d(np.unique(labels), [0, 255]).astype(np.uint8)[:, None]
    struct = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": present}
    savemat(file, {"GTcls": struct}, do_compression=True)
