"""What a run is: everything that decides its numbers, hashed to its id."""

import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from fss_bench.backbone import Backbone, WeightsInfo
from fss_bench.checkpoint import Checkpoint
from fss_bench.results import fingerprint
from fss_bench.setting import Setting
from fss_bench.weight_files import state_sha256

PRINTING = (
    "cli.py",
    "protocol_commands.py",
    "data_commands.py",
    "sbd.py",
    "mat_files.py",
    "image_checks.py",
    "report",
    "leaderboard.py",
    "leaderboard_command.py",
    "claims.py",
    "standing.py",
    "seed_spread.py",
    "files.py",
    "partial_run.py",
    "published.py",
    "comparability.py",
    "comparison.py",
    "sensitivity.py",
    "protocol_effects.py",
    "verification.py",
    "source.py",
    "sources",
    "transfer.py",
    "web_opener.py",
    "watchdog.py",
    "part_file.py",
    "file_checks.py",
    "downloading.py",
    "archives.py",
    "fetching.py",
    "fetch_command.py",
    "flags.py",
    "completion.py",
    "entry.py",
    "named_commands.py",
    "plugin_commands.py",
    "contract",
    "scaffold",
    "train_command.py",
    "pretrain_command.py",
    "profile_command.py",
    "predict_command.py",
    "prediction.py",
    "prediction_files.py",
    "own_pictures.py",
    "own_masks.py",
    "profiled.py",
    "profiling.py",
    "stage_clock.py",
    "training",
    "pretraining",
    "run_folder.py",
    "distributed.py",
    "interruption.py",
    "telling.py",
    "workers.py",
    "__main__.py",
)
"""Parts of this package that decide no number of a run."""
PLAIN = (bool, int, float, str, tuple, list, dict, type(None))


def describe_method(method: nn.Module, fold: int) -> dict[str, Any]:
    """The part of a fold's record that tells which method, backbone and weights it is about.

    A module made by hand counts as a method of its class's name, without options.
    """
    backbone, checkpoint = getattr(method, "backbone", None), getattr(method, "checkpoint", None)
    name, options, weights = "own", {}, WeightsInfo("own", state_sha256(method))
    if isinstance(backbone, Backbone):
        name, options, weights = backbone.name, backbone.options, backbone.weights
    return {
        "method": getattr(method, "registered_name", type(method).__name__),
        "method_options": dict(getattr(method, "options", {})),
        "backbone": name,
        "backbone_options": dict(options),
        "weights": asdict(weights),
        "checkpoint": checkpoint.record(fold) if isinstance(checkpoint, Checkpoint) else None,
    }


HOW = "dataset protocol precision cache_dtype failed_episodes device_type seed".split()
"""What of a record, beside the method, makes another run."""


def run_id(record: Mapping[str, Any], setting: Setting, method: nn.Module) -> str:
    """Twelve hex digits over the setting, its data, the method, its weights and the code.

    Batch size, workers and cache are no part of it: they change no number. Versions of libraries
    are in the record but not in the id.
    """
    return fingerprint(
        {k: record[k] for k in ("method", "method_options", "backbone", "weights", "checkpoint")},
        record["code_sha256"],
        {k: record[k] for k in HOW if k in record},
        (setting.fold, setting.ways, setting.shots, setting.sha256),
        state_sha256(method),
        _configuration(method),
        _file_sizes(setting),
    )[:12]


def code_sha256(*objects: object) -> str:
    """Hex sha256 over the source that decides numbers.

    Args:
        objects: method, backbone, dataset: the files of their classes and base classes are hashed,
            beside this package's.
    """
    package = Path(__file__).parent
    files = {f for f in package.rglob("*.py") if f.relative_to(package).parts[0] not in PRINTING}
    files.update(_class_files(cls for thing in objects for cls in type(thing).__mro__))
    digest = hashlib.sha256()
    for content in sorted(file.read_bytes() for file in files if file.is_file()):
        digest.update(content)
    return digest.hexdigest()


def _class_files(classes: Iterable[type]) -> Iterable[Path]:
    for cls in classes:
        try:
            yield Path(inspect.getfile(cls))
        except (OSError, TypeError):  # built in, or of an interactive session
            continue


def _configuration(method: nn.Module) -> str:
    """Hash of plain attributes and unsaved buffers of all modules: what a state dict leaves out."""
    plain = {
        f"{name}.{key}": re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # addresses differ a process
        for name, module in method.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_") and isinstance(value, PLAIN)
    }
    buffers = {name: repr(b.flatten()[:16].tolist()) for name, b in method.named_buffers()}
    return fingerprint(plain, buffers)


def _file_sizes(setting: Setting) -> dict[str, int]:
    """Bytes of every file that the episodes read, so that changed photographs are another run."""
    images = {image for spec in setting.specs for image in spec.images}
    files = {file for image in images for file in setting.dataset.files_of(image)}
    root = {str(f): f.stat().st_size for f in files if f.is_file()}
    return {"/".join(Path(name).parts[-2:]): size for name, size in sorted(root.items())}
