"""`train`: the one loop behind all methods.

Nothing depends on what ran before: items are a function of seed and number, and torch's generator
is seeded anew before every forward by seed, step, forward and process. So a run resumes from
weights, optimiser and a step number alone.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from fss_bench.backbone import Backbone
from fss_bench.distributed import World, distribute, find_world, joined
from fss_bench.errors import FssBenchError, ResultsError, one_line
from fss_bench.files import write_text
from fss_bench.interruption import StopRequests
from fss_bench.randomness import generators_kept, seed_generators
from fss_bench.run_folder import check_same
from fss_bench.telling import said_once
from fss_bench.training.board import Board, check_board
from fss_bench.training.checkpoints import Saved, flat_optimiser, full_optimiser
from fss_bench.training.config import TrainConfig
from fss_bench.training.failure import Statistics, shown
from fss_bench.training.feeding import TrainingFeed
from fss_bench.training.items import Batch
from fss_bench.training.job import Job, prepare
from fss_bench.training.losses import Losses
from fss_bench.training.optimisers import average_of, create_optimiser, set_rate
from fss_bench.training.schedule import rate_factor
from fss_bench.training.state import Folder
from fss_bench.training.tally import Tally
from fss_bench.training.validation import validation_miou
from fss_bench.training.watching import Trained, Watch
from fss_bench.training_batch import TrainingBatch

LINES = 200
"""Lines of the log with losses, about."""
RAW = "raw."
"""Prefix of the weights that learn, where what is kept is their average."""


def train(config: TrainConfig, watch: Watch | None = None) -> Trained:
    """Train a method on the base classes of a fold, or go on with it.

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
        world = find_world()
        device = config.compute.torch_device()
        if config.tensorboard:
            check_board()
    device = world.device(device)
    watch = (watch or Watch()) if world.is_first else Watch()
    with joined(world, device), generators_kept(device):
        job = world.together(lambda: prepare(config, world.size))
        folder = Folder.of(config.output, job.name)
        lock = world.once(folder.lock)
        try:
            return Trainer(job, world, device, folder, watch).run()
        finally:
            if lock is not None:
                lock.release()


class Trainer:
    """One run: takes up the checkpoint, trains, validates, writes.

    Args:
        job: what to do.
        world: the processes.
        device: of this process.
        folder: the files.
        watch: who is told of it.
    """

    def __init__(
        self, job: Job, world: World, device: torch.device, folder: Folder, watch: Watch
    ) -> None:
        self.job, self.world, self.device = job, world, device
        self.folder, self.watch = folder, watch
        self.recipe, self.compute = job.recipe, job.config.compute
        self.checkpoints = folder.checkpoints(job.config.keep)
        self.method = job.method.to(device)
        self.average = average_of(self.method, self.recipe.ema) if self.recipe.ema else None
        weight = self.recipe.foreground_weight
        losses = world.together(lambda: Losses(self.method, job.stage, weight))
        self.optimiser = world.together(lambda: create_optimiser(self.recipe, self.method))
        wrapped = distribute(losses, world, device, find_unused=True)
        self.module: Any = torch.compile(wrapped) if job.config.compile else wrapped
        self.wrapped = wrapped
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.compute.precision == "fp16")
        self.board: Board | None = None
        self._statistics = Statistics(self.method)
        self.step = 0
        self.tally = Tally(self.recipe.steps, self.recipe.batch_size)

    @property
    def kept(self) -> nn.Module:
        """The method that is validated and written: what learns, or its average."""
        return self.method if self.average is None else self.average.module

    def run(self) -> Trained:
        """Train from where the folder is to the end."""
        if not self.job.config.resume:
            self.world.once(self.folder.clear)
        saved = self.world.share(self.world.once(self.checkpoints.newest))
        if saved is None:
            self._start()
        else:
            self._take_up(saved)
            if self.step == self.recipe.steps:
                self.world.once(self.folder.need_chosen)
                record = self.world.share(self.world.once(self.folder.finished))
                if record is not None:
                    return Trained(self.folder.chosen, self.folder.root, record, trained=False)
        self.tally.begin(self.step)
        try:
            with StopRequests() as stop:
                self._train(stop)
        finally:
            if self.board is not None:
                self.board.close()
        return self._finish()

    def _start(self) -> None:
        def begin() -> None:
            if self.job.config.resume:
                self.folder.need_no_chosen()
            self.folder.clear()
            self.folder.cut_log(0)
            self.folder.write_record(self.job.record(self.tally.started))

        self.world.once(begin)
        if self.job.validation is not None:  # what the starting weights are worth
            self._log({"kind": "validation", "step": 0, "miou": self._miou()})
        self._save()

    def _take_up(self, saved: Saved) -> None:
        self.world.together(lambda: self._restore(saved))
        self.world.once(lambda: self.folder.cut_log(saved.numbers["log_bytes"]))
        if self.step < self.recipe.steps:
            self.watch.say(f"going on from step {self.step} of {self.recipe.steps}")

    def _restore(self, saved: Saved) -> None:
        check_same(saved.numbers["config"], self.job.identity(), self.folder.root)
        try:
            self.kept.load_state_dict(saved.weights)
            if self.average is not None:
                raw = {k.removeprefix(RAW): v for k, v in saved.state.items() if k.startswith(RAW)}
                self.method.load_state_dict(raw)
                self.average.n_averaged.fill_(saved.numbers["averaged"])
            numbers = saved.numbers["optimiser"]
            self.optimiser.load_state_dict(full_optimiser(saved.state, numbers))
            self.scaler.load_state_dict(saved.numbers["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:  # as after another version of timm
            raise ResultsError(
                f"the checkpoint of step {saved.step} in {self.folder.root} does not fit the "
                f"network ({one_line(error)[:120]}): start over with --no-resume, or choose "
                "another --output"
            ) from error
        self.step = saved.step
        self.tally.load(saved.numbers["tally"])

    def _train(self, stop: StopRequests) -> None:
        if self.step == self.recipe.steps:
            return
        if self.job.config.tensorboard and self.world.is_first:
            self.board = Board(self.folder.tensorboard, self.step)
        self._set_mode()
        feed = TrainingFeed(
            self.job.items,
            self.recipe,
            self.step,
            self.world,
            self.compute.workers,
            pin=self.device.type == "cuda",
        )
        self.world.together(feed.check)
        while self.step < self.recipe.steps:
            stopped, lost = self._take_step(feed, stop.asked)
            if self.watch.step is not None:
                self.watch.step(self.tally.tick(self.step))
            ends = stopped or lost or self.step == self.recipe.steps
            if self.step % self.job.validate_every == 0 or self.step == self.recipe.steps:
                self._choose()
            if ends or self.step % self.job.save_every == 0:
                self._save()
            if stopped and self.step < self.recipe.steps:
                raise KeyboardInterrupt
            if lost:
                self.world.together(feed.check)

    def _take_step(self, feed: TrainingFeed, asked: bool) -> tuple[bool, bool]:
        """One optimiser step.

        Returns:
            Whether any process was asked to stop, and whether any lacks an item of the next step.
        """
        rate = self.recipe.lr * rate_factor(self.recipe, self.step)
        set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        batches = feed.take()
        self._statistics.keep()
        outcomes = [self._forward(batch, part) for part, batch in enumerate(batches)]
        feed.fetch()
        names = list(outcomes[0])
        sums = torch.stack([sum(o[name] for o in outcomes) for name in names])  # type: ignore[misc]
        flags = sums.new_tensor([float(asked), float(feed.problem is not None)])
        *values, wishes, lacks = self.world.total(torch.cat([sums, flags])).tolist()
        share = self.recipe.accumulate * self.world.size
        terms = {name: value / share for name, value in zip(names, values, strict=True)}
        norm = self._clip()
        self._check_finite(terms, norm, batches)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.method)
        self.step += 1
        self.tally.add(terms)
        if self.step % max(1, self.recipe.steps // LINES) == 0 or self.step == self.recipe.steps:
            self._log({"kind": "step", "step": self.step, "lr": rate, **self.tally.means()})
        return wishes > 0, lacks > 0

    def _forward(self, batch: Batch, part: int) -> dict[str, Tensor]:
        """Gradients of one forward; its loss terms in double precision."""
        seed_generators(
            self.device, "train", self.job.config.seed, self.step, part, self.world.rank
        )
        given = batch.for_training(self.device, self.job.base_classes)
        with self._no_sync(last=part == self.recipe.accumulate - 1):
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None):
                terms = self._terms(given)
            loss = torch.stack([*terms.values()]).sum()
            if not loss.requires_grad:
                raise FssBenchError(
                    f"the loss of {self.job.config.method} depends on no weight that learns: add "
                    "--recipe train_backbone=true"
                )
            scaled: Tensor = self.scaler.scale(loss / self.recipe.accumulate)
            scaled.backward()  # type: ignore[no-untyped-call]
        return {name: value.detach().double() for name, value in terms.items()}

    def _terms(self, batch: TrainingBatch) -> dict[str, Tensor]:
        try:
            found: dict[str, Tensor] = self.module(batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise FssBenchError(
                "batch norms of this stage cannot learn from one image: raise --batch-size, or "
                "lower --accumulate or the number of processes"
            ) from error
        return found

    def _no_sync(self, last: bool) -> AbstractContextManager[Any]:
        if last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()

    @property
    def _dtype(self) -> torch.dtype | None:
        return self.compute.dtype()

    def _clip(self) -> float:
        """Norm of all gradients; larger ones than `clip` are scaled down to it."""
        self.scaler.unscale_(self.optimiser)
        learnt = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(learnt, self.recipe.clip or math.inf)
        return float(norm)

    def _check_finite(self, terms: Mapping[str, float], norm: float, batches: list[Batch]) -> None:
        """Stop at a loss that is no number, with its episodes and the state before it."""
        wrong = [f"{name} {value}" for name, value in terms.items() if not math.isfinite(value)]
        if not wrong and not math.isfinite(norm) and not self.scaler.is_enabled():
            wrong = [f"gradient norm {norm}"]
        if not wrong:
            return
        file = self.folder.root / f"stopped-{self.step + 1:08d}.jsonl"
        lines = self.world.gather([line for b in batches for line in shown(self.job.items, b)])
        self.world.once(lambda: write_text(file, "".join(line for part in lines for line in part)))
        if not self.world.share(self.world.once(self.checkpoints.file(self.step).is_file)):
            self._statistics.put_back()
            self._save()
        raise self.world.mistake(
            f"step {self.step + 1}: {', '.join(wrong)}; its episodes are in {file}, the state "
            f"before it is {self.checkpoints.file(self.step)}: lower the rate with --lr, or try "
            "--precision fp32, and start over with --no-resume"
        )

    def _choose(self) -> None:
        """Validate, and write what is the best so far."""
        if self.job.validation is None:
            if self.step == self.recipe.steps:
                self.world.once(lambda: self._write_chosen(None))
            return
        miou = self._miou()
        self._log({"kind": "validation", "step": self.step, "miou": miou})
        if self.tally.is_best(self.step, miou):
            self.world.once(lambda: self._write_chosen(miou))

    def _write_chosen(self, miou: float | None) -> None:
        self.folder.write_chosen(self.kept.state_dict(), self.job.metadata(self.step, miou))

    def _miou(self) -> float:
        """Validation mIoU in [0, 1], measured by the first process."""
        setting = self.job.validation
        assert setting is not None
        found = self.world.once(lambda: validation_miou(self.kept, setting, self.compute))
        self._set_mode()
        return float(self.world.share(found) or 0.0)

    def _set_mode(self) -> None:
        self.method.train()
        if not (self.recipe.train_backbone and self.recipe.frozen_bn):
            return
        networks = [m for m in self.method.modules() if isinstance(m, Backbone)]
        for module in (module for network in networks for module in network.modules()):
            if isinstance(module, _BatchNorm):
                module.eval()

    def _log(self, entry: dict[str, Any]) -> None:
        """Add a line; every process must come here, so that none goes on after a full disk."""
        seconds = self.tally.seconds
        self.world.once(lambda: self.folder.append({**entry, "seconds": seconds}))
        if self.board is not None:
            self.board.add(entry)

    def _save(self) -> None:
        def write() -> None:
            tensors, numbers = flat_optimiser(self.optimiser.state_dict())
            averaged = 0
            if self.average is not None:
                tensors |= {RAW + k: v for k, v in self.method.state_dict().items()}
                averaged = int(self.average.n_averaged)
            self.checkpoints.save(
                Saved(
                    self.step,
                    self.kept.state_dict(),
                    tensors,
                    {
                        "config": self.job.identity(),
                        "optimiser": numbers,
                        "scaler": self.scaler.state_dict(),
                        "averaged": averaged,
                        "tally": self.tally.state,
                        "log_bytes": self.folder.append(),
                    },
                ),
                self.job.metadata(self.step, None),
            )

        self.world.once(write)

    def _finish(self) -> Trained:
        record = self.world.share(
            self.world.once(lambda: self.folder.write_results(self.job, self.tally))
        )
        assert record is not None
        return Trained(self.folder.chosen, self.folder.root, record, trained=True)
