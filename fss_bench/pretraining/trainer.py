"""`pretrain`: the one loop behind all methods.

Nothing depends on what ran before: the order of images is a function of seed and epoch, views of
seed, epoch and image, and torch's generator is seeded anew before every forward by seed, step,
forward and process. So a run resumes from weights, optimiser, queue and a step number alone.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fss_bench.distributed import World, distribute, find_world, joined
from fss_bench.errors import ResultsError, one_line, shorten
from fss_bench.interruption import StopRequests
from fss_bench.pretraining.feeding import Feed
from fss_bench.pretraining.finishing import write_results
from fss_bench.pretraining.knn import measure
from fss_bench.pretraining.objective import check_extra, create_objective
from fss_bench.pretraining.optimisers import create_optimiser
from fss_bench.pretraining.preparation import prepare
from fss_bench.pretraining.schedule import learning_rate, peak_rate
from fss_bench.pretraining.setup import PretrainConfig
from fss_bench.pretraining.state import Folder
from fss_bench.pretraining.tally import Tally
from fss_bench.pretraining.watching import Pretrained, Watch
from fss_bench.randomness import generators_kept, seed_generators
from fss_bench.run_folder import check_same
from fss_bench.telling import said_once

if TYPE_CHECKING:
    from fss_bench.pretraining.views import Batch

STEP_LINES = 10
"""Steps of an epoch that are logged, about."""


def pretrain(config: PretrainConfig, watch: Watch | None = None) -> Pretrained:
    """Pretrain a backbone, or go on with it, and write weights, log and plot.

    Under torchrun every process calls this; the first one writes.

    Args:
        config: what to do.
        watch: who is told of it.

    Raises:
        FssBenchError: a mistake the user can mend; a checkpoint that was there stays. Of several
            processes one raises it, and the others a ToldElsewhereError.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, with the state saved.
    """
    with said_once():
        check_extra()
        world, folder = find_world(), Folder(config.folder)
        device = config.compute.torch_device()
    device = world.device(device)
    watch = (watch or Watch()) if world.is_first else Watch()
    with joined(world, device), generators_kept(device):
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
        self._checkpoint = world.share(world.once(folder.load))
        before = None if self._checkpoint is None else self._checkpoint["config"]
        self.job = prepare(config, world, device, folder, watch, before)
        start = self.job.start
        self.recipe, self.plan = self.job.recipe, self.job.plan
        self.peak = peak_rate(self.recipe, self.recipe.batch_size, config.accumulate)
        seed_generators(device, "heads", config.seed)
        objective = world.together(
            lambda: create_objective(
                self.recipe, start.trunk, start.mean, start.std, self.plan.images
            )
        )
        self.objective = objective.to(device).train()
        self.module = distribute(self.objective, world, device)
        self.optimiser = create_optimiser(self.recipe, self.objective)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.compute.precision == "fp16")
        self.save_every = config.save_every or self.plan.steps_per_epoch
        self.step, self.tally = 0, Tally(self.plan)

    def run(self) -> Pretrained:
        """Train from where the folder is to the end."""
        if self._checkpoint is None:
            self._start()
        else:
            self._take_up(self._checkpoint)
            self._checkpoint = None  # its tensors are as large as the network's
            if self.step == self.plan.steps:
                record = self.world.share(self.world.once(self.folder.finished))
                if record is not None:
                    return Pretrained(self.folder, record["figures"], record, trained=False)
        self.tally.begin(self.step)
        with StopRequests() as stop:
            self._train(stop)
        return self._finish()

    def _start(self) -> None:
        def begin() -> None:
            self.folder.cut_log(0)
            self.folder.write_record(self.job.record(self.tally.started))
            self.folder.append(self.job.first_line())

        self.world.once(begin)
        self._measure(epoch=0)
        self._save()

    def _take_up(self, state: dict[str, Any]) -> None:
        self.world.together(lambda: self._restore(state))
        self.world.once(lambda: self.folder.cut_log(state["log_bytes"]))
        if self.step < self.plan.steps:
            epoch = self.step // self.plan.steps_per_epoch + 1
            self.watch.say(
                f"going on from step {self.step} of {self.plan.steps}, epoch {epoch} of "
                f"{self.recipe.epochs}"
            )

    def _restore(self, state: dict[str, Any]) -> None:
        check_same(state["config"], self.job.identity(), self.folder.root)
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
        self.step = state["step"]
        self.tally.load(state)

    def _train(self, stop: StopRequests) -> None:
        if self.step == self.plan.steps:
            return
        feed = Feed(
            self.job.pictures.usable,
            self.recipe,
            self.plan,
            self.step,
            self.world,
            self.config.compute.workers,
            pin=self.device.type == "cuda",
        )
        self.world.together(feed.check)
        while self.step < self.plan.steps:
            stopped, lost = self._take_step(feed, stop.asked)
            if self.watch.step is not None:
                self.watch.step(self.tally.tick(self.step))
            if self.step % self.plan.steps_per_epoch == 0:
                self._end_epoch(self.step // self.plan.steps_per_epoch)
            ends = stopped or lost or self.step == self.plan.steps
            if ends or self.step % self.save_every == 0:
                self._save()
            if stopped and self.step < self.plan.steps:
                raise KeyboardInterrupt
            if lost:
                self.world.together(feed.check)

    def _take_step(self, feed: Feed, asked: bool) -> tuple[bool, bool]:
        """One optimiser step.

        Returns:
            Whether any process was asked to stop, and whether any lacks an image of the next step.
        """
        rate = learning_rate(self.recipe, self.peak, self.step, self.plan.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.objective.start_step(self.step / self.plan.steps)
        self.optimiser.zero_grad(set_to_none=True)
        outcomes = torch.stack([self._forward(batch, i) for i, batch in enumerate(feed.take())])
        feed.fetch()
        flags = outcomes.new_tensor([float(asked), float(feed.problem is not None)])
        totals = self.world.total(torch.cat([outcomes.flatten(), flags])).tolist()  # all in one
        *values, wishes, lacks = totals
        losses = [value / self.world.size for value in values[::2]]
        accuracies = [value / self.world.size for value in values[1::2]]
        self._check_finite(losses)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        loss, accuracy = (sum(some) / len(some) for some in (losses, accuracies))
        self.tally.add(loss, accuracy)
        self._log_step(loss, accuracy, rate)
        return wishes > 0, lacks > 0

    def _forward(self, batch: "Batch", part: int) -> Tensor:
        """Gradients of one forward; its loss and accuracy, [2] in double precision."""
        last = part == self.config.accumulate - 1
        first, second = self._move(batch.first), self._move(batch.second)
        key = "forward", self.config.seed, self.step, part, self.world.rank
        seed_generators(self.device, *key)
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
                raise self.world.mistake(
                    f"the loss of step {self.step + 1} is {loss} (images {names}): lower the rate "
                    "with --option lr=…, or try --precision fp32; the checkpoint before it is kept"
                )

    def _log_step(self, loss: float, accuracy: float, rate: float) -> None:
        if self.step % max(1, self.plan.steps_per_epoch // STEP_LINES) == 0:
            epoch = round(self.step / self.plan.steps_per_epoch, 6)
            means = {"loss": loss, "accuracy": accuracy, "lr": rate}
            self._log({"kind": "step", "step": self.step, "epoch": epoch, **means})

    def _log(self, entry: dict[str, Any]) -> None:
        """Add a line; every process must come here, so that none goes on after a full disk."""
        seconds = self.tally.seconds
        self.world.once(lambda: self.folder.append({**entry, "seconds": seconds}))

    def _end_epoch(self, epoch: int) -> None:
        rate = learning_rate(self.recipe, self.peak, self.step - 1, self.plan.steps_per_epoch)
        self._log({"kind": "epoch", "epoch": epoch, **self.tally.end_epoch(), "lr": rate})
        if epoch % self.config.knn_every == 0 or epoch == self.recipe.epochs:
            self._measure(epoch)

    def _measure(self, epoch: int) -> None:
        """KNN accuracy of the trunk, and of the momentum trunk where there is one."""
        if self.config.knn is None:
            return
        found = self.world.once(self._knn)
        self._log({"kind": "knn", "epoch": epoch, **(found or {})})

    def _knn(self) -> dict[str, float]:
        assert self.job.labelled is not None  # in the first process
        workers = self.config.compute.workers
        found = measure(
            self.objective, self.job.labelled, self.recipe.image_size, self.device, workers
        )
        self.tally.knn = found["knn"]
        return found

    def _save(self) -> None:
        def write() -> None:
            self.folder.save(
                {
                    "config": self.job.identity(),
                    "step": self.step,
                    "objective": self.objective.state_dict(),
                    "extra": self.objective.extra_state(),
                    "optimiser": self.optimiser.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "log_bytes": self.folder.append(),
                    **self.tally.state,
                }
            )

        self.world.once(write)

    def _finish(self) -> Pretrained:
        record = self.world.share(
            self.world.once(
                lambda: write_results(self.folder, self.job, self.objective, self.tally.started)
            )
        )
        assert record is not None
        return Pretrained(self.folder, record["figures"], record, trained=True)
