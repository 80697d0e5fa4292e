"""Training runs: the same weights whatever happens, and nothing lost."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import shapes, tiny_config, weights
from torch import Tensor, nn

from fss_bench.checkpoint import read_checkpoint
from fss_bench.checkpoint_loading import create_from_checkpoint
from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError, ResultsError
from fss_bench.evaluation import evaluate
from fss_bench.method import Method
from fss_bench.setting import create_setting
from fss_bench.training.checkpoints import Checkpoints, Saved
from fss_bench.training.config import TrainConfig
from fss_bench.training.state import Folder
from fss_bench.training.trainer import train
from fss_bench.training.validation import validation_setting
from fss_bench.training.watching import Watch


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `tiny_config`."""
    output = tmp_path_factory.mktemp("finished")
    train(tiny_config(output))
    return output


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def stopped_after(config: TrainConfig, steps: int) -> None:
    """Train, and be interrupted after so many steps, without a checkpoint of them."""

    def stop(tick: Any) -> None:
        if tick.step == steps:
            raise ResultsError("stopped here")

    with pytest.raises(ResultsError, match="stopped here"):
        train(config, Watch(stop))


def test_two_runs_and_another_number_of_workers_are_equal(finished: Path, tmp_path: Path) -> None:
    train(tiny_config(tmp_path, workers=2))
    assert equal(weights(finished), weights(tmp_path))
    assert equal(
        load_file(finished / "fold0.safetensors"), load_file(tmp_path / "fold0.safetensors")
    )


def test_training_changes_what_learns(finished: Path, tmp_path: Path) -> None:
    train(tiny_config(tmp_path, seed=1))
    assert not equal(weights(finished), weights(tmp_path))
    assert not equal(weights(finished, step=3), weights(finished))
    start = tiny_config(tmp_path / "frozen", recipe={"train_backbone": False})
    with pytest.raises(FssBenchError, match="train_backbone=true"):
        train(start)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_resumed_run_ends_with_the_same_weights(
    finished: Path, tmp_path: Path, steps: int
) -> None:
    config = tiny_config(tmp_path)
    stopped_after(config, steps)
    train(config)
    assert equal(weights(finished), weights(tmp_path))
    assert equal(
        load_file(finished / "fold0.safetensors"), load_file(tmp_path / "fold0.safetensors")
    )
    logs = [_plain_log(folder / "fold0" / "log.jsonl") for folder in (finished, tmp_path)]
    assert logs[0] == logs[1]


def _plain_log(file: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_averages_are_resumed_too(tmp_path: Path) -> None:
    outputs = tmp_path / "whole", tmp_path / "cut"
    configs = [tiny_config(o, recipe={"ema": 0.5}, save_every=2) for o in outputs]
    train(configs[0])
    stopped_after(configs[1], 5)
    train(configs[1])
    assert equal(weights(outputs[0]), weights(outputs[1]))
    plain = tmp_path / "plain"
    train(tiny_config(plain))
    assert not equal(weights(outputs[0]), weights(plain))  # the average is written


def test_a_finished_run_is_not_repeated(finished: Path) -> None:
    files = [f for f in finished.rglob("*") if f.is_file() and f.name != ".lock"]
    before = {f: f.stat().st_mtime_ns for f in files}
    result = train(tiny_config(finished))
    assert not result.trained
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_another_configuration_is_refused(finished: Path) -> None:
    with pytest.raises(FssBenchError, match=r"lr 0\.01 there and 0\.02 here"):
        train(tiny_config(finished, recipe={"lr": 0.02}))
    with pytest.raises(FssBenchError, match="seed 0 there and 3 here"):
        train(tiny_config(finished, seed=3))


def test_parts_of_a_batch_add_up_to_it(finished: Path, tmp_path: Path) -> None:
    train(tiny_config(tmp_path, recipe={"accumulate": 2}))
    one, other = weights(finished), weights(tmp_path)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_the_chosen_checkpoint_says_what_it_is_and_evaluates(finished: Path) -> None:
    checkpoint = read_checkpoint(finished / "fold0.safetensors")
    assert checkpoint.trained_on is not None
    assert checkpoint.trained_on.fold == 0
    training = checkpoint.training
    assert training is not None
    assert training["chosen_by"] == "highest mIoU on 4 episodes, base"
    method = create_from_checkpoint(checkpoint)
    run = evaluate(method, shapes(), fold=0, episodes=2)
    assert run.record["checkpoint"]["training"] == training
    with pytest.raises(FssBenchError, match="base classes include"):
        evaluate(method, shapes(), fold=1, episodes=2)


def test_the_best_validation_is_chosen(finished: Path) -> None:
    record = json.loads((finished / "fold0" / "train.json").read_text())
    checks = [e for e in _plain_log(finished / "fold0" / "log.jsonl") if e["kind"] == "validation"]
    assert [e["step"] for e in checks] == [0, 3, 6]
    best = max(checks[1:], key=lambda e: (e["miou"], -e["step"]))
    assert record["figures"]["best_step"] == best["step"]
    assert equal(load_file(finished / "fold0.safetensors"), weights(finished, step=best["step"]))


def test_without_validation_the_last_step_is_chosen(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, validation="none"))
    assert equal(load_file(tmp_path / "fold0.safetensors"), weights(tmp_path))


@pytest.mark.parametrize("kind", ["base", "novel"])
def test_validation_is_never_on_test_episodes(kind: str) -> None:
    test = create_setting(shapes(), fold=0)
    found = validation_setting(
        shapes(), test.protocol, fold=0, ways=1, shots=1, kind=kind, episodes=100
    )
    assert [spec.index for spec in found.specs] == list(range(100))
    novel = set(shapes().novel_classes(0))
    shown = {c for spec in found.specs for c in spec.classes}
    assert shown <= novel if kind == "novel" else shown.isdisjoint(novel)
    assert found.sha256 != test.sha256
    one = {(s.query, s.supports) for s in found.specs}
    assert one.isdisjoint({(s.query, s.supports) for s in test.specs})
    if kind == "base":
        pixels = shapes().index.class_pixels("test", novel)
        assert not {i for spec in found.specs for i in spec.images} & set(pixels)


class Faulty(Method):
    """Its loss is no number from some step on."""

    def __init__(self, backbone: Any, input_size: int | None = None, after: int = 4) -> None:
        super().__init__(backbone, ("c3",), input_size)
        self.scale, self.after, self.calls = nn.Parameter(torch.ones(())), after, 0

    def segment(self, support: Any, support_masks: Tensor, query: Any) -> Tensor:  # type: ignore[override]
        return self.scale * query["c3"][:, :2]

    def loss_terms(self, *episodes: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        self.calls += 1
        return {"query": self.scale * (float("nan") if self.calls > self.after else 1.0)}


def test_a_loss_that_is_no_number_stops_with_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fss_bench.registry import methods

    monkeypatch.setitem(methods._classes, "faulty", Faulty)
    with pytest.raises(FssBenchError, match=r"step 5: query nan; its episodes are in .*stopped"):
        train(tiny_config(tmp_path, method="faulty"))
    lines = (tmp_path / "fold0" / "stopped-00000005.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [8, 9]
    state = weights(tmp_path, step=4)
    assert torch.isfinite(state["scale"])


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    def full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "w" in mode and path.name.startswith(".step-00000006.state"):
            raise OSError(28, "No space left on device")
        return opened(path, mode, *rest, **more)

    opened = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResultsError, match=r"No space left.*goes on from the last checkpoint"):
        train(tiny_config(tmp_path))
    monkeypatch.setattr(Path, "open", opened)
    assert Folder.of(tmp_path, "fold0").checkpoints(2).steps() == [0, 3]
    train(tiny_config(tmp_path))
    assert equal(weights(finished), weights(tmp_path))


def _saved(step: int) -> Saved:
    return Saved(step, {"w": torch.full((2,), float(step))}, {}, {"config": {}})


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    found = Checkpoints(Folder.of(tmp_path, "fold0"), keep=2)
    assert found.newest() is None
    for step in (1, 2, 3):
        found.save(_saved(step), {})
    assert found.steps() == [2, 3]
    assert len(list(found.root.iterdir())) == 6
    found.file(3).write_bytes(found.file(3).read_bytes()[:-1])  # cut short
    newest = found.newest()
    assert newest is not None
    assert newest.step == 2
    found.file(2, ".state").unlink()
    with pytest.raises(ResultsError, match=r"no checkpoint in .* can be read"):
        found.newest()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    lock = Folder.of(tmp_path, "fold0").lock()
    with pytest.raises(ResultsError, match="another process is training"):
        train(tiny_config(tmp_path))
    lock.release()


@pytest.mark.parametrize("precision", ["bf16"])
def test_precisions(tmp_path: Path, precision: str) -> None:
    config = tiny_config(tmp_path, compute=Compute("cpu", precision), validation="none")
    assert train(config).record["figures"]["loss_last"] > 0


def test_clipping_bounds_a_step(tmp_path: Path) -> None:
    changes = {"steps": 1, "clip": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "lr": 1.0}
    train(tiny_config(tmp_path, recipe=changes, validation="none"))
    before, after = weights(tmp_path, step=0), weights(tmp_path, step=1)
    moved = [(after[k] - before[k]).norm() for k in after if after[k].is_floating_point()]
    assert float(torch.stack(moved).norm()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norms_of_a_backbone_that_learns(tmp_path: Path, frozen: bool) -> None:
    train(tiny_config(tmp_path, recipe={"frozen_bn": frozen}, keep=3))
    before, after = weights(tmp_path, step=0), weights(tmp_path)
    names = [k for k in after if k.endswith("running_mean")]
    assert names
    kept = [torch.equal(before[k], after[k]) for k in names]
    assert all(kept) if frozen else not all(kept)


def test_msanet_learns_in_two_stages(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        method="msanet",
        recipe={"crop": 32, "steps": 2},
        validate_every=2,
    )
    with pytest.raises(FssBenchError, match="train it first with --stage base"):
        train(config)
    base = train(replace(config, stage="base"))
    assert base.checkpoint == tmp_path / "fold0-base.safetensors"
    before, after = weights(tmp_path, "fold0-base", 0), weights(tmp_path, "fold0-base", 2)
    assert _moved(before, after) == {"backbone", "learner_base"}
    train(config)
    first, last = weights(tmp_path, step=0), weights(tmp_path, step=2)
    assert equal(first, after)
    assert _moved(first, last).isdisjoint({"backbone", "learner_base"})
    assert "meta" in _moved(first, last)


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {k.partition(".")[0] for k in after if not torch.equal(before[k], after[k])}


def test_a_run_for_tensorboard(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, tensorboard=True, validation="none"))
    assert list((tmp_path / "fold0" / "tensorboard").glob("events.*"))


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(tiny_config(tmp_path, recipe={"steps": 1}, validation="none"))
    assert torch.equal(before, torch.get_rng_state())
