"""Runs on disk: `run.json` and `episodes.parquet` in a folder a run, written as a whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from fss_bench.errors import ResultsError, one_line, shorten

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
}
"""What it reads of its objects."""
COUNTED = frozenset(
    "index class_ids inter_fg union_fg inter_bg union_bg inter_ways union_ways".split()
)
"""Columns of episodes.parquet that metrics are computed from."""


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

    def partial(self, run_id: str) -> "PartialRun":
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
        fresh = self.root / ".partial" / f"{run.record['run_id']}.new"
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            run.episodes.to_parquet(fresh / "episodes.parquet", index=False)
            write_text(fresh / "run.json", json.dumps(run.to_json(), indent=2) + "\n")
            folder.parent.mkdir(parents=True, exist_ok=True)
            if predictions is not None:  # last: after a failure the next attempt needs them
                shutil.move(predictions, fresh / "predictions")
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        except OSError as error:
            raise self._cannot_write(error) from error
        return Run(run.record, run.metrics, run.episodes, folder)

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

        try:
            data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            episodes = pd.read_parquet(folder / "episodes.parquet")
            _check_content(data, episodes)
            return Run(data, Metrics.from_dict(data.pop("metrics")), episodes, folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(
                f"run {folder} cannot be read ({one_line(error)}): delete its folder"
            ) from error

    def _cannot_write(self, error: OSError) -> ResultsError:
        return ResultsError(
            f"cannot write to {self.root} ({one_line(error)}): free space, mend its permissions or "
            "choose another --output"
        )


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
    if len(episodes) != data["episodes"]:
        raise ValueError(f"it has {len(episodes)} of its {data['episodes']} episodes")


class PartialRun:
    """Episode records of a run that is not finished, appended as they come.

    Used as a context, which holds a lock: two processes never work on the same run.

    Args:
        folder: where they are kept; removed by `discard`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.predictions = folder / "predictions"
        self._journal = folder / "episodes.jsonl"
        self._lock = FileLock(folder.with_suffix(".lock"))

    def __enter__(self) -> "PartialRun":
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ResultsError(
                f"another process is working on run {self.folder.name}: wait for it to end"
            ) from None
        except OSError as error:
            raise ResultsError(
                f"cannot write to {self.folder.parent} ({one_line(error)})"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def rows(self, with_predictions: bool = False) -> list[dict[str, Any]]:
        """Whole records written so far; a last line that was cut off is dropped from the file.

        Args:
            with_predictions: return nothing unless every record has its prediction.
        """
        if not self._journal.is_file():
            return []
        text = self._journal.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            write_text(self._journal, whole)
        try:
            rows = [json.loads(line) for line in whole.splitlines()]
        except ValueError:  # damaged, as after a power cut: start over
            return []
        if with_predictions and any(
            not (self.predictions / f"{row['index']}.png").is_file() for row in rows
        ):
            return []
        return rows

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Add records; the system has them when this returns.

        Raises:
            ResultsError: they could not be written.
        """
        text = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise ResultsError(
                f"cannot write to {self.folder} ({one_line(error)}): free space, then run the same "
                "command again, which goes on from here"
            ) from error

    def discard(self) -> None:
        """Remove all of it but the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    write_whole(path, text.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
