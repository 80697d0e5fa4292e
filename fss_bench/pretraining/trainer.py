"""`pretrain`: the one loop behind all methods.

Nothing depends on what ran before: the order of images is a function of seed and epoch, views of
seed, epoch and image, and torch's generator is seeded anew before every forward by seed, step,
forward and process. So a run resumes from weights, optimiser, queue and a step number alone.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from fss_bench.errors import FssBenchError, ResultsError, one_line, shorten
from fss_bench.pretraining.distributed import ToldElsewhereError, World, find_world, joined
from fss_bench.pretraining.interruption import StopRequests
from fss_bench.pretraining.knn import encode, knn_accuracy
from fss_bench.pretraining.objective import Objective, create_objective
from fss_bench.pretraining.optimisers import create_optimiser
from fss_bench.pretraining.preparation import prepare
from fss_bench.pretraining.schedule import Item, Plan, learning_rate, number_of, peak_rate
from fss_bench.pretraining.setup import PretrainConfig
from fss_bench.pretraining.state import Folder, check_same
from fss_bench.pretraining.watching import Pretrained, Tick, Watch
from fss_bench.pretraining.workers import quiet_worker

if TYPE_CHECKING:
    from fss_bench.pretraining.views import Batch

BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
"""What torch calls the sending of queue and statistics before each forward; newer ones rename it.

Queues are equal anyway, and statistics of batch norm play no part in training.
"""
STEP_LINES = 10
"""Steps of an epoch that are logged, about."""


def pretrain(config: PretrainConfig, watch: Watch | None = None) -> Pretrained:
    """Pretrain a backbone, or go on with it, and write weights, log and plot.

    Under torchrun every process calls this; the first one writes.

    Args:
        config: what to do.
        watch: who is told of it.

    Raises:
        FssBenchError: a mistake the user can mend; a checkpoint that was there stays.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    if find_spec("lightly") is None:
        raise FssBenchError(
            "pretraining needs lightly, which is not installed: pip install 'fss-bench[pretrain]'"
        )
    world, folder = find_world(), Folder(config.folder)
    watch = (watch or Watch()) if world.is_first else Watch()
    device = world.device(config.compute.torch_device())
    with joined(world, device), torch.random.fork_rng(_cuda(device)):
        lock = world.once(lambda: folder.prepare(config.resume))
        try:
            return Trainer(config, world, device, folder, watch).run()
        finally:
            if lock is not None:
                lock.release()


class Trainer:
    """One run: builds everything, takes up the checkpoint, trains, writes.

    Args:
        config: what to do.
        world: the processes.
        device: of this process.
        folder: the files.
        watch: who is told of it.

    Raises:
        FssBenchError: see `pretrain`.
    """

    def __init__(
        self,
        config: PretrainConfig,
        world: World,
        device: torch.device,
        folder: Folder,
        watch: Watch,
    ) -> None:
        self.config, self.world, self.device = config, world, device
        self.folder, self.watch = folder, watch
        self.job = prepare(config, world, device, folder, watch)
        start = self.job.start
        self.recipe, self.plan = self.job.recipe, self.job.plan
        self.peak = peak_rate(self.recipe, self.recipe.batch_size, config.accumulate)
        torch.manual_seed(number_of("heads", config.seed))
        objective = world.together(
            lambda: create_objective(
                self.recipe, start.trunk, start.mean, start.std, self.plan.images
            )
        )
        self.objective = objective.to(device).train()
        self.module = self._distribute(self.objective)
        self.optimiser = create_optimiser(self.recipe, self.objective)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.compute.precision == "fp16")
        self.save_every = config.save_every or self.plan.steps_per_epoch
        self.step, self.sums, self.spent = 0, [0.0, 0.0], 0.0
        self.knn: float | None = None
        self.started = datetime.now(UTC)
        self._begun: float | None = None

    def run(self) -> Pretrained:
        """Train from where the folder is to the end."""
        state = self.world.share(self.world.once(self.folder.load))
        if state is None:
            self._start()
        else:
            self._take_up(state)
            if self.step == self.plan.steps and self._is_written():
                return self._finish(trained=False)
        self._begun = time.monotonic()
        with StopRequests() as stop:
            self._train(stop)
        return self._finish(trained=True)

    def _distribute(self, objective: Objective) -> nn.Module:
        if self.world.size == 1:
            return objective
        devices = [self.device] if self.device.type == "cuda" else None
        options: dict[str, Any] = {BUFFERS: False}
        return DistributedDataParallel(objective, device_ids=devices, **options)

    def _start(self) -> None:
        if self.world.is_first:
            self.folder.cut_log(0)
            self.folder.write_record(self.job.record(self.started))
            self.folder.append(self.job.first_line())
        self._measure(epoch=0)
        self._save()

    def _take_up(self, state: dict[str, Any]) -> None:
        check_same(state["config"], self.job.identity(), self.folder)
        try:
            self.objective.load_state_dict(state["objective"])
            self.objective.load_extra_state(state["extra"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:  # as after another version of timm
            raise ResultsError(
                f"{self.folder.checkpoint} does not fit the network ({one_line(error)[:120]}): "
                "start over with --no-resume, or choose another --output"
            ) from error
        self.step, self.sums, self.knn = state["step"], list(state["sums"]), state["knn"]
        self.spent, self.started = state["seconds"], datetime.fromisoformat(state["started"])
        if self.world.is_first:
            self.folder.cut_log(state["log_bytes"])
        if self.step < self.plan.steps:
            epoch = self.step // self.plan.steps_per_epoch + 1
            self.watch.say(
                f"going on from step {self.step} of {self.plan.steps}, epoch {epoch} of "
                f"{self.recipe.epochs}"
            )

    def _train(self, stop: StopRequests) -> None:
        batches, first = self._batches(), self.step
        while self.step < self.plan.steps:
            stopped = self._take_step(batches, stop.asked)
            self._tell(first)
            ended = self.step % self.plan.steps_per_epoch == 0
            if ended:
                self._end_epoch(self.step // self.plan.steps_per_epoch)
            if stopped or self.step == self.plan.steps or self.step % self.save_every == 0:
                self._save()
            if stopped and self.step < self.plan.steps:
                raise KeyboardInterrupt

    def _take_step(self, batches: "Iterator[Batch]", asked: bool) -> bool:
        """One optimiser step; whether any process was asked to stop."""
        rate = learning_rate(self.recipe, self.peak, self.step, self.plan.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.objective.start_step(self.step / self.plan.steps)
        self.optimiser.zero_grad(set_to_none=True)
        parts = self.config.accumulate
        given = [next(batches) for _ in range(parts)]
        self._stop_for(next((batch.problem for batch in given if batch.problem), None))
        outcomes = torch.stack([self._forward(batch, i) for i, batch in enumerate(given)])
        totals = torch.cat([outcomes.flatten(), outcomes.new_tensor([float(asked)])])
        *values, wishes = self.world.total(totals).tolist()
        losses = [value / self.world.size for value in values[::2]]
        accuracies = [value / self.world.size for value in values[1::2]]
        self._check_finite(losses)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        loss, accuracy = sum(losses) / parts, sum(accuracies) / parts
        self.sums = [self.sums[0] + loss, self.sums[1] + accuracy]
        self._log_step(loss, accuracy, rate)
        return bool(wishes > 0)

    def _stop_for(self, problem: str | None) -> None:
        """Stop all processes where an image of one of them is gone; that one says it."""
        failed = torch.tensor(float(problem is not None), device=self.device)
        if self.world.total(failed).item():
            raise FssBenchError(problem) if problem else ToldElsewhereError("an image is gone")

    def _forward(self, batch: "Batch", part: int) -> Tensor:
        """Gradients of one forward; its loss and accuracy, [2] in double precision."""
        last = part == self.config.accumulate - 1
        first, second = self._move(batch.first), self._move(batch.second)
        torch.manual_seed(number_of("forward", self.config.seed, self.step, part, self.world.rank))
        with self._no_sync(last):
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
                outcome = self.module(first, second, batch.indices.to(self.device))
            self.scaler.scale(outcome.loss / self.config.accumulate).backward()
        return torch.stack([outcome.loss.detach().double(), outcome.accuracy.double()])

    def _move(self, views: Tensor | None) -> Any:
        if views is None:
            return None
        return views.to(self.device, memory_format=torch.channels_last, non_blocking=True)

    def _no_sync(self, last: bool) -> AbstractContextManager[Any]:
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()

    @property
    def _dtype(self) -> torch.dtype | None:
        return self.config.compute.dtype()

    def _check_finite(self, losses: Sequence[float]) -> None:
        for part, loss in enumerate(losses):
            if not math.isfinite(loss):
                numbers = self.plan.forwards(self.step)[part]
                names = shorten([self.job.pictures.usable[i].name for i in numbers], 8)
                raise FssBenchError(
                    f"the loss of step {self.step + 1} is {loss} (images {names}): lower the rate "
                    "with --option lr=…, or try --precision fp32; the checkpoint before it is kept"
                )

    def _batches(self) -> "Iterator[Batch]":
        from fss_bench.pretraining.views import Views, collate

        workers = self.config.compute.workers
        loader: DataLoader[Any] = DataLoader(
            Views(self.job.pictures.usable, self.recipe, self.config.seed),
            batch_sampler=_Rest(self.plan, self.step, self.world),
            num_workers=workers,
            collate_fn=collate,
            prefetch_factor=4 if workers else None,
            worker_init_fn=quiet_worker,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def _tell(self, first: int) -> None:
        if self.watch.step is None or self._begun is None:
            return
        plan = self.plan
        done = (self.step - 1) % plan.steps_per_epoch + 1
        pace = (time.monotonic() - self._begun) / (self.step - first)
        self.watch.step(
            Tick(
                step=self.step,
                steps=plan.steps,
                epoch=(self.step - 1) // plan.steps_per_epoch + 1,
                epochs=plan.epochs,
                loss=self.sums[0] / done,
                accuracy=self.sums[1] / done,
                knn=self.knn,
                images_per_s=plan.batch_size * plan.accumulate / max(pace, 1e-9),
                seconds_left=pace * (plan.steps - self.step),
            )
        )

    def _log_step(self, loss: float, accuracy: float, rate: float) -> None:
        every = max(1, self.plan.steps_per_epoch // STEP_LINES)
        if self.world.is_first and self.step % every == 0:
            self.folder.append(
                {
                    "kind": "step",
                    "step": self.step,
                    "epoch": round(self.step / self.plan.steps_per_epoch, 6),
                    "loss": loss,
                    "accuracy": accuracy,
                    "lr": rate,
                    "seconds": self._seconds(),
                }
            )

    def _end_epoch(self, epoch: int) -> None:
        steps = self.plan.steps_per_epoch
        if self.world.is_first:
            self.folder.append(
                {
                    "kind": "epoch",
                    "epoch": epoch,
                    "loss": self.sums[0] / steps,
                    "accuracy": self.sums[1] / steps,
                    "lr": learning_rate(self.recipe, self.peak, self.step - 1, steps),
                    "seconds": self._seconds(),
                }
            )
        self.sums = [0.0, 0.0]
        if epoch % self.config.knn_every == 0 or epoch == self.recipe.epochs:
            self._measure(epoch)

    def _measure(self, epoch: int) -> None:
        """KNN accuracy of the trunk, and of the momentum trunk where there is one."""
        if self.job.labelled is not None:
            entry: dict[str, Any] = {"kind": "knn", "epoch": epoch}
            encoders = {"knn": self.objective.encoder}
            if self.objective.momentum_encoder is not None:
                encoders["knn_momentum"] = self.objective.momentum_encoder
            for name, encoder in encoders.items():
                features = encode(
                    encoder,
                    self.job.labelled.pictures,
                    self.recipe.image_size,
                    self.device,
                    self.config.compute.workers,
                )
                entry[name] = knn_accuracy(features, self.job.labelled.labels)
            self.knn = entry["knn"]
            self.folder.append({**entry, "seconds": self._seconds()})
        self.world.wait()

    def _save(self) -> None:
        if self.world.is_first:
            self.folder.save(
                {
                    "config": self.job.identity(),
                    "step": self.step,
                    "sums": self.sums,
                    "knn": self.knn,
                    "objective": self.objective.state_dict(),
                    "extra": self.objective.extra_state(),
                    "optimiser": self.optimiser.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "log_bytes": self.folder.append(),
                    "seconds": self._seconds(),
                    "started": self.started.isoformat(),
                }
            )
        self.world.wait()

    def _seconds(self) -> float:
        """Of training so far, earlier processes included."""
        here = 0.0 if self._begun is None else time.monotonic() - self._begun
        return round(self.spent + here, 3)

    def _is_written(self) -> bool:
        files = (self.folder.weights, self.folder.curves, self.folder.record)
        written: bool = self.world.share(all(file.is_file() for file in files))
        return written

    def _finish(self, trained: bool) -> Pretrained:
        from fss_bench.pretraining.curves import figures_of, write_curves

        if trained and self.world.is_first:
            self.folder.write_weights(self._tensors(), self.job.about_weights())
        entries = self.world.share(self.folder.entries() if self.world.is_first else [])
        figures = figures_of(entries)
        record = {**self.job.record(self.started), "figures": figures}
        if trained and self.world.is_first:
            record["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
            record["environment"] |= {"lightly": version("lightly")}
            write_curves(self.folder.curves, entries, self.job.title)
            self.folder.write_record(record)
        self.world.wait()
        return Pretrained(self.folder, figures, record, trained)

    def _tensors(self) -> dict[str, Tensor]:
        """What weights.safetensors holds."""
        encoders = {
            "query": self.objective.encoder,
            "momentum": self.objective.momentum_encoder,
        }
        return {
            f"{prefix}.{name}": tensor
            for prefix, encoder in encoders.items()
            if encoder is not None
            for name, tensor in encoder.trunk.state_dict().items()
        }


class _Rest:
    """The items of every forward that is left, as a DataLoader takes them."""

    def __init__(self, plan: Plan, step: int, world: World) -> None:
        self.plan, self.step, self.world = plan, step, world

    def __iter__(self) -> Iterator[list[Item]]:
        return self.plan.batches(self.step, self.world.rank, self.world.size)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
