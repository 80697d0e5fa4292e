"""The scripts of `benchmarks/` as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load_study(name: str) -> ModuleType:
    """A script by its name; scripts find each other, as when one of them is run."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)
