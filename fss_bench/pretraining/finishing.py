"""The end of a run: weights, then the plot, then the record that says it is finished.

A run that is killed in between is not finished: the next one writes all three anew.
"""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from torch import Tensor

from fss_bench.pretraining.curves import curves_png, figures_of
from fss_bench.pretraining.objective import Objective
from fss_bench.pretraining.preparation import Job
from fss_bench.pretraining.state import Folder


def write_results(folder: Folder, job: Job, objective: Objective, started: datetime) -> Any:
    """Write what a run that took its last step gives.

    Args:
        folder: takes the files; its log is read.
        job: the run.
        objective: what was trained.
        started: when.

    Returns:
        The content of pretrain.json.

    Raises:
        ResultsError: they cannot be written, or the log lacks its lines.
    """
    folder.write_weights(trunks_of(objective), job.about_weights())
    entries = folder.entries()
    figures = figures_of(entries, folder.log)
    folder.write_curves(curves_png(entries, job.title))
    record = {**job.record(started), "figures": figures}
    record["environment"] |= {"lightly": version("lightly")}
    record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    folder.write_record(record)
    return record


def trunks_of(objective: Objective) -> dict[str, Tensor]:
    """What weights.safetensors holds."""
    encoders = {"query": objective.encoder, "momentum": objective.momentum_encoder}
    return {
        f"{prefix}.{name}": tensor
        for prefix, encoder in encoders.items()
        if encoder is not None
        for name, tensor in encoder.trunk.state_dict().items()
    }
