"""What a run is: everything that decides its numbers, hashed to its id."""

import hashlib
import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from fss_bench.backbone import Backbone, WeightsInfo
from fss_bench.results import fingerprint
from fss_bench.setting import Setting
from fss_bench.weights import state_sha256


def describe_method(method: nn.Module) -> dict[str, Any]:
    """The part of a run's record that tells which method, backbone and weights it is about.

    A module made by hand counts as a method of its class's name, without options.
    """
    backbone = getattr(method, "backbone", None)
    name, weights = "own", WeightsInfo("own", state_sha256(method))
    if isinstance(backbone, Backbone):
        name, weights = backbone.name, backbone.weights
    return {
        "method": getattr(method, "registered_name", type(method).__name__),
        "method_options": dict(getattr(method, "options", {})),
        "backbone": name,
        "weights": asdict(weights),
        "checkpoint": None,
    }


def run_id(record: Mapping[str, Any], setting: Setting, method: nn.Module, precision: str) -> str:
    """Twelve hex digits over the setting, the method, its weights and the code.

    Batch size, workers, cache and the number of machines are no part of it: they change no number.
    """
    device = next((p.device.type for p in method.parameters()), "cpu")
    return fingerprint(
        {k: record[k] for k in ("method", "method_options", "backbone", "weights")},
        state_sha256(method),
        setting.dataset.identity,
        asdict(setting.protocol),
        (setting.fold, setting.ways, setting.shots, setting.seed, setting.sha256),
        (precision, device),
        code_sha256(type(method)),  # type: ignore[arg-type]
    )[:12]


@lru_cache
def code_sha256(cls: type) -> str:
    """Hex sha256 over this package's source and the file that defines a class."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    with suppress(OSError, TypeError):  # a class of an interactive session has no file
        files.append(Path(inspect.getfile(cls)))
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()
