"""`evaluate`: the one loop that all numbers come from."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fss_bench import cost
from fss_bench.checkpoint import Checkpoint, check_use
from fss_bench.compute import Compute
from fss_bench.dataset import SegDataset
from fss_bench.encoding import ImageStore
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError, ResultsError, one_line
from fss_bench.identity import code_sha256, describe_method, run_id
from fss_bench.images import write_png
from fss_bench.loading import EpisodeLoader, Step, StepData, load_steps, plan_steps
from fss_bench.method import input_size_of
from fss_bench.metrics import TWIN, compute_metrics, confusion, episode_counts
from fss_bench.ops import resize_logits
from fss_bench.protocols import EvaluationProtocol
from fss_bench.results import SCHEMA_VERSION, PartialRun, ResultStore, Run, fingerprint
from fss_bench.setting import Setting, create_setting

Progress = Callable[[int, int, float], None]
"""Called after every step with episodes done, episodes in all, and the running mIoU."""
Row = dict[str, Any]


def evaluate(
    method: nn.Module,
    dataset: SegDataset,
    protocol: str | EvaluationProtocol = "standard",
    *,
    fold: int = 0,
    ways: int = 1,
    shots: int = 1,
    episodes: int | None = None,
    seed: int = 0,
    rules: Mapping[str, Any] | None = None,
    split_lists: Path | None = None,
    compute: Compute | None = None,
    store: ResultStore | None = None,
    resume: bool = True,
    save_predictions: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Draw episodes, segment, score.

    Args:
        method: a `Method`, or any module with `forward(support_images [B, N, K, 3, H, W],
            support_masks [B, N, K, H, W], query_images [B, 3, H, W]) -> logits [B, 1 + N, h, w]`.
        dataset: the data.
        protocol: name, or a protocol of your own.
        fold, ways, shots, episodes, seed, rules, split_lists: see `create_setting`.
        compute: how to run.
        store: where to keep the run; by default it is only returned.
        resume: take up an unfinished run, and return a finished one, of the same identity.
        save_predictions: keep a PNG an episode in the run (needs a store).
        progress: called after every step.

    Raises:
        FssBenchError: a mistake the user can mend; nothing half-written is left among the runs.
    """
    setting = create_setting(
        dataset,
        protocol,
        fold=fold,
        ways=ways,
        shots=shots,
        episodes=episodes,
        seed=seed,
        rules=rules,
        split_lists=split_lists,
    )
    evaluation = Evaluation(method, setting, compute or Compute(), progress)
    if store is None:
        return evaluation.run()
    return evaluation.run_in(store, resume, save_predictions)


class Evaluation:
    """One run in the making.

    Args:
        method: the module; moved to the device and set to eval mode.
        setting: what it is evaluated on.
        compute: how to run.
        progress: called after every step.

    Raises:
        FssBenchError: no such device or precision, a batch size below 1, or a checkpoint that must
            not be evaluated on this setting.
    """

    def __init__(
        self,
        method: nn.Module,
        setting: Setting,
        compute: Compute,
        progress: Progress | None = None,
    ) -> None:
        checkpoint = getattr(method, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint):  # a stranger's attribute may have that name
            check_use(checkpoint, setting)
        self.setting, self.compute, self.progress = setting, compute, progress
        self.device = compute.torch_device()
        self.dtype = compute.dtype()
        self.method = method.to(self.device).eval()
        self.started = datetime.now(UTC)
        self.record = self._identify()

    def run(self) -> Run:
        """Evaluate in memory."""
        return self._finish(self._segment([], None, None))

    def run_in(self, store: ResultStore, resume: bool, save_predictions: bool) -> Run:
        """Evaluate what the store does not have yet, and keep it there."""
        store.check_writable()
        with store.partial(self.record["run_id"]) as partial:
            found = store.find(self.record) if resume else None
            if found and (found.has_predictions or not save_predictions):
                return found
            rows = partial.rows(with_predictions=save_predictions) if resume else []
            if not rows:
                partial.discard()
            predictions = partial.predictions if save_predictions else None
            run = self._finish(self._segment(rows, partial, predictions))
            stored = store.write(run, predictions)
            partial.discard()
        return stored

    def _segment(
        self, rows: list[Row], partial: PartialRun | None, predictions: Path | None
    ) -> list[Row]:
        """Rows of all episodes: those given, and the missing ones as they are segmented."""
        self.gflops = self._count_gflops()  # before the work: a method may fail here
        done = {row["index"] for row in rows}
        specs = [spec for spec in self.setting.specs if spec.index not in done]
        rows, running = list(rows), _RunningMean()
        running.add(rows)
        with torch.no_grad(), self._autocast():
            for step, data in self._steps(specs):
                fresh = self._step(step, data, predictions)
                if partial is not None:
                    partial.append(fresh)
                rows += fresh
                running.add(fresh)
                if self.progress:
                    self.progress(len(rows), len(self.setting.specs), running.miou)
        return rows

    def _steps(self, specs: Sequence[EpisodeSpec]) -> Iterator[tuple[Step, StepData]]:
        self.images = ImageStore(self.method, self.device)
        size = input_size_of(self.method)
        room = self.compute.cache_bytes(self.device) // self.images.bytes_per_image(size)
        steps = plan_steps(specs, self.compute.batch_size, capacity=room)
        loader = EpisodeLoader(self.setting.dataset, self.setting.protocol, steps, size)
        return load_steps(loader, self.compute.workers)

    def _step(self, step: Step, data: StepData, predictions: Path | None) -> list[Row]:
        start = time.perf_counter()
        self.images.add(data.images)
        logits = self.images.logits(step.specs, data.support_masks).float()
        _check_logits(logits, step.specs)
        guesses = [
            resize_logits(one[None], (mask.shape[-2], mask.shape[-1]))[0].argmax(dim=0)
            for one, mask in zip(logits, data.query_masks, strict=True)
        ]
        labels = [guess.to("cpu", torch.uint8).numpy() for guess in guesses]
        self.images.forget(step.evict)
        milliseconds = (time.perf_counter() - start) * 1000 / len(step.specs)
        if predictions is not None:
            _save(predictions, step.specs, labels)
        return [
            self._row(spec, label, mask.numpy(), milliseconds)
            for spec, label, mask in zip(step.specs, labels, data.query_masks, strict=True)
        ]

    def _row(
        self,
        spec: EpisodeSpec,
        prediction: NDArray[np.uint8],
        target: NDArray[np.uint8],
        milliseconds: float,
    ) -> Row:
        matrix = confusion(prediction, target, self.setting.ways)
        as_background = episode_counts(matrix, ignore_as_background=True)
        counts = as_background
        if self.setting.protocol.query_ignore == "excluded":
            counts = episode_counts(matrix)
        return {
            "index": spec.index,
            "class_ids": list(spec.classes),
            "query": spec.query,
            "supports": [list(way) for way in spec.supports],
            **counts.columns(),
            **as_background.columns(TWIN),
            "iou_fg": counts.inter_fg / counts.union_fg if counts.union_fg else None,
            "ms": milliseconds,
        }

    def _identify(self) -> dict[str, Any]:
        """The record of this run as far as it is known before the first episode."""
        setting = self.setting
        record = {
            "schema_version": SCHEMA_VERSION,
            "run_id": "",
            **describe_method(self.method, setting.fold),
            "dataset": {
                "name": setting.dataset.identity,
                "fingerprint": setting.dataset.index.fingerprint,
                "folds": len(setting.dataset.folds),
                "classes_sha256": fingerprint(
                    [[setting.dataset.class_names[c] for c in f] for f in setting.dataset.folds]
                ),
                "test_images": len(setting.dataset.images("test")),
            },
            "protocol": {**asdict(setting.protocol), "label": setting.protocol.label},
            "fold": setting.fold,
            "ways": setting.ways,
            "shots": setting.shots,
            "seed": setting.seed,
            "precision": self.compute.precision,
            "device_type": self.device.type,
            "code_sha256": code_sha256(
                self.method, getattr(self.method, "backbone", None), setting.dataset
            ),
            "episodes": len(setting.specs),
            "episodes_sha256": setting.sha256,
            "skipped_classes": [setting.dataset.class_names[c] for c in setting.skipped],
        }
        record["run_id"] = run_id(record, setting, self.method)
        return record

    def _finish(self, rows: list[Row]) -> Run:
        table = pd.DataFrame(rows).sort_values("index", ignore_index=True)
        setting = self.setting
        metrics = compute_metrics(
            table, setting.dataset.class_names, setting.classes, setting.protocol.empty_class
        )
        record = {
            **self.record,
            "cost": self._cost(table),
            "environment": cost.environment(),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return Run(record, metrics, table)

    def _cost(self, table: pd.DataFrame) -> dict[str, Any]:
        milliseconds = float(table["ms"].mean())
        return {
            "params_m": round(cost.parameters_m(self.method), 3),
            "gflops_per_episode": round(self.gflops, 3),
            "ms_per_episode": round(milliseconds, 3),
            "episodes_per_s": round(1000 / milliseconds, 3),
            "peak_mb": round(cost.peak_mb(self.device), 1),
            "device": cost.device_name(self.device),
        }

    def _count_gflops(self) -> float:
        size, ways, shots = input_size_of(self.method), self.setting.ways, self.setting.shots
        support = torch.zeros(1, ways, shots, 3, size, size, device=self.device)
        masks = torch.zeros(1, ways, shots, size, size, dtype=torch.uint8, device=self.device)
        masks[..., : size // 2] = 1
        with torch.no_grad(), self._autocast():
            return cost.gflops(self.method, (support, masks, support[:, 0, 0]))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


class _RunningMean:
    """mIoU so far, for the progress display."""

    def __init__(self) -> None:
        self._inter: Counter[int] = Counter()
        self._union: Counter[int] = Counter()

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._inter.update(dict(zip(row["class_ids"], row["inter_ways"], strict=True)))
            self._union.update(dict(zip(row["class_ids"], row["union_ways"], strict=True)))

    @property
    def miou(self) -> float:
        ious = [self._inter[c] / union for c, union in self._union.items() if union]
        return sum(ious) / len(ious) if ious else 0.0


def _check_logits(logits: Tensor, specs: Sequence[EpisodeSpec]) -> None:
    ways = len(specs[0].classes)
    if logits.ndim != 4 or logits.shape[:2] != (len(specs), 1 + ways):
        raise FssBenchError(
            f"the method returned logits of shape {list(logits.shape)}: it must return "
            f"[{len(specs)}, {1 + ways}, h, w], background first"
        )
    finite = torch.isfinite(logits).flatten(1).all(dim=1)
    if not finite.all():
        spec = specs[int((~finite).nonzero()[0])]
        raise FssBenchError(
            f"the method returned NaN or infinite logits in episode {spec.index} (query "
            f"{spec.query}, classes {list(spec.classes)}): mend the method, or try --precision fp32"
        )


def _save(folder: Path, specs: Sequence[EpisodeSpec], labels: Sequence[NDArray[np.uint8]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for spec, label in zip(specs, labels, strict=True):
            write_png(folder / f"{spec.index}.png", label)
    except OSError as error:
        raise ResultsError(f"cannot write predictions to {folder} ({one_line(error)})") from error
