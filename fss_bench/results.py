"""Runs on disk: `run.json` and `episodes.parquet` in a folder a run, written as a whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from fss_bench.errors import ResultsError, one_line, shorten
from fss_bench.files import sync_names, write_text, write_whole
from fss_bench.partial_run import PartialRun
from fss_bench.recount import check_metrics

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
REQUIRED = frozenset(
    "run_id method method_options backbone backbone_options weights checkpoint dataset protocol "
    "fold ways shots seed precision device_type code_sha256 episodes episodes_sha256 cost "
    "finished".split()
)
"""Fields of run.json that the leaderboard reads."""
PARTS = {
    "dataset": ("name", "fingerprint", "folds", "classes_sha256"),
    "protocol": ("name", "label", "empty_class"),
    "weights": ("source",),
    "cost": ("params_m", "gflops_per_episode", "ms_per_episode", "peak_mb"),
}
"""What it reads of its objects."""
WHOLE = ("fold", "ways", "shots", "seed", "episodes", "dataset.folds")
"""What of it are whole numbers."""
NAMES = "run_id method backbone precision device_type code_sha256 episodes_sha256 finished".split()
NAMES += ["dataset.name", "protocol.label", "weights.source"]
"""What of it are names."""
COUNTED = frozenset(
    "index class_ids inter_fg union_fg inter_bg union_bg inter_ways union_ways "
    "inter_ways_255bg union_ways_255bg".split()
)
"""Columns of episodes.parquet that metrics are computed from."""


MOST_EPISODES = 10_000_000
"""Of a run that is read; published ones have 20,000 at most."""
DAMAGED = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, MemoryError),  # nested too deep; of an unknown kind or absurd length
)
"""What reading a damaged run raises."""


@dataclass(frozen=True)
class ClassScore:
    """One class: IoU in [0, 1] (None without a pixel), pooled pixel counts, number of episodes."""

    class_id: int
    iou: float | None
    inter: int
    union: int
    episodes: int


@dataclass(frozen=True)
class Metrics:
    """Scores of one run, fractions in [0, 1].

    `miou_runs` holds the mIoU of each repetition that the protocol asks for; `miou` is their mean.
    """

    miou: float
    miou_ci95: tuple[float, float]
    fb_iou: float
    miou_255_as_background: float
    per_class: dict[str, ClassScore]
    miou_runs: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Metrics":
        """Read the `metrics` object of a run.json."""
        scores = {name: ClassScore(**score) for name, score in data["per_class"].items()}
        low, high = data["miou_ci95"]
        runs = tuple(data.get("miou_runs", ()))
        return cls(**{**data, "miou_ci95": (low, high), "per_class": scores, "miou_runs": runs})


@dataclass(frozen=True)
class Run:
    """One method on one setting.

    Attributes:
        record: everything in run.json except the metrics (the format: docs/results.md).
        metrics: scores computed from `episodes`.
        episodes: one row an episode.
        path: its folder, or None if it was not stored.
    """

    record: dict[str, Any]
    metrics: Metrics
    episodes: "pd.DataFrame"
    path: Path | None = None

    @property
    def has_predictions(self) -> bool:
        """Whether its predictions were kept."""
        return self.path is not None and (self.path / "predictions").is_dir()

    def to_json(self) -> dict[str, Any]:
        """The content of run.json."""
        head = dict(self.record)
        tail = {key: head.pop(key) for key in ("cost", "environment", "started", "finished")}
        return {**head, "metrics": asdict(self.metrics), **tail}


def fingerprint(*parts: object) -> str:
    """Hex sha256 over the canonical JSON of the parts."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class ResultStore:
    """A results folder: finished runs under `runs/`, unfinished work under `.partial/`.

    Raises:
        ResultsError: the folder cannot be created or read.
    """

    def __init__(self, root: Path | str = "results") -> None:
        self.root = Path(root)

    def check_writable(self) -> None:
        """Fail now rather than after an hour of work.

        Raises:
            ResultsError: nothing can be written here.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise self._cannot_write(error) from error

    def folder(self, record: Mapping[str, Any]) -> Path:
        """Where a run of this record belongs."""
        leaf = f"{record['method']}-{record['backbone']}-{record['run_id']}".replace("/", "_")
        setting = f"{record['ways']}way-{record['shots']}shot"
        return self.root.joinpath(
            "runs",
            record["dataset"]["name"],
            record["protocol"]["label"],
            setting,
            f"fold{record['fold']}",
            leaf,
        )

    def find(self, record: Mapping[str, Any]) -> Run | None:
        """The finished run with this identity, if there is one."""
        folder = self.folder(record)
        return self.load(folder) if (folder / "run.json").is_file() else None

    def partial(self, run_id: str) -> PartialRun:
        """Unfinished work of a run."""
        return PartialRun(self.root / ".partial" / run_id)

    def write(self, run: Run, predictions: Path | None = None) -> Run:
        """Store a finished run: written beside its place, then moved there in one step.

        Args:
            run: the run.
            predictions: a folder of PNGs to move into the run.

        Raises:
            ResultsError: nothing was stored (no space, no permission).
        """
        folder = self.folder(run.record)
        fresh = self._fresh(run.record)
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            write_whole(
                fresh / "episodes.parquet",
                lambda stream: run.episodes.to_parquet(
                    stream, index=False, write_page_checksum=True
                ),
            )
            write_text(fresh / "run.json", json.dumps(run.to_json(), indent=2) + "\n")
            folder.parent.mkdir(parents=True, exist_ok=True)
            if predictions is not None:  # last: after a failure the next attempt needs them
                shutil.move(predictions, fresh / "predictions")
            _put(fresh, folder)
        except OSError as error:
            with suppress(OSError):
                if predictions is not None and not predictions.exists():
                    (fresh / "predictions").rename(predictions)
                self.recover(run.record)
            raise self._cannot_write(error) from error
        return Run(run.record, run.metrics, run.episodes, folder)

    def recover(self, record: Mapping[str, Any]) -> None:
        """Undo a `write` that was interrupted: the run that was there, and predictions, go back.

        Nothing else of it is left.
        Only while no other process works on this run (`partial` as a context).
        """
        fresh, folder = self._fresh(record), self.folder(record)
        old, partial = fresh.with_suffix(".old"), self.partial(record["run_id"])
        if old.is_dir() and not folder.exists():
            old.rename(folder)
        made = fresh / "predictions"
        if made.is_dir() and partial.folder.is_dir() and not partial.predictions.exists():
            made.rename(partial.predictions)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)  # its successor is in its place

    def _fresh(self, record: Mapping[str, Any]) -> Path:
        """Where a run is written before it is moved to its place."""
        return self.root / ".partial" / f"{record['run_id']}.new"

    @contextmanager
    def updating(self, name: str) -> Iterator[Path]:
        """A file of this folder that several processes write in turn: read and write it here.

        Raises:
            ResultsError: nothing can be written here.
        """
        file = self.root / name
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f".{name}.lock"):
                for left in self.root.glob(f".{name}.*.tmp"):  # of processes that were killed
                    left.unlink(missing_ok=True)
                yield file
        except OSError as error:
            raise self._cannot_write(error) from error

    def runs(self, skipped: Callable[[str], None] | None = None) -> Iterator[Run]:
        """All finished runs, in the order of their paths.

        Args:
            skipped: told about each run that cannot be read; by default such a run raises.

        Raises:
            ResultsError: a run cannot be read.
        """
        for file in sorted((self.root / "runs").rglob("run.json")):
            try:
                yield self.load(file.parent)
            except ResultsError as error:
                if skipped is None:
                    raise
                skipped(str(error))

    def load(self, folder: Path) -> Run:
        """Read one run.

        Raises:
            ResultsError: a file is missing, damaged or of another schema version.
        """
        import pandas as pd
        from pyarrow.lib import ArrowException

        try:
            data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            _check_rows(folder / "episodes.parquet", data["episodes"])
            episodes = pd.read_parquet(folder / "episodes.parquet", page_checksum_verification=True)
            _check_content(data, episodes)
            return Run(data, Metrics.from_dict(data.pop("metrics")), episodes, folder)
        except (*DAMAGED, ArrowException) as error:
            raise ResultsError(
                f"run {folder} cannot be read ({one_line(error)}): delete its folder"
            ) from error

    def _cannot_write(self, error: OSError) -> ResultsError:
        return ResultsError(
            f"cannot write to {self.root} ({one_line(error)}): free space, mend its permissions or "
            "choose another --output"
        )


def _put(fresh: Path, folder: Path) -> None:
    """Move a folder to its place, where another one may be; what stops it, `recover` undoes."""
    old = fresh.with_suffix(".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    sync_names(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _check_rows(table: Path, episodes: int) -> None:
    """Raise ValueError unless a table has its rows; asked before they are unpacked."""
    from pyarrow.parquet import read_metadata

    rows = read_metadata(table).num_rows
    if rows != episodes or rows > MOST_EPISODES:
        raise ValueError(f"its table has {rows} rows for {episodes} episodes")


def _check_content(data: Mapping[str, Any], episodes: "pd.DataFrame") -> None:
    """Raise ValueError unless a run holds all that is read from it later."""
    if data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {data['schema_version']} is not {SCHEMA_VERSION}")
    missing = [*sorted(REQUIRED - data.keys()), *sorted(COUNTED - set(episodes.columns))]
    for part, fields in PARTS.items():
        if part not in missing:
            if not isinstance(data[part], Mapping):
                raise ValueError(f"its {part} is no object")
            missing += [f"{part}.{name}" for name in fields if name not in data[part]]
    if missing:
        raise ValueError(f"it lacks {shorten(missing)}")
    wrong = [name for name in WHOLE if type(_field(data, name)) is not int]
    wrong += [name for name in NAMES if not isinstance(_field(data, name), str)]
    wrong += [f"cost.{name}" for name in PARTS["cost"] if not isfinite(float(data["cost"][name]))]
    if wrong:
        raise ValueError(f"{shorten(wrong)} cannot be what it says")
    check_metrics(data, episodes)


def _field(data: Mapping[str, Any], name: str) -> Any:
    part, _, field = name.rpartition(".")
    return data[part][field] if part else data[field]
