"""The loop against slow independent computations, and what must change no number."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fss_bench import (
    Compute,
    ResultStore,
    create_backbone,
    create_dataset,
    create_method,
    evaluate,
)
from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import DatasetError, FssBenchError, ResultsError
from fss_bench.images import read_label_map
from fss_bench.methods.panet import PANet
from fss_bench.metrics import compute_metrics
from fss_bench.results import Metrics

COUNTS = ["inter_fg", "union_fg", "inter_bg", "union_bg"]
SETTING = {"fold": 1, "shots": 2, "episodes": 12}


class Colour(nn.Module):
    """Cosine to the mean colours of foreground and background; no encode, so pixels are kept."""

    input_size = 48

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        ways = [(masks == 1).float()[:, :, :, None], (masks == 0).float()[:, :, :, None]]
        means = [(support * m).sum((2, 4, 5)) / (m.sum((2, 4, 5)) + 1e-5) for m in ways]
        prototypes = torch.cat([means[1].mean(1, keepdim=True), means[0]], dim=1)
        return -(query[:, None] - prototypes[..., None, None]).square().sum(2)


@pytest.fixture(scope="module")
def shapes() -> SegDataset:
    return create_dataset("shapes")


@pytest.fixture(scope="module")
def panet() -> nn.Module:
    backbone = create_backbone("tf_efficientnet_lite0", weights="packaged")
    return create_method("panet", backbone, input_size=96)


def without_time(episodes: pd.DataFrame) -> pd.DataFrame:
    return episodes.drop(columns="ms")


def slow_iou(store: Path, dataset: SegDataset) -> dict[int, float]:
    """IoU per class from the saved PNGs and the ground truth, with plain NumPy."""
    episodes = pd.read_parquet(store / "episodes.parquet")
    inter: dict[int, int] = {}
    union: dict[int, int] = {}
    for row in episodes.itertuples():
        guess = np.array(Image.open(store / "predictions" / f"{row.index}.png"))
        labels = dataset.load_labels(row.query)
        assert guess.shape == labels.shape
        for way, class_id in enumerate(row.class_ids, start=1):
            valid = labels != 255
            a, b = (guess == way) & valid, (labels == class_id) & valid
            inter[class_id] = inter.get(class_id, 0) + int((a & b).sum())
            union[class_id] = union.get(class_id, 0) + int((a | b).sum())
    return {class_id: inter[class_id] / union[class_id] for class_id in inter}


@pytest.mark.parametrize("ways", [1, 2])
def test_iou_from_saved_predictions_equals_the_table(
    ways: int, panet: nn.Module, shapes: SegDataset, tmp_path: Path
) -> None:
    run = evaluate(
        panet, shapes, ways=ways, **SETTING, store=ResultStore(tmp_path), save_predictions=True
    )
    assert run.path is not None
    wanted = slow_iou(run.path, shapes)
    scored = {s.class_id: s.iou for s in run.metrics.per_class.values() if s.iou is not None}
    assert scored == wanted
    assert run.metrics.miou == pytest.approx(np.mean(list(wanted.values())))


def test_real_photographs_equal_plain_numpy(shared: Path, panet: nn.Module, tmp_path: Path) -> None:
    dataset = create_dataset("pascal5i", shared / "data" / "voc_mini")
    run = evaluate(
        panet, dataset, fold=2, episodes=10, store=ResultStore(tmp_path), save_predictions=True
    )
    assert run.path is not None
    wanted = slow_iou(run.path, dataset)
    assert {s.class_id: s.iou for s in run.metrics.per_class.values()} == wanted


def test_ignored_pixels_as_background_twin(
    panet: nn.Module, shapes: SegDataset, tmp_path: Path
) -> None:
    run = evaluate(panet, shapes, **SETTING, store=ResultStore(tmp_path), save_predictions=True)
    assert run.path is not None
    for row in run.episodes.itertuples():
        guess = np.array(Image.open(run.path / "predictions" / f"{row.index}.png")) == 1
        truth = shapes.load_labels(row.query) == row.class_ids[0]
        assert row.inter_fg_255bg == (guess & truth).sum()
        assert row.union_fg_255bg == (guess | truth).sum()
        assert row.inter_bg_255bg == (~guess & ~truth).sum()
        assert row.union_bg_255bg == (~guess | ~truth).sum()
    assert run.metrics.miou_255_as_background != run.metrics.miou


@pytest.mark.parametrize("kind", ["split", "forward only"])
@pytest.mark.parametrize(
    "compute",
    [
        Compute(batch_size=5),
        Compute(workers=2),
        Compute(cache_gb=0, disk_gb=0),
        Compute(cache_gb=0),
        Compute(cache_gb=1e-4, disk_gb=2e-4),
        Compute(batch_size=3, workers=1, cache_gb=1e-5),
    ],
    ids=["batch", "workers", "no cache", "disk", "some disk", "all"],
)
def test_batch_workers_and_cache_change_no_count(
    kind: str, compute: Compute, panet: nn.Module, shapes: SegDataset
) -> None:
    method = panet if kind == "split" else Colour()
    plain = evaluate(method, shapes, **SETTING)
    other = evaluate(method, shapes, **SETTING, compute=compute)
    pd.testing.assert_frame_equal(without_time(plain.episodes), without_time(other.episodes))
    assert plain.metrics == other.metrics


@pytest.mark.parametrize("kind", ["split", "whole"])
@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_another_order_of_episodes_changes_no_count(
    kind: str, order: str, panet: nn.Module, shapes: SegDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, seen = panet if kind == "split" else Colour(), list[list[int]]()

    def other(specs: list[EpisodeSpec]) -> list[EpisodeSpec]:
        specs = specs[::-1] if order == "reversed" else random.Random(0).sample(specs, len(specs))
        seen.append([spec.index for spec in specs])
        return specs

    plain = evaluate(method, shapes, **SETTING)
    monkeypatch.setattr("fss_bench.evaluation.in_good_order", other)
    second = evaluate(method, shapes, **SETTING, compute=Compute(batch_size=5))
    assert sorted(seen[0]) == list(range(12)) != seen[0]
    pd.testing.assert_frame_equal(without_time(plain.episodes), without_time(second.episodes))
    assert plain.metrics == second.metrics


def test_metrics_that_are_not_those_of_the_table_stop_the_run(
    shapes: SegDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*args: Any) -> Metrics:
        metrics = compute_metrics(*args)
        return replace(metrics, fb_iou=metrics.fb_iou + 1e-6)

    monkeypatch.setattr("fss_bench.evaluation.compute_metrics", wrong)
    with pytest.raises(ValueError, match=r"its fb_iou .* that of its table"):
        evaluate(Colour(), shapes, **SETTING, store=ResultStore(tmp_path))
    assert not list(ResultStore(tmp_path).runs())


def test_split_and_whole_method_give_the_same_counts(panet: nn.Module, shapes: SegDataset) -> None:
    class Whole(nn.Module):
        input_size = 96

        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            logits: Tensor = panet(support, masks, query)
            return logits

    split, whole = evaluate(panet, shapes, **SETTING), evaluate(Whole(), shapes, **SETTING)
    pd.testing.assert_frame_equal(split.episodes[COUNTS], whole.episodes[COUNTS])


def test_interrupted_run_goes_on_to_the_same_table(shapes: SegDataset, tmp_path: Path) -> None:
    class Interrupting(Colour):
        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            calls.append(0)
            if len(calls) == 7:
                raise KeyboardInterrupt
            return super().forward(support, masks, query)

    store, calls = ResultStore(tmp_path / "a"), list[int]()
    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupting(), shapes, **SETTING, store=store)
    assert not list(store.runs())
    done: list[int] = []
    run = evaluate(
        Interrupting(),
        shapes,
        **SETTING,
        store=store,
        progress=lambda n, total, miou: done.append(n),
    )
    assert done == list(range(6, 13))
    whole = evaluate(
        Interrupting(), shapes, **SETTING, store=ResultStore(tmp_path / "b"), resume=False
    )
    assert run.record["run_id"] == whole.record["run_id"]
    pd.testing.assert_frame_equal(without_time(run.episodes), without_time(whole.episodes))
    assert not (tmp_path / "a" / ".partial" / run.record["run_id"]).exists()


def test_finished_run_is_not_done_again_unless_asked(shapes: SegDataset, tmp_path: Path) -> None:
    store, seen = ResultStore(tmp_path), []
    for resume in (True, True, False):
        seen.append(0)

        def count(done: int, total: int, miou: float) -> None:
            seen[-1] += 1

        evaluate(Colour(), shapes, **SETTING, store=store, resume=resume, progress=count)
    assert seen == [12, 0, 12]
    assert len(list(store.runs())) == 1


def test_other_weights_are_another_run(shapes: SegDataset, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for seed in (0, 1):
        backbone = create_backbone("tf_efficientnet_lite0", weights="none", seed=seed)
        method = create_method("panet", backbone, input_size=64)
        evaluate(method, shapes, episodes=2, store=store)
    assert len(list(store.runs())) == 2


def test_hsnet_protocol_scores_at_the_input_square(
    shared: Path, panet: nn.Module, tmp_path: Path
) -> None:
    dataset = create_dataset("pascal5i", shared / "data" / "voc_mini")
    run = evaluate(
        panet,
        dataset,
        "hsnet",
        episodes=4,
        split_lists=shared / "lists" / "hsnet",
        store=ResultStore(tmp_path),
        save_predictions=True,
    )
    assert run.path is not None
    sizes = {read_label_map(file).shape for file in (run.path / "predictions").glob("*.png")}
    assert sizes == {(96, 96)}
    assert run.record["protocol"]["label"] == "hsnet+episodes=4"
    with pytest.raises(DatasetError, match="--split-lists"):
        evaluate(panet, dataset, "hsnet", episodes=4)


class Broken(Colour):
    """Returns what a method must not."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        return self.answer(super().forward(support, masks, query))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x * float("nan"), "NaN or infinite logits in episode 0"),
        (lambda x: x / 0, "NaN or infinite logits in episode 0"),
        (lambda x: x[:, :1], r"must return \[1, 2, h, w\]"),
        (lambda x: x[0], "background first"),
    ],
)
def test_wrong_logits_stop_the_run(
    answer: Callable[[Tensor], Tensor], message: str, shapes: SegDataset, tmp_path: Path
) -> None:
    store = ResultStore(tmp_path)
    with pytest.raises(FssBenchError, match=message):
        evaluate(Broken(answer), shapes, **SETTING, store=store)
    assert not list(store.runs())


class Sometimes(Colour):
    """NaN wherever the query is dark: in some episodes and not in others."""

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        logits = super().forward(support, masks, query)
        dark = query.mean(dim=(1, 2, 3)) < 0.42
        return torch.where(dark[:, None, None, None], torch.nan, logits)


def test_the_input_of_a_failed_episode_is_kept(shapes: SegDataset, tmp_path: Path) -> None:
    with pytest.raises(FssBenchError, match="its input is in") as caught:
        evaluate(Sometimes(), shapes, **SETTING, store=ResultStore(tmp_path))
    assert "--failed-episodes count" in str(caught.value)
    (file,) = tmp_path.rglob("failed-episode-*.safetensors")
    assert str(file) in str(caught.value)
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        spec = json.loads(opened.metadata()["episode"])
    assert f"in episode {spec['index']} (query {spec['query']}" in str(caught.value)
    inputs = [tensors[name][None] for name in ("support_images", "support_masks", "query_image")]
    assert torch.isnan(Sometimes()(*inputs)).any()


def test_failed_episodes_count_as_wrong_everywhere(shapes: SegDataset, tmp_path: Path) -> None:
    stores = [ResultStore(tmp_path / name) for name in "abc"]
    count = [Compute(batch_size=n, failed_episodes="count") for n in (1, 3)]
    whole = evaluate(Colour(), shapes, **SETTING, store=stores[0])
    found = [
        evaluate(Sometimes(), shapes, **SETTING, store=store, compute=compute)
        for store, compute in zip(stores[1:], count, strict=True)
    ]
    table, good = found[0].episodes, whole.episodes
    failed = table["failed"].to_numpy()
    assert 0 < failed.sum() < len(table)
    assert found[0].record["failed"] == failed.sum()
    assert (table.loc[failed, ["inter_fg", "inter_bg"]] == 0).all(axis=None)
    pixels = table.loc[failed, "union_fg"]
    assert pixels.equals(table.loc[failed, "union_bg"])  # every pixel is in both
    columns = ["inter_fg", "union_fg", "inter_bg", "union_bg"]
    assert table.loc[~failed, columns].equals(good.loc[~failed, columns])
    assert found[0].metrics == found[1].metrics
    assert found[0].metrics.miou < whole.metrics.miou
    assert "failed" not in good
    assert (
        found[0].record["run_id"]
        != evaluate(
            Sometimes(),
            shapes,
            **SETTING,
            compute=Compute(failed_episodes="count", precision="bf16"),
        ).record["run_id"]
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_photograph_is_one_line_even_from_a_worker(
    workers: int, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_folder(classes=4, per_class=3)
    dataset = create_dataset("folder", root)
    assert dataset.index.images("test")
    for file in (root / "images").glob("c1_*.jpg"):
        file.write_bytes(file.read_bytes()[:200])
    store = ResultStore(tmp_path / "results")
    rules = {"min_pixels": 1}
    with pytest.raises(FssBenchError, match=r"image .*c1_\d.jpg cannot be read") as caught:
        evaluate(
            Colour(),
            dataset,
            rules=rules,
            episodes=9,
            store=store,
            compute=Compute(workers=workers),
        )
    assert "\n" not in str(caught.value)
    assert not list(store.runs())


def test_mask_of_another_size_is_refused(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=4, per_class=3)
    for file in (root / "images").glob("c2_*.jpg"):
        Image.new("RGB", (60, 48)).save(file)
    dataset = create_dataset("folder", root)
    with pytest.raises(FssBenchError, match=r"mask of image c2_\d is 64x48, the image 60x48"):
        evaluate(Colour(), dataset, rules={"min_pixels": 1}, episodes=8)


def test_full_disk_keeps_what_was_done(
    shapes: SegDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path)

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", no_space)
    with pytest.raises(ResultsError, match="No space left on device"):
        evaluate(Colour(), shapes, **SETTING, store=store)
    assert not list(store.runs())
    monkeypatch.undo()
    calls: list[int] = []
    evaluate(
        Colour(), shapes, **SETTING, store=store, progress=lambda n, total, miou: calls.append(n)
    )
    assert calls == []
    assert len(list(store.runs())) == 1


def test_unknown_device_and_precision(shapes: SegDataset) -> None:
    with pytest.raises(FssBenchError, match="did you mean 'cuda'"):
        evaluate(Colour(), shapes, compute=Compute(device="cud"))
    with pytest.raises(FssBenchError, match="precision 'fp64'"):
        evaluate(Colour(), shapes, compute=Compute(precision="fp64"))
    with pytest.raises(FssBenchError, match="--batch-size"):
        evaluate(Colour(), shapes, compute=Compute(batch_size=0))


def test_embedded_dataset_is_official_and_not_easy(shapes: SegDataset) -> None:
    assert shapes.identity == "shapes"
    run = evaluate(Colour(), shapes, fold=0, episodes=100)
    assert run.metrics.miou < 0.25


def test_pretrained_features_beat_colours_on_shapes(panet: nn.Module, shapes: SegDataset) -> None:
    features, colours = (evaluate(m, shapes, fold=0, episodes=60) for m in (panet, Colour()))
    assert features.metrics.miou_ci95[0] > colours.metrics.miou_ci95[1]


def test_run_json_is_strict_json(shapes: SegDataset, tmp_path: Path) -> None:
    run = evaluate(Colour(), shapes, **SETTING, store=ResultStore(tmp_path))
    assert run.path is not None

    def refuse(text: str) -> None:
        raise ValueError(text)

    data = json.loads((run.path / "run.json").read_text(), parse_constant=refuse)
    assert data["backbone"] == "own"
    assert data["method"] == "Colour"


def test_changed_masks_photographs_or_attributes_are_another_run(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    root, store = make_folder(classes=4, per_class=3), ResultStore(tmp_path / "results")

    def run_id(method: nn.Module) -> str:
        dataset = create_dataset("folder", root)
        run = evaluate(method, dataset, rules={"min_pixels": 1}, episodes=4, store=store)
        return str(run.record["run_id"])

    seen = [run_id(Colour())]
    for file in (root / "masks").glob("*.png"):  # the same counts, other pixels
        Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(file))[:, ::-1])).save(file)
    seen.append(run_id(Colour()))
    for file in (root / "images").glob("*.jpg"):
        Image.new("RGB", (64, 48)).save(file)
    seen.append(run_id(Colour()))
    method = Colour()
    method.strength = 2.0
    seen.append(run_id(method))
    assert len(set(seen)) == 4
    assert run_id(method) == seen[-1]


def test_options_given_without_the_registry_are_told_apart(
    shapes: SegDataset, tmp_path: Path
) -> None:
    backbone = create_backbone("tf_efficientnet_lite0", weights="packaged")
    methods = [PANet(backbone, level=level, input_size=64) for level in ("c3", "c4")]
    runs = [evaluate(m, shapes, episodes=3, store=ResultStore(tmp_path)) for m in methods]
    assert runs[0].record["run_id"] != runs[1].record["run_id"]


def test_forward_of_a_subclass_is_used(panet: nn.Module, shapes: SegDataset) -> None:
    class Negated(PANet):
        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            return -super().forward(support, masks, query)

    backbone = create_backbone("tf_efficientnet_lite0", weights="packaged")
    negated = evaluate(Negated(backbone, input_size=96), shapes, **SETTING)
    assert negated.metrics.miou < evaluate(panet, shapes, **SETTING).metrics.miou


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near(precision: str, panet: nn.Module, shapes: SegDataset) -> None:
    full = evaluate(panet, shapes, **SETTING)
    half = evaluate(panet, shapes, **SETTING, compute=Compute(precision=precision))
    assert half.metrics.miou == pytest.approx(full.metrics.miou, abs=0.03)
