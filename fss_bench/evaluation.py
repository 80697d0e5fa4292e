"""`evaluate`: the one loop that all numbers come from."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fss_bench import cost
from fss_bench.checkpoint import Checkpoint, check_use
from fss_bench.compute import Compute
from fss_bench.dataset import SegDataset
from fss_bench.encoding import ImageStore, OneShotAtATime
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import FssBenchError, ResultsError, one_line
from fss_bench.failed_episodes import failed_episodes, failure, wrong_everywhere
from fss_bench.geometry import square_side
from fss_bench.identity import code_sha256, describe_method, run_id
from fss_bench.images import write_png
from fss_bench.index import cache_folder
from fss_bench.items import Item, Want, in_good_order, wants
from fss_bench.loading import EpisodeLoader, Step, StepData, load_steps, plan_steps
from fss_bench.members import Member, RunningMean
from fss_bench.method import input_size_of
from fss_bench.metrics import compute_metrics
from fss_bench.part_method import in_parts
from fss_bench.protocols import EvaluationProtocol
from fss_bench.recount import check_metrics
from fss_bench.results import SCHEMA_VERSION, ResultStore, Run, fingerprint
from fss_bench.scoring import Answers, score_row
from fss_bench.setting import Setting, create_setting
from fss_bench.shelf import schedule
from fss_bench.stage_clock import Span, StageClock

Thing = TypeVar("Thing", Item, str)
Progress = Callable[[int, int, float], None]
"""Called after every step with episodes done, episodes in all, and the running mIoU."""


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
    evaluation = Evaluation(method, [setting], compute or Compute(), progress)
    runs = evaluation.run() if store is None else evaluation.run_in(store, resume, save_predictions)
    return runs[0]


class Coming(NamedTuple):
    """A pass to come: a setting of it, and the number of its method."""

    setting: Setting
    number: int


class Evaluation:
    """One pass over the episodes that settings share, scored under the protocol of each.

    Args:
        method: the module; moved to the device and set to eval mode.
        settings: what it is evaluated on; they have one `segmentation_key`.
        compute: how to run.
        progress: called after every step.
        images: what is kept of images, for this method and others that are given them alike.
        number: which of the methods of `images` this one is.
        later: the passes to come over the same images, in order.
        clock: measures the stages.

    Raises:
        FssBenchError: no such device or precision, a batch size below 1, an input side that the
            backbone does not take, or a checkpoint that must not be evaluated on a setting.
    """

    def __init__(
        self,
        method: nn.Module,
        settings: Sequence[Setting],
        compute: Compute,
        progress: Progress | None = None,
        images: ImageStore | None = None,
        number: int = 0,
        later: Sequence[Coming] = (),
        clock: StageClock | None = None,
    ) -> None:
        checkpoint = getattr(method, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint):  # a stranger's attribute may have that name
            for setting in settings:
                check_use(checkpoint, setting)
        self.setting, self.compute, self.progress = settings[0], compute, progress
        self.clock = clock
        self.device = compute.torch_device()
        self.dtype = compute.dtype()
        self.method = method.to(self.device).eval()
        self.images = images or image_store([self.method], compute)
        self.number, self.parts, self._later = number, in_parts(self.method), later
        self._charged: set[Item | str] = set()
        self.side = input_side(method, self.setting)
        self.started = datetime.now(UTC)
        self.members = [Member(setting, self._identify(setting)) for setting in settings]

    def run(self) -> list[Run]:
        """Evaluate in memory: a run a setting."""
        self._segment(self.members)
        return [self._finish(member) for member in self.members]

    def run_in(self, store: ResultStore, resume: bool, save_predictions: bool) -> list[Run]:
        """Evaluate what the store does not have yet, and keep it there: a run a setting."""
        store.check_writable()
        with ExitStack() as stack:
            for member in self.members:
                member.partial = stack.enter_context(store.partial(member.record["run_id"]))
                self._take_up(member, store, resume, save_predictions)
            missing = [member for member in self.members if member.finished is None]
            if missing:
                self._segment(missing)
            for member in missing:
                member.finished = store.write(self._finish(member), member.predictions)
                if member.partial is not None:
                    member.partial.discard()
        return [member.finished for member in self.members if member.finished is not None]

    def _take_up(
        self, member: Member, store: ResultStore, resume: bool, save_predictions: bool
    ) -> None:
        """What the store has of a run: all of it, the first episodes, or nothing."""
        partial = member.partial
        store.recover(member.record)
        found = store.find(member.record) if resume else None
        if partial is None or (found and (found.has_predictions or not save_predictions)):
            member.finished = found
            if partial is not None:  # killed after it was stored, or made without predictions
                partial.discard()
            return
        member.rows = partial.rows(with_predictions=save_predictions) if resume else []
        if not member.rows:
            partial.discard()
        member.predictions = partial.predictions if save_predictions else None

    def _segment(self, members: Sequence[Member]) -> None:
        """Segment the episodes that any of the members lacks."""
        self.gflops = self._count_gflops()  # before the work: a method may fail here
        lead = min(members, key=lambda member: len(member.rows))
        specs = [s for s in self.setting.specs if any(s.index not in m.done for m in members)]
        running = RunningMean()
        running.add(lead.rows)
        with torch.no_grad(), self._autocast():
            for step, data in self._waited(self._steps(specs, members)):
                known = len(lead.rows)
                self._step(step, data, members)
                running.add(lead.rows[known:])
                if self.progress:
                    self.progress(len(lead.rows), len(lead.setting.specs), running.miou)

    def _steps(
        self, specs: Sequence[EpisodeSpec], members: Sequence[Member]
    ) -> Iterator[tuple[Step, StepData]]:
        shelf = self.images.shelf
        later = [self._wanted_later(coming) for coming in self._later]
        steps = plan_steps(
            [self._wants(spec) for spec in in_good_order(specs)],
            self.compute.batch_size,
            shelf,
            chain.from_iterable(later),
            self.images.group,
        )
        shelf.begin(
            schedule([s.needs for s in steps], [{w.item for w in coming} for coming in later]),
            self.compute.cache_bytes(self.device),
            self.compute.disk_bytes(feature_folder()),
        )
        self.loader = EpisodeLoader(
            self.setting.dataset,
            self.setting.protocol,
            steps,
            self.side,
            [member.setting.protocol for member in members],
            self.parts,
        )
        return load_steps(self.loader, self.compute.workers)

    def _waited(self, steps: Iterator[tuple[Step, StepData]]) -> Iterator[tuple[Step, StepData]]:
        """The same steps; the time until each is there counts as waiting."""
        while True:
            with self._stage("wait"):
                found = next(steps, None)
            if found is None:
                return
            if self.clock is not None:
                self.clock.spans.append(Span("load", *found[1].loaded))
            yield found

    def _stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self.clock is None else self.clock.measure(name)

    def _step(self, step: Step, data: StepData, members: Sequence[Member]) -> None:
        with self._stage("encode"):
            spent = self._provide(step, data)
        start = time.perf_counter()
        with self._stage("segment"):
            answers = Answers(self._logits(step, data.support_masks), self.side)
        spent += time.perf_counter() - start
        with self._stage("encode"):
            self.images.shelf.finish(step.needs)
        with self._stage("score"):
            self._score(step, data, members, answers, spent)

    def _provide(self, step: Step, data: StepData) -> float:
        """Make what was loaded, and once more what memory and disk had no room for.

        Returns the seconds that the step's episodes are charged: for what they need, when it is
        needed first and whoever made it, and for having it here.
        """
        shelf = self.images.shelf
        self.images.add(data.images, data.items, step.needs, data.loaded[1] - data.loaded[0])
        lost = [item for item in step.needs if item not in shelf]
        if lost:
            found = {w.item: w for s in step.specs for w in self._wants(s)}
            images = list(dict.fromkeys(item.image for item in lost))
            start = time.monotonic()
            loaded = self.loader.load(images, [found[i] for i in lost])
            self.images.add(*loaded, step.needs, time.monotonic() - start)
        self._charged.difference_update(lost, (item.image for item in lost))
        made = self._uncharged(step.needs)
        encoded = self._uncharged(item.image for item in step.needs)
        start = time.perf_counter()
        for item in step.needs:
            shelf.get(item)
        fetching = time.perf_counter() - start
        return self.images.seconds(made, encoded, self.number) + fetching

    def _uncharged(self, things: Iterable[Thing]) -> set[Thing]:
        """Items, or images, that no episode was charged for; now one is."""
        fresh = {thing for thing in things if thing not in self._charged}
        self._charged |= fresh
        return fresh

    def _wants(self, spec: EpisodeSpec) -> list[Want]:
        return wants(spec, self.setting.protocol, self.parts, self.number)

    def _wanted_later(self, coming: Coming) -> list[Want]:
        setting, number = coming
        parts = in_parts(self.images.methods[number])
        return [
            want for spec in setting.specs for want in wants(spec, setting.protocol, parts, number)
        ]

    def _score(
        self,
        step: Step,
        data: StepData,
        members: Sequence[Member],
        answers: Answers,
        spent: float,
    ) -> None:
        """Rows of a step for every member, kept when this returns; `spent` seconds before."""
        failed = self._failed(step, answers)
        for member, masks in zip(members, data.query_masks, strict=True):
            protocol = member.setting.protocol
            labels, seconds = answers.labels(masks, protocol)
            labels = [
                wrong_everywhere(mask.numpy()) if spec.index in failed else label
                for spec, label, mask in zip(step.specs, labels, masks, strict=True)
            ]
            milliseconds = 1000 * (spent + seconds) / len(step.specs)
            if member.predictions is not None:
                _save(member.predictions, step.specs, labels)
            member.add(
                [
                    {**score_row(spec, label, mask.numpy(), protocol, milliseconds), **marked}
                    for spec, label, mask, marked in zip(
                        step.specs, labels, masks, self._marks(step, failed), strict=True
                    )
                ]
            )

    def _failed(self, step: Step, answers: Answers) -> set[int]:
        """Indices of the episodes without finite logits.

        Raises:
            FssBenchError: there is one, and it stops the run; a copy of its input was saved.
        """
        failed = failed_episodes(answers.logits, step.specs)
        if failed and self.compute.failed_episodes == "stop":
            partial = self.members[0].partial
            raise failure(
                self.loader.episode(failed[0]), None if partial is None else partial.folder
            )
        return {spec.index for spec in failed}

    def _marks(self, step: Step, failed: set[int]) -> list[dict[str, bool]]:
        """The column `failed` of the table, where failures are counted."""
        if self.compute.failed_episodes == "stop":
            return [{} for _ in step.specs]
        return [{"failed": spec.index in failed} for spec in step.specs]

    def _logits(self, step: Step, support_masks: Tensor | None) -> Tensor:
        """Logits [B, K', 1 + N, h, w] of a step; see `Answers`."""
        size = (self.side, self.side)
        shots = self.images.logits(
            step.specs,
            self.setting.protocol,
            size,
            support_masks,
            self._one_at_a_time,
            self.number,
        ).float()
        for k in range(shots.shape[1]):
            check_logits(shots[:, k], step.specs)
        return shots

    @property
    def _one_at_a_time(self) -> bool:
        """Whether the method is asked with every support on its own."""
        return self.setting.protocol.kshot != "method" and self.setting.shots > 1

    def _identify(self, setting: Setting) -> dict[str, Any]:
        """The record of a run as far as it is known before the first episode."""
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
            "protocol": setting.protocol.record,
            "fold": setting.fold,
            "ways": setting.ways,
            "shots": setting.shots,
            "seed": setting.seed,
            "input_size": self.side,
            "precision": self.compute.precision,
            **self._ways_to_run,
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

    @property
    def _ways_to_run(self) -> dict[str, str]:
        """What changes numbers and is recorded where it is not as usual."""
        asked, usual = (vars(compute) for compute in (self.compute, Compute()))
        names = ("cache_dtype", "failed_episodes")
        return {name: asked[name] for name in names if asked[name] != usual[name]}

    def _finish(self, member: Member) -> Run:
        table = pd.DataFrame(member.rows).sort_values("index", ignore_index=True)
        setting, protocol = member.setting, member.setting.protocol
        metrics = compute_metrics(
            table,
            setting.dataset.class_names,
            setting.classes,
            protocol.empty_class,
            protocol.fb_iou,
            protocol.runs,
        )
        record = {
            **member.record,
            **({"failed": int(table["failed"].sum())} if "failed" in table else {}),
            "cost": self._cost(table),
            "environment": cost.environment(),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        run = Run(record, metrics, table)
        check_metrics(run.to_json(), table)
        return run

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
        size, ways, shots = self.side, self.setting.ways, self.setting.shots
        support = torch.zeros(1, ways, shots, 3, size, size, device=self.device)
        masks = torch.zeros(1, ways, shots, size, size, dtype=torch.uint8, device=self.device)
        masks[..., : size // 2] = 1
        return self.count_gflops(support, masks, support[:, 0, 0])

    def count_gflops(self, support: Tensor, masks: Tensor, query: Tensor) -> float:
        """GFLOP of an episode whose images are not encoded; the arguments are a method's."""
        with torch.no_grad(), self._autocast():
            method = OneShotAtATime(self.method) if self._one_at_a_time else self.method
            return cost.gflops(method, (support, masks, query))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)


def image_store(methods: Sequence[nn.Module], compute: Compute) -> ImageStore:
    """A store for methods that are given the same images; they are moved and set to eval mode."""
    device = compute.torch_device()
    return ImageStore(
        [method.to(device).eval() for method in methods],
        device,
        feature_folder(),
        compute.group(device),
        compute.cache_dtype,
    )


def feature_folder() -> Path:
    """Where encoded images go that memory has no room for."""
    return cache_folder() / "features"


def input_side(method: nn.Module, setting: Setting) -> int:
    """Side of the squares that a method is given under a setting's protocol.

    Raises:
        FssBenchError: the backbone takes squares of one size only, and this is another.
    """
    side = square_side(setting.protocol, setting.dataset, input_size_of(method))
    fixed = getattr(getattr(method, "backbone", None), "fixed_size", None)
    if fixed and side != fixed and setting.protocol.image_resize == "native":
        raise FssBenchError(
            f"protocol {setting.protocol.label} takes images as they are, here in squares of "
            f"{side} px, and the backbone takes {fixed}x{fixed} alone: use another backbone, or "
            "--rule image_resize=warp"
        )
    return side


def check_logits(logits: Tensor, specs: Sequence[EpisodeSpec]) -> None:
    """Raise FssBenchError unless logits of episodes are [B, 1 + N, h, w]."""
    ways = len(specs[0].classes)
    if logits.ndim != 4 or logits.shape[:2] != (len(specs), 1 + ways):
        raise FssBenchError(
            f"the method returned logits of shape {list(logits.shape)}: it must return "
            f"[{len(specs)}, {1 + ways}, h, w], background first"
        )


def _save(folder: Path, specs: Sequence[EpisodeSpec], labels: Sequence[NDArray[np.uint8]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for spec, label in zip(specs, labels, strict=True):
            write_png(folder / f"{spec.index}.png", label)
    except OSError as error:
        raise ResultsError(
            f"cannot write predictions to {folder} ({one_line(error)}): free space or mend its "
            "permissions, then run the same command again, which goes on from here"
        ) from error
