"""What a training run starts from, and what its file keeps of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import shapes, tiny_config, weights
from torch import nn

from fss_bench.backbone import BuiltFor
from fss_bench.checkpoint import read_checkpoint
from fss_bench.checkpoint_loading import create_from_checkpoint
from fss_bench.entrants import Backbones, Entrants
from fss_bench.errors import FssBenchError, ResultsError
from fss_bench.images import IGNORE
from fss_bench.registry import backbones, methods
from fss_bench.setting import create_setting
from fss_bench.timm_backbone import TimmBackbone, create_backbone
from fss_bench.training.items import collate
from fss_bench.training.job import prepare
from fss_bench.training.losses import Losses
from fss_bench.training.trainer import train
from fss_bench.weight_files import METADATA

ONE_STEP = {"steps": 1, "batch_size": 1}
MSANET: dict[str, Any] = {
    "method": "msanet",
    "backbone": "tf_efficientnet_lite0",
    "options": {"input_size": 64},
    "validation": "none",
    "validate_every": 1,
}


def pretrained(folder: Path) -> Path:
    """Weights of ours that want images of other statistics than timm's network."""
    model = create_backbone("test_resnet", "none", seed=5).model
    file = folder / "pretrained.safetensors"
    said = json.dumps({"method": "moco", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    state = {f"query.{k}": v.contiguous() for k, v in model.state_dict().items()}
    save_file(state | {f"momentum.{k}": v + 1 for k, v in state_of(model)}, file, {METADATA: said})
    return file


def state_of(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(k, v.contiguous()) for k, v in model.state_dict().items()]


def test_images_are_seen_as_in_training(tmp_path: Path) -> None:
    file = pretrained(tmp_path)
    config = tiny_config(
        tmp_path / "out",
        weights=str(file),
        backbone_options={"encoder": "momentum"},
        recipe=ONE_STEP,
        validation="none",
        validate_every=1,
    )
    train(config)
    chosen = tmp_path / "out" / "fold0.safetensors"
    found = read_checkpoint(chosen)
    assert found.variant.built_for == BuiltFor("fss_bench", {}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert found.variant.backbone_options == {}
    entrants = Entrants("panet", None, Backbones({}), None, str(chosen), {})
    list(entrants.check([create_setting(shapes(), fold=0, episodes=2)]))
    for method in (create_from_checkpoint(found), entrants.method_for(0)):
        assert method.backbone.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert method.backbone.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    other = tiny_config(tmp_path / "more", start=str(chosen), recipe=ONE_STEP, validation="none")
    assert prepare(other, 1).method.backbone.mean.flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )


def test_a_network_is_padded_as_for_the_file_it_was_built_for() -> None:
    plain = create_backbone("resnet18", "none")
    as_byol = create_backbone("resnet18", BuiltFor("byol"))
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(plain(images)["c3"], as_byol(images)["c3"])
    assert torch.equal(plain.mean, as_byol.mean)


@pytest.mark.parametrize(
    "said",
    [
        {"options": {"checkpoint_path": "evil.pth"}},
        {"options": {"num_heads": "12"}},
        {"mean": [0.5]},
        {"std": [1.0, 0.0, 1.0]},
        {"std": [1.0, float("nan"), 1.0]},
        {"mean": ["a", "b", "c"]},
    ],
)
def test_what_a_strangers_file_asks_of_the_network_is_checked(said: dict[str, Any]) -> None:
    """Timm's builder would read the file that `checkpoint_path` names."""
    whole = {"layout": "moco", "options": {}, "mean": None, "std": None}
    assert BuiltFor.from_record(whole) == BuiltFor("moco")
    with pytest.raises(ValueError, match=r"built for|statistics|deviations|could not convert"):
        BuiltFor.from_record(whole | said)


def test_the_file_of_a_run_is_not_what_it_starts_from(tmp_path: Path) -> None:
    file = tmp_path / "fold0.safetensors"
    train(tiny_config(tmp_path, recipe=ONE_STEP, validation="none"))
    before = file.read_bytes()
    for resume in (True, False):
        with pytest.raises(FssBenchError, match="is the file that this run would write"):
            train(tiny_config(tmp_path, start=str(file), resume=resume))
    assert file.read_bytes() == before


def test_a_checkpoint_without_its_run_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "fold0.safetensors"
    file.write_bytes(b"of an earlier run")
    with pytest.raises(ResultsError, match=r"its run .*fold0 is not: choose another --output"):
        train(tiny_config(tmp_path, recipe=ONE_STEP, validation="none"))
    assert file.read_bytes() == b"of an earlier run"
    train(tiny_config(tmp_path, recipe=ONE_STEP, validation="none", resume=False))
    assert load_file(file)


def test_a_finished_run_without_its_checkpoint_says_so(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, recipe=ONE_STEP, validation="none")
    train(config)
    (tmp_path / "fold0.safetensors").unlink()
    with pytest.raises(ResultsError, match=r"is finished, and .* is gone: put it back"):
        train(config)


@pytest.mark.slow
def test_one_base_stage_serves_every_number_of_shots(tmp_path: Path) -> None:
    shared = {**MSANET, "recipe": {"steps": 1, "batch_size": 2}}
    train(tiny_config(tmp_path, **shared, stage="base", shots=1))
    base = load_file(tmp_path / "fold0-base.safetensors")
    two = prepare(tiny_config(tmp_path, **shared, shots=2), 1).method
    assert two.shots == 2
    own = two.state_dict()
    for name in (n for n in base if n.startswith(("backbone.", "learner_base."))):
        assert torch.equal(own[name], base[name])
    with pytest.raises(FssBenchError, match="does not fit"):
        prepare(tiny_config(tmp_path, **{**shared, "backbone": "resnet18"}), 1)


def test_statistics_are_frozen_in_every_network(tmp_path: Path) -> None:
    """Early co-FCN has a second one, for supports."""
    config = tiny_config(tmp_path, method="cofcn", recipe=ONE_STEP, validation="none")
    before = {k: v.clone() for k, v in prepare(config, 1).method.named_buffers()}
    train(config)
    after = weights(tmp_path, step=1)
    means = [name for name in before if name.endswith("running_mean")]
    assert any(name.startswith("support_backbone.") for name in means)
    assert all(torch.equal(before[name], after[name]) for name in means)


@pytest.mark.slow
def test_a_base_stage_that_fails_names_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = Losses.forward, []

    def faulty(self: Losses, batch: Any) -> Any:
        terms = forward(self, batch)
        calls.append(batch)
        return {k: v * (float("nan") if len(calls) == 2 else 1) for k, v in terms.items()}

    monkeypatch.setattr(Losses, "forward", faulty)
    config = tiny_config(
        tmp_path,
        **{**MSANET, "validate_every": 9},
        stage="base",
        save_every=9,
        recipe={"steps": 9, "batch_size": 2, "crop": 64},
    )
    with pytest.raises(FssBenchError, match="step 2: base nan"):
        train(config)
    items = prepare(config, 1).items
    lines = (tmp_path / "fold0-base" / "stopped-00000002.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"image": items.image(n)} for n in (2, 3)]
    state = weights(tmp_path, "fold0-base", step=1)  # the step before, its statistics too
    monkeypatch.setattr(Losses, "forward", forward)
    short = {**MSANET, "stage": "base", "recipe": {"steps": 9, "batch_size": 2, "crop": 64}}
    other = tiny_config(tmp_path / "other", **short, save_every=1, keep=9)
    train(other)
    alone = weights(tmp_path / "other", "fold0-base", step=1)
    assert state.keys() == alone.keys()
    assert all(torch.equal(state[k], alone[k]) for k in state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgone", "hsnet", "dcama"])
def test_hidden_novel_objects_are_never_learnt(name: str, tmp_path: Path) -> None:
    """Methods that learn void pixels learn those of the dataset, and only under rule `method`."""
    kept: dict[str, list[int]] = {}
    for rules in (
        {"base_images": "ignore"},
        {"base_images": "ignore", "train_ignore": "excluded"},
    ):
        job = prepare(
            tiny_config(
                tmp_path,
                method=name,
                backbone="tf_efficientnet_lite0",
                options={"input_size": 64},
                rules=rules,
            ),
            1,
        )
        Losses(job.method, job.stage)
        assert job.method.void == IGNORE
        batch = collate([job.items[number] for number in range(12)])
        kept[str(rules)] = [int((mask == IGNORE).sum()) for mask in batch.query_masks]
        truths = [job.items.targets.images.truth(s.query) for s in batch.specs if s is not None]
        hidden = [bool(truth.novel.any()) for truth in truths]
        assert any(hidden)
    by_method, excluded = kept.values()
    assert all(bool(n) == seen for n, seen in zip(by_method, hidden, strict=True))
    assert all(more > less for more, less in zip(excluded, by_method, strict=True))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "finetune"}, "FineTune learns nothing from training episodes"),
        ({"recipe": {"items": "images"}}, "recipe items=images: the method decides it"),
        ({"method": "sgone", "recipe": {"schedule": "steps"}}, "decay_at=: it must be shares"),
        ({**MSANET, "stage": "base", "validation": "novel"}, "its last step is taken"),
    ],
)
def test_what_would_count_for_nothing_is_refused_at_once(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    config = tiny_config(tmp_path / "out", **changes)
    with pytest.raises(FssBenchError, match=told):
        train(config)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_a_loss_of_its_own_must_know_of_the_weight_of_foreground() -> None:
    class Own(methods.get("sgone")):  # type: ignore[misc]
        def loss_terms(self, *episodes: Any) -> dict[str, Any]:
            return super().loss_terms(*episodes)

    own = Own(create_backbone("tf_efficientnet_lite0", "none"), input_size=64)
    with pytest.raises(FssBenchError, match="Own has a loss of its own"):
        Losses(own, "episodes", 2.0)


def test_a_batch_norm_that_learns_needs_two_images(tmp_path: Path) -> None:
    with pytest.raises(FssBenchError, match="learn from one image: raise --batch-size"):
        train(tiny_config(tmp_path, **MSANET, stage="base", recipe={**ONE_STEP, "crop": 64}))


def plugin_backbone(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Registers a network as a plug-in's class that takes nothing but weights."""

    def build(self: Any, weights: str = "none") -> None:
        TimmBackbone.__init__(self, "test_resnet", weights, **changes)

    monkeypatch.setattr(backbones, "_classes", {})
    backbones.register("own_net")(type("OwnNet", (TimmBackbone,), {"__init__": build}))


def test_a_plugins_backbone_need_not_know_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_backbone(monkeypatch)
    kept = {"train_backbone": False, **ONE_STEP}
    config = tiny_config(
        tmp_path, method="guided", backbone="own_net", recipe=kept, validation="none"
    )
    method = prepare(config, 1).method
    assert isinstance(method.backbone, TimmBackbone)
    assert not any(p.requires_grad for p in method.backbone.parameters())


def test_a_plugins_backbone_that_stays_frozen_cannot_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_backbone(monkeypatch)
    config = tiny_config(tmp_path, backbone="own_net", recipe=ONE_STEP, validation="none")
    with pytest.raises(
        FssBenchError,
        match="backbone 'own_net' takes no option frozen, so it cannot be trained: use --recipe",
    ):
        prepare(config, 1)
