"""What settings share is computed once, and sharing it changes no number."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fss_bench import Compute, ResultStore, cost, create_dataset, evaluate
from fss_bench.dataset import SegDataset
from fss_bench.evaluation import Progress
from fss_bench.images import read_label_map
from fss_bench.passes import evaluate_all, plan_passes
from fss_bench.protocols import PROTOCOLS
from fss_bench.results import Run
from fss_bench.setting import Setting, create_setting

EPISODES = 6
SCORINGS: list[dict[str, str]] = [
    {},
    {"query_ignore": "background"},
    {"iou_at": "input"},
    {"logits_resize": "bilinear-corners"},
    {"iou_at": "input", "logits_resize": "bilinear-corners", "vanished": "dropped"},
    {"fb_iou": "foreground", "empty_class": "zero"},
]
"""One segmentation."""
SUPPORTS: list[dict[str, str]] = [
    {"annotation": "box"},
    {"mask_resize": "nearest-pil", "iou_at": "input"},
]
"""Two more, of the same images."""
INPUTS: list[dict[str, str]] = [
    {"image_resize": "pad"},
    {"image_resize": "native"},
    {"image_filter": "opencv-bilinear"},
]
"""Three more, of images that reach the method in other ways."""


ROOMY = Compute(cache_gb=0.1)


class Cells(nn.Module):
    """Distance to the mean colours of cells; keeps a tally of what it is asked.

    Args:
        gain: another one, other features.
    """

    input_size = 32

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self._encoded, self._segmented = Counter[float](), 0
        self._stop_at = 10**9  # names with an underscore are no part of a run's identity

    def encode(self, images: Tensor) -> dict[str, Tensor]:
        for image in images:
            if image.any():  # not those that only measure memory and FLOPs
                self._encoded[float(image.double().sum())] += 1
        return {"cells": F.avg_pool2d(images, 4) ** self.gain}

    def segment(
        self, support: dict[str, Tensor], masks: Tensor, query: dict[str, Tensor]
    ) -> Tensor:
        cells, asked = support["cells"], query["cells"]
        if asked.any():
            if self._segmented == self._stop_at:
                raise KeyboardInterrupt
            self._segmented += 1
        areas = [
            F.avg_pool2d((masks == label).float().flatten(0, 2), 4) for label in (0, 1)
        ]  # [B * N * K, h, w]
        sums = [
            (cells * area.reshape(*masks.shape[:3], 1, *area.shape[1:])).sum((2, 4, 5))
            / (area.reshape(*masks.shape[:3], -1).sum((2, 3))[..., None] + 1e-5)
            for area in areas
        ]  # [B, N, C]
        prototypes = torch.cat([sums[0].mean(1, keepdim=True), sums[1]], dim=1)
        return -(asked[:, None] - prototypes[..., None, None]).square().sum(2)

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        shape = support.shape[:3]
        maps = self.encode(support.flatten(0, 2))["cells"]
        cells = {"cells": maps.reshape(*shape, *maps.shape[1:])}
        return self.segment(cells, masks, self.encode(query))


class Shared:
    """One module for all folds, or one a fold."""

    def __init__(self, *modules: Cells) -> None:
        self.modules, self.asked = modules, list[int]()

    def method_for(self, fold: int) -> nn.Module:
        self.asked.append(fold)
        return self.modules[fold % len(self.modules)]

    def name_for(self, fold: int) -> str | None:
        return f"fold{fold}.pth" if len(self.modules) > 1 else None


def unwatched(_: str, settings: Sequence[Setting]) -> AbstractContextManager[Progress | None]:
    return nullcontext()


@pytest.fixture(autouse=True)
def no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting FLOPs takes longer than these small evaluations."""
    monkeypatch.setattr(cost, "gflops", lambda module, inputs: 0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SegDataset:
    """Four classes, four images each of three sizes, with borders of 255; PNG, so all differ."""
    root = tmp_path_factory.mktemp("passes")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    rng = np.random.RandomState(5)
    for class_id in (1, 2, 3, 4):
        for i, (height, width) in enumerate([(40, 60), (56, 48), (33, 33), (40, 60)]):
            labels = np.zeros((height, width), np.uint8)
            labels[6:30, 6:30] = 255
            labels[8:28, 8:28] = class_id
            image = rng.randint(0, 256, (height, width, 3))
            image[labels == class_id] = 50 * class_id + rng.randint(0, 50, (400, 3))
            Image.fromarray(labels).save(root / "masks" / f"c{class_id}_{i}.png")
            Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"c{class_id}_{i}.png")
    return create_dataset("folder", root)


def make_settings(
    dataset: SegDataset, rules: Sequence[dict[str, str]], folds: Sequence[int] = (0,), **kwargs: Any
) -> list[Setting]:
    return [
        create_setting(
            dataset, rules={"min_pixels": 1, "episodes": EPISODES, **own}, fold=fold, **kwargs
        )
        for own in rules
        for fold in folds
    ]


def run_all(
    settings: Sequence[Setting],
    modules: Shared,
    folder: Path,
    compute: Compute = ROOMY,
    **kwargs: Any,
) -> dict[tuple[str, int], Run]:
    kwargs = {"watch": unwatched, **kwargs}
    runs = list(evaluate_all(settings, [modules], compute, ResultStore(folder), **kwargs))
    assert len(runs) == len(settings)
    return {(run.record["protocol"]["label"], run.record["fold"]): run for run in runs}


@pytest.fixture(scope="module")
def alone() -> Callable[..., Run]:
    """Evaluates a setting on its own; the same one with the same gain once."""
    known: dict[tuple[Any, ...], Run] = {}

    def run(setting: Setting, gain: float = 1.0) -> Run:
        key = setting.sha256, setting.protocol.label, gain
        if key not in known:
            known[key] = evaluate(
                Cells(gain),
                setting.dataset,
                setting.protocol,
                fold=setting.fold,
                ways=setting.ways,
                shots=setting.shots,
            )
        return known[key]

    return run


def rows(run: Run) -> list[dict[str, Any]]:
    """The episode table but its times, in plain lists and numbers whether it was stored or not."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | np.ndarray):
            return [plain(v) for v in value]
        return value.item() if isinstance(value, np.generic) else value

    table = run.episodes.drop(columns="ms").to_dict("records")
    return [{name: plain(value) for name, value in row.items()} for row in table]


def check(
    settings: Sequence[Setting],
    runs: dict[tuple[str, int], Run],
    alone: Callable[..., Run],
    gains: Sequence[float] = (1.0, 1.0),
) -> None:
    """Every run is bit by bit the one that its setting gives on its own."""
    for setting in settings:
        run, single = (
            runs[setting.protocol.label, setting.fold],
            alone(setting, gains[setting.fold]),
        )
        assert rows(run) == rows(single)
        assert run.metrics == single.metrics
        assert run.record["run_id"] == single.record["run_id"]
        assert (run.episodes["ms"] > 0).all()


def images_of(settings: Sequence[Setting]) -> set[str]:
    return {image for s in settings for spec in s.specs for image in spec.images}


# numbers


@pytest.mark.parametrize("compute", [Compute(cache_gb=0.1), Compute(cache_gb=0, batch_size=4)])
def test_many_protocols_at_once_give_what_each_gives_alone(
    compute: Compute, dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, [*INPUTS[:1], *SCORINGS, *INPUTS[1:], *SUPPORTS])
    runs = run_all(settings, Shared(Cells()), tmp_path, compute)
    check(settings, runs, alone)
    assert len({run.metrics.miou for run in runs.values()}) > 7
    assert all(run.path is not None for run in runs.values())


def test_folds_at_once_give_what_each_gives_alone(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, [*SCORINGS[1:3], *INPUTS[:1]], (0, 1), ways=2)
    check(settings, run_all(settings, Shared(Cells()), tmp_path), alone)


def test_several_shots_at_once_give_what_each_gives_alone(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    rules = [{"kshot": rule} for rule in ("method", "or", "vote", "mean")]
    rules += [{"kshot": "vote", "iou_at": "input"}, {"kshot": "or", "query_ignore": "background"}]
    settings = make_settings(dataset, rules, shots=2)
    module = Cells()
    runs = run_all(settings, Shared(module), tmp_path)
    # the method's own rule asks it once an episode, the others once a support
    assert module._segmented == EPISODES * (1 + 3 * 2)
    assert len(module._encoded) == len(images_of(settings))
    assert set(module._encoded.values()) == {1}
    check(settings, runs, alone)
    assert len({tuple(run.episodes["inter_fg"]) for run in runs.values()}) >= 4


def test_shot_counts_share_images(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = [s for k in (1, 2) for s in make_settings(dataset, SCORINGS[:2], shots=k)]
    module = Cells()
    found = list(
        evaluate_all(
            settings,
            [Shared(module)],
            Compute(cache_gb=0.1),
            ResultStore(tmp_path),
            watch=unwatched,
        )
    )
    assert [run.record["shots"] for run in found] == [1, 1, 2, 2]
    assert set(module._encoded.values()) == {1}
    for setting, run in zip(settings, found, strict=True):
        check([setting], {(setting.protocol.label, 0): run}, alone)


# work


def test_scoring_variants_share_one_pass(dataset: SegDataset, tmp_path: Path) -> None:
    settings, module = make_settings(dataset, SCORINGS), Cells()
    run_all(settings, Shared(module), tmp_path)
    assert module._segmented == EPISODES
    assert len(module._encoded) == len(images_of(settings))
    assert set(module._encoded.values()) == {1}


def test_passes_of_one_input_share_images(dataset: SegDataset, tmp_path: Path) -> None:
    settings = make_settings(dataset, [*SCORINGS[:2], *SUPPORTS], (0, 1))
    module = Cells()
    run_all(settings, Shared(module), tmp_path)
    assert module._segmented == EPISODES * 2 * 3  # folds by ways to give supports
    assert len(module._encoded) == len(images_of(settings))
    assert set(module._encoded.values()) == {1}


def test_another_input_encodes_images_anew(dataset: SegDataset, tmp_path: Path) -> None:
    settings, module = make_settings(dataset, [{}, *INPUTS]), Cells()
    run_all(settings, Shared(module), tmp_path)
    assert sum(module._encoded.values()) == 4 * len(images_of(settings))


def test_without_memory_and_disk_images_are_encoded_again(
    dataset: SegDataset, tmp_path: Path
) -> None:
    settings, module = make_settings(dataset, [*SCORINGS[:2], *SUPPORTS]), Cells()
    run_all(settings, Shared(module), tmp_path, Compute(cache_gb=0, disk_gb=0))
    # nothing is kept between episodes: every one encodes its images, in each of three passes
    assert sum(module._encoded.values()) == 3 * sum(len(s.images) for s in settings[0].specs)


def test_little_memory_is_used(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings, module = make_settings(dataset, [*SCORINGS[:2], *SUPPORTS]), Cells()
    room = 3 * 8 * 8 * 3 * 4 / 2**30  # of three images
    runs = run_all(settings, Shared(module), tmp_path, Compute(cache_gb=room, disk_gb=0))
    distinct = len(images_of(settings))
    assert distinct < sum(module._encoded.values()) < 3 * distinct
    check(settings, runs, alone)


def test_passes_share_what_is_on_the_disk(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings, module = make_settings(dataset, [*SCORINGS[:2], *SUPPORTS]), Cells()
    runs = run_all(settings, Shared(module), tmp_path, Compute(cache_gb=0))
    assert set(module._encoded.values()) == {1}
    check(settings, runs, alone)


def test_a_module_that_cannot_be_split_is_given_the_same(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    class Whole(nn.Module):
        input_size = 32

        def __init__(self) -> None:
            super().__init__()
            self._inner = [Cells()]

        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            return self._inner[0](support, masks, query)

    settings = make_settings(dataset, [*SCORINGS[:3], *SUPPORTS[:1], *INPUTS[:1]])
    modules: Any = Shared(Whole())  # type: ignore[arg-type]
    runs = run_all(settings, modules, tmp_path)
    for setting in settings:
        assert rows(runs[setting.protocol.label, 0]) == rows(alone(setting))


def test_the_modules_of_folds_share_no_features(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, [{}, *SUPPORTS[:1]], (0, 1))
    modules = [Cells(1.0), Cells(3.0)]
    shared = Shared(*modules)
    runs = run_all(settings, shared, tmp_path)
    assert shared.asked == [0, 1]
    for fold, module in enumerate(modules):
        own = [s for s in settings if s.fold == fold]
        assert len(module._encoded) == len(images_of(own))
        assert set(module._encoded.values()) == {1}
        assert module._segmented == 2 * EPISODES
    check(settings, runs, alone, [1.0, 3.0])
    wrong = alone(settings[1], 1.0)  # features that matter
    assert wrong.metrics.miou != runs[settings[1].protocol.label, 1].metrics.miou


def test_a_module_is_asked_for_once_an_input(dataset: SegDataset, tmp_path: Path) -> None:
    shared = Shared(Cells())
    run_all(make_settings(dataset, [{}, *INPUTS[:1]], (0, 1)), shared, tmp_path)
    assert shared.asked == [0, 0]


# order


def test_passes_of_one_input_follow_each_other(dataset: SegDataset) -> None:
    rules = [INPUTS[0], {}, INPUTS[1], SUPPORTS[0], SCORINGS[1], {**INPUTS[0], "kshot": "or"}]
    settings = make_settings(dataset, rules, (1, 0))
    passes = plan_passes(settings, [Shared(Cells())])
    keys = [one.input_key for one in passes]
    assert len([key for key, _ in groupby(keys)]) == len(set(keys)) == 3
    for _, group in groupby(passes, key=lambda one: one.input_key):
        folds = [one.settings[0].fold for one in group]
        assert folds == sorted(folds)
    found = [s for one in passes for s in one.settings]
    assert sorted(map(id, found)) == sorted(map(id, settings))
    sizes = Counter(len(one.settings) for one in passes)
    assert sizes == {1: 8, 2: 2}  # the scoring variant joined, in each fold
    for one in passes:
        assert len({s.fold for s in one.settings}) == 1


def test_equal_passes_keep_the_order_of_the_settings(dataset: SegDataset) -> None:
    for rules in permutations([{}, *SUPPORTS]):
        settings = make_settings(dataset, rules)
        passes = plan_passes(settings, [Shared(Cells())])
        assert [one.settings[0] for one in passes] == settings


def test_folds_with_their_own_modules_are_not_mixed(dataset: SegDataset) -> None:
    settings = make_settings(dataset, [{}, *SUPPORTS[:1], *INPUTS[:1]], (0, 1))
    passes = plan_passes(settings, [Shared(Cells(), Cells(2.0))])
    # one module is held at a time: each is loaded once for all the ways to give it images
    names = [key for one in passes for key in one.input_key if key.startswith("fold")]
    assert names == ["fold0.pth"] * 3 + ["fold1.pth"] * 3
    assert [one.settings[0].fold for one in passes] == [0] * 3 + [1] * 3
    assert plan_passes([], [Shared(Cells())]) == []


def test_runs_come_as_soon_as_they_are_kept(dataset: SegDataset, tmp_path: Path) -> None:
    settings = make_settings(dataset, [{}, SCORINGS[1], SUPPORTS[0]])
    store, module = ResultStore(tmp_path), Cells()
    coming = evaluate_all(settings, [Shared(module)], Compute(), store, watch=unwatched)
    assert not list(store.runs())
    next(coming)
    assert module._segmented == EPISODES
    assert len(list(store.runs())) == 2  # the two of the first pass
    coming.close()


def test_progress_is_told_pass_by_pass(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    seen: list[tuple[list[str], list[int]]] = []

    def watch(_: str, settings: Sequence[Setting]) -> AbstractContextManager[Progress | None]:
        seen.append(([s.protocol.label for s in settings], []))
        return nullcontext(lambda done, total, miou: seen[-1][1].append(done))

    settings = make_settings(dataset, [{}, SCORINGS[1], SUPPORTS[0]])
    run_all(settings, Shared(Cells()), tmp_path, watch=watch)
    labels = [s.protocol.label for s in settings]
    steps = list(range(1, EPISODES + 1))
    assert seen == [(labels[:2], steps), (labels[2:], steps)]


# resume


def interrupt(settings: Sequence[Setting], after: int, folder: Path) -> None:
    module = Cells()
    module._stop_at = after
    with pytest.raises(KeyboardInterrupt):
        run_all(settings, Shared(module), folder)


def check_resumed(
    settings: Sequence[Setting], folder: Path, segmented: int, alone: Callable[..., Run]
) -> dict[tuple[str, int], Run]:
    module = Cells()
    runs = run_all(settings, Shared(module), folder)
    assert module._segmented == segmented
    check(settings, runs, alone)
    assert not [f for f in (folder / ".partial").iterdir() if f.is_dir()]
    assert len(list(ResultStore(folder).runs())) == len(settings)
    return runs


def test_of_two_members_one_is_finished_and_one_half(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, SCORINGS[:2])
    finished = run_all(settings[:1], Shared(Cells()), tmp_path)
    interrupt(settings[1:], 4, tmp_path)
    runs = check_resumed(settings, tmp_path, EPISODES - 4, alone)
    first = settings[0].protocol.label, 0
    assert runs[first].record["finished"] == finished[first].record["finished"]
    assert rows(runs[first]) == rows(finished[first])
    assert runs[first].episodes["ms"].tolist() == finished[first].episodes["ms"].tolist()


@pytest.mark.parametrize(("first", "second"), [(4, 2), (0, 3)])
def test_members_that_are_not_equally_far(
    first: int, second: int, dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, SCORINGS[:2])
    interrupt(settings[:1], first, tmp_path)
    interrupt(settings[1:], second, tmp_path)
    check_resumed(settings, tmp_path, EPISODES - min(first, second), alone)


def test_an_interrupted_pass_goes_on_for_all_its_members(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, [*SCORINGS[:3], *SUPPORTS[:1]])
    interrupt(settings, EPISODES + 2, tmp_path)  # in the second pass
    assert len(list(ResultStore(tmp_path).runs())) == 3
    check_resumed(settings, tmp_path, EPISODES - 2, alone)


def test_finished_runs_are_not_segmented_again_unless_asked(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, [*SCORINGS[:2], *SUPPORTS[:1]])
    run_all(settings, Shared(Cells()), tmp_path)
    for resume, segmented in ((True, 0), (False, 2 * EPISODES)):
        module = Cells()
        runs = run_all(settings, Shared(module), tmp_path, resume=resume)
        assert module._segmented == segmented
    check(settings, runs, alone)


def test_a_finished_pass_between_two_others_changes_nothing(
    dataset: SegDataset, tmp_path: Path, alone: Callable[..., Run]
) -> None:
    settings = make_settings(dataset, [{}, *SUPPORTS])
    run_all(settings[1:2], Shared(Cells()), tmp_path)
    check_resumed(settings, tmp_path, 2 * EPISODES, alone)


def test_every_member_keeps_its_own_predictions(dataset: SegDataset, tmp_path: Path) -> None:
    settings = make_settings(dataset, SCORINGS[:3])
    runs = run_all(settings, Shared(Cells()), tmp_path, save_predictions=True)
    for setting in settings:
        path = runs[setting.protocol.label, 0].path
        assert path is not None
        for spec in setting.specs:
            shape = read_label_map(path / "predictions" / f"{spec.index}.png").shape
            at_input = setting.protocol.iou_at == "input"
            assert shape == ((32, 32) if at_input else dataset.index.sizes[spec.query])


def test_protocols_named_alike_are_all_run(dataset: SegDataset, tmp_path: Path) -> None:
    own = PROTOCOLS["standard"].replace_rules({"min_pixels": 1, "episodes": EPISODES})
    named = [create_setting(dataset, own), *make_settings(dataset, [{"base_images": "background"}])]
    module = Cells()
    runs = run_all(named, Shared(module), tmp_path)
    assert module._segmented == EPISODES
    first, second = runs.values()
    assert rows(first) == rows(second)
    assert len({run.record["run_id"] for run in runs.values()}) == 2
