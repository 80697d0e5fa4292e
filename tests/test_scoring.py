"""Every scoring rule on four pixels by hand, and whole runs scored a second time with NumPy alone.

The slow implementation reads the files itself and shares no code with the package but the names of
the episodes: its own resize, its own bilinear, its own counts.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fss_bench import cost, create_dataset, evaluate
from fss_bench.dataset import SegDataset
from fss_bench.episodes import EpisodeSpec
from fss_bench.geometry import place_target
from fss_bench.leaderboard import Row
from fss_bench.metrics import compute_metrics
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol
from fss_bench.results import Metrics, Run
from fss_bench.scoring import DRAWING_RULES, SCORING_RULES, Answers, score_row, segmentation_key
from fss_bench.setting import Setting, create_setting

STANDARD = PROTOCOLS["standard"]
NAMES = {1: "cat", 2: "dog", 3: "cow"}
MakeRun = Callable[..., Run]
Labels = NDArray[np.uint8]


def protocol(**rules: Any) -> EvaluationProtocol:
    return STANDARD.replace_rules(rules)


def pixels(*values: int) -> Labels:
    return np.array(values, dtype=np.uint8).reshape(2, -1)


# by hand


Answer = tuple[Sequence[int], Labels, Labels]
"""Classes of an episode, prediction, truth."""


def table(answers: Sequence[Answer], rules: EvaluationProtocol) -> pd.DataFrame:
    return pd.DataFrame(
        [
            score_row(
                EpisodeSpec(i, 0, tuple(classes), "q", (("s",),) * len(classes)),
                guess,
                truth,
                rules,
                1.0,
            )
            for i, (classes, guess, truth) in enumerate(answers)
        ]
    )


def scored(
    answers: Sequence[Answer], rules: EvaluationProtocol, classes: Sequence[int] = (1, 2)
) -> Metrics:
    rows = table(answers, rules)
    return compute_metrics(rows, NAMES, classes, rules.empty_class, rules.fb_iou, rules.runs)


CAT: Answer = ((1,), pixels(1, 1, 1, 0), pixels(1, 0, 255, 0))
"""Hit, false alarm, found on 255, right background."""
DOG: Answer = ((2,), pixels(1, 0, 0, 1), pixels(1, 1, 0, 255))


@pytest.mark.parametrize(
    ("rule", "cat", "dog", "foreground", "background"),
    [
        ("excluded", (1, 2), (1, 2), (2, 4), (2, 4)),
        ("background", (1, 3), (1, 3), (2, 6), (2, 6)),
    ],
)
def test_255_of_the_query(
    rule: str,
    cat: tuple[int, int],
    dog: tuple[int, int],
    foreground: tuple[int, int],
    background: tuple[int, int],
) -> None:
    found = scored([CAT, DOG], protocol(query_ignore=rule))
    counts = {name: (s.inter, s.union) for name, s in found.per_class.items()}
    assert counts == {"cat": cat, "dog": dog}
    assert found.miou == pytest.approx((cat[0] / cat[1] + dog[0] / dog[1]) / 2, abs=1e-12)
    fb_iou = (foreground[0] / foreground[1] + background[0] / background[1]) / 2
    assert found.fb_iou == pytest.approx(fb_iou, abs=1e-12)
    assert found.miou_255_as_background == pytest.approx(1 / 3, abs=1e-12)


def test_columns_follow_the_rule_and_their_twins_do_not() -> None:
    out, as_background = (
        table([CAT], protocol(query_ignore=rule)).iloc[0] for rule in ("excluded", "background")
    )
    assert (out["inter_fg"], out["union_fg"], out["inter_bg"], out["union_bg"]) == (1, 2, 1, 2)
    assert out["iou_fg"] == 1 / 2
    assert as_background["iou_fg"] == pytest.approx(1 / 3)
    for name in ("inter_fg", "union_fg", "inter_bg", "union_bg", "inter_ways", "union_ways"):
        assert as_background[name] == as_background[f"{name}_255bg"] == out[f"{name}_255bg"]


LOST = np.zeros((4, 4), np.uint8)
LOST[0, 1] = 1
"""Neither floor(2 i) nor the centre of 2 x 2 pixels takes this one."""
MORE: Answer = ((1,), pixels(1, 1, 0, 0), pixels(1, 1, 1, 0))


@pytest.mark.parametrize(
    ("name", "cat", "foreground"),
    [("panet", (2, 3), (2, 3)), ("hsnet", (2, 4), (2, 4))],
)
def test_a_class_that_vanishes_in_the_resize(
    name: str, cat: tuple[int, int], foreground: tuple[int, int]
) -> None:
    rules = PROTOCOLS[name].replace_rules({"runs": 1})
    truth = place_target(LOST, 2, rules).numpy()
    assert truth.tolist() == [[0, 0], [0, 0]]
    # its false positive counts for HSNet; background is wrong there for both
    found = scored([((1,), pixels(0, 1, 0, 0), truth), MORE], rules, [1])
    assert (found.per_class["cat"].inter, found.per_class["cat"].union) == cat
    assert found.per_class["cat"].episodes == 2
    assert found.miou == pytest.approx(cat[0] / cat[1])
    background = (3 + 1) / (4 + 2)
    assert found.fb_iou == pytest.approx((foreground[0] / foreground[1] + background) / 2)


def test_of_two_ways_only_the_one_that_vanished_is_dropped() -> None:
    # two classes are asked; dog has no pixel: taken for dog once on cat, once on background
    guess, truth = pixels(1, 2, 2, 0), pixels(1, 1, 0, 0)
    counted, dropped = (
        table([((1, 2), guess, truth)], protocol(vanished=rule)).iloc[0]
        for rule in ("counted", "dropped")
    )
    assert (counted["inter_ways"], counted["union_ways"]) == ([1, 0], [2, 2])
    assert (dropped["inter_ways"], dropped["union_ways"]) == ([1, 0], [2, 0])
    assert counted["union_fg"] == dropped["union_fg"] == 3  # some foreground is there


def test_a_class_left_with_nothing_but_255_has_vanished_too() -> None:
    answer: Answer = ((1,), pixels(1, 0, 0, 0), pixels(0, 255, 255, 0))
    counted, dropped = (
        scored([answer], protocol(vanished=rule), [1]).per_class["cat"]
        for rule in ("counted", "dropped")
    )
    assert (counted.union, dropped.union) == (1, 0)


@pytest.mark.parametrize(
    ("rule", "miou"), [("skip", (0.5 + 0.25) / 2), ("zero", 0.75 / 3), ("clamp", 0.75 / 3)]
)
@pytest.mark.parametrize("with_episode", [False, True])
def test_a_class_without_a_pixel(rule: str, miou: float, with_episode: bool) -> None:
    answers: list[Answer] = [
        ((1,), pixels(1, 0, 0, 0), pixels(1, 1, 0, 0)),
        ((2,), pixels(1, 0, 0, 0), pixels(1, 1, 1, 1)),
    ]
    if with_episode:
        answers.append(((3,), pixels(0, 0, 0, 0), pixels(0, 0, 0, 255)))
    found = scored(answers, protocol(empty_class=rule), [1, 2, 3])
    assert found.miou == pytest.approx(miou, abs=1e-12)
    assert found.per_class["cow"].iou is None
    assert found.per_class["cow"].episodes == int(with_episode)
    low, high = found.miou_ci95
    assert low == pytest.approx(miou)
    assert high == pytest.approx(miou)


FOLD: list[Answer] = [
    ((1,), pixels(1, 1, 0, 0), pixels(1, 0, 1, 0)),  # 1 of 3, background 1 of 3
    ((2,), pixels(1, 1, 1, 0), pixels(1, 1, 1, 0)),  # 3 of 3, background 1 of 1
    ((1,), pixels(0, 0, 0, 0), pixels(1, 0, 0, 0)),  # 0 of 1, background 3 of 4
]


@pytest.mark.parametrize(
    ("rule", "fb_iou"),
    [
        ("fold", (4 / 7 + 5 / 8) / 2),
        ("all-folds", (4 / 7 + 5 / 8) / 2),  # of one fold the same
        ("class-mean", ((1 / 4 + 1) / 2 + 5 / 8) / 2),
        ("foreground", 4 / 7),
    ],
)
def test_fb_iou_by_its_rule(rule: str, fb_iou: float) -> None:
    found = scored(FOLD, protocol(fb_iou=rule))
    assert found.fb_iou == pytest.approx(fb_iou, abs=1e-12)
    assert found.miou == pytest.approx((1 / 4 + 1) / 2, abs=1e-12)


OTHER: list[Answer] = [
    ((1,), pixels(1, 0, 0, 0), pixels(1, 1, 1, 1)),  # 1 of 4, background 0 of 3
    ((2,), pixels(0, 0, 0, 0), pixels(0, 0, 0, 1)),  # 0 of 1, background 3 of 4
]


def fold_run(
    make_run: MakeRun, rules: EvaluationProtocol, fold: int, answers: Sequence[Answer]
) -> Run:
    run = make_run(0.5, rules, fold=fold)
    return replace(run, metrics=scored(answers, rules), episodes=table(answers, rules))


@pytest.mark.parametrize(
    ("rule", "fb_iou"),
    [
        ("fold", ((4 / 7 + 5 / 8) / 2 + (1 / 5 + 3 / 7) / 2) / 2),
        ("all-folds", (5 / 12 + 8 / 15) / 2),
        ("class-mean", ((5 / 8 + 5 / 8) / 2 + (1 / 8 + 3 / 7) / 2) / 2),
        ("foreground", (4 / 7 + 1 / 5) / 2),
    ],
)
def test_fb_iou_of_a_row(make_run: MakeRun, rule: str, fb_iou: float) -> None:
    rules = protocol(fb_iou=rule)
    row = Row({0: fold_run(make_run, rules, 0, FOLD), 1: fold_run(make_run, rules, 1, OTHER)})
    assert row.fb_iou == pytest.approx(fb_iou, abs=1e-12)
    assert row.miou == pytest.approx((5 / 8 + 1 / 8) / 2, abs=1e-12)
    assert row.miou_std is None
    assert Row({0: fold_run(make_run, rules, 0, FOLD)}).fb_iou is None


REPEATED = [*FOLD[:2], *OTHER]
"""Two runs of two episodes: mIoU (1/3 + 1) / 2 and (1/4 + 0) / 2."""


def test_runs_are_scored_on_their_own_and_averaged() -> None:
    found = scored(REPEATED, protocol(runs=2))
    first, second = (1 / 3 + 1) / 2, (1 / 4 + 0) / 2
    assert found.miou_runs == pytest.approx((first, second))
    assert found.miou == pytest.approx((first + second) / 2, abs=1e-12)
    assert found.fb_iou == pytest.approx(((4 / 6 + 2 / 4) / 2 + (1 / 5 + 3 / 7) / 2) / 2, abs=1e-12)
    # counts are sums over the runs, and pooled they would give another number
    assert {name: (s.inter, s.union) for name, s in found.per_class.items()} == {
        "cat": (2, 7),
        "dog": (3, 4),
    }
    assert scored(REPEATED, protocol()).miou == pytest.approx((2 / 7 + 3 / 4) / 2)
    assert scored(REPEATED, protocol()).miou_runs == (scored(REPEATED, protocol()).miou,)


def test_a_class_without_a_pixel_in_one_run_only() -> None:
    answers = [FOLD[0], FOLD[1], FOLD[0], FOLD[2]]  # no dog in the second run: cat 1 of 4
    for rule, second in (("skip", 1 / 4), ("zero", 1 / 8), ("clamp", 1 / 8)):
        found = scored(answers, protocol(runs=2, empty_class=rule))
        assert found.miou_runs == pytest.approx(((1 / 3 + 1) / 2, second), abs=1e-12)


def test_runs_are_blocks_by_number_however_the_table_is_ordered() -> None:
    rules = protocol(runs=2)
    rows = table(REPEATED, rules)
    shuffled = rows.iloc[[3, 0, 2, 1]]
    again = compute_metrics(shuffled, NAMES, [1, 2], runs=2)
    assert again.miou_runs == scored(REPEATED, rules).miou_runs


def test_the_deviation_of_a_row_is_that_of_its_runs(make_run: MakeRun) -> None:
    rules = protocol(runs=2)
    second = [OTHER[0], FOLD[1], FOLD[0], FOLD[1]]  # (1/4 + 1) / 2 and (1/3 + 1) / 2
    row = Row({0: fold_run(make_run, rules, 0, REPEATED), 1: fold_run(make_run, rules, 1, second)})
    means = [(2 / 3 + 5 / 8) / 2, (1 / 8 + 2 / 3) / 2]  # run by run, over the folds
    assert row.miou == pytest.approx(sum(means) / 2)
    middle = sum(means) / 2
    squares = sum((mean - middle) ** 2 for mean in means)
    assert row.miou_std == pytest.approx((squares / (2 - 1)) ** 0.5, abs=1e-12)
    assert row.repetitions == 2


def test_fb_iou_over_all_folds_and_several_runs(make_run: MakeRun) -> None:
    rules = protocol(runs=2, fb_iou="all-folds")
    second = [OTHER[0], FOLD[1], FOLD[0], FOLD[1]]
    row = Row({0: fold_run(make_run, rules, 0, REPEATED), 1: fold_run(make_run, rules, 1, second)})
    # run 1: 1/3, 3/3 and 1/4, 3/3; run 2: 1/4, 0/1 and 1/3, 3/3; background likewise
    first_run = ((1 + 3 + 1 + 3) / (3 + 3 + 4 + 3) + (1 + 1 + 0 + 1) / (3 + 1 + 3 + 1)) / 2
    second_run = ((1 + 0 + 1 + 3) / (4 + 1 + 3 + 3) + (0 + 3 + 1 + 1) / (3 + 4 + 3 + 1)) / 2
    assert row.fb_iou == pytest.approx((first_run + second_run) / 2, abs=1e-12)


def test_answers_are_kept_apart_by_what_decides_them() -> None:
    logits = torch.randn(1, 1, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    answers = Answers(logits, 16)
    original, square = torch.zeros(12, 20), torch.zeros(16, 16)
    found = {
        (iou_at, resize): answers.labels(
            [original if iou_at == "original" else square],
            protocol(iou_at=iou_at, logits_resize=resize),
        )[0][0]
        for iou_at in ("original", "input")
        for resize in ("bilinear", "bilinear-corners")
    }
    for (iou_at, resize), label in found.items():
        alone = Answers(logits, 16).labels(
            [torch.zeros(label.shape)], protocol(iou_at=iou_at, logits_resize=resize)
        )[0][0]
        assert np.array_equal(alone, label)
        assert label.shape == ((12, 20) if iou_at == "original" else (16, 16))
    for iou_at in ("original", "input"):
        assert (found[iou_at, "bilinear"] != found[iou_at, "bilinear-corners"]).any()


# whole runs a second time


@pytest.fixture(autouse=True)
def no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting FLOPs takes longer than these small evaluations."""
    monkeypatch.setattr(cost, "gflops", lambda module, inputs: 0.0)


SIZES = [(37, 52), (48, 64), (61, 40), (30, 30)]
SIDE = 32


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of four sizes, blocks of a class with a border of 255; one a single pixel."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    rng = np.random.RandomState(3)
    for class_id in (1, 2, 3, 4):
        for i, (height, width) in enumerate(SIZES):
            labels = np.zeros((height, width), np.uint8)
            labels[2 : height // 2 + 4, 3 : width // 2 + 2] = 255
            labels[4 : height // 2 + 2, 5 : width // 2] = class_id
            labels[height // 2 + 6 :, width // 2 :] = 1 + class_id % 4  # another class
            if i == 1:  # lost where 48 x 64 becomes 32 x 32: columns 0, 2, 4, …; Pillow's 1, 3, …
                labels[labels == class_id] = 0
                labels[5, 8] = class_id
            name = f"c{class_id}_{i}.png"
            Image.fromarray(labels).save(root / "masks" / name)
            image = rng.randint(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / name)
    return root


@pytest.fixture(scope="module")
def dataset(tree: Path) -> SegDataset:
    return create_dataset("folder", tree)


def noise(seed: int, channels: int) -> NDArray[np.float32]:
    """What the method below says of an image: foreground where the noise is larger."""
    return np.random.RandomState(seed % 2**32).randn(channels, 7, 7).astype(np.float32)


class Noise(nn.Module):
    """Logits that hash query and supports."""

    input_size = SIDE

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        def total(image: Tensor) -> int:
            return int((255 * image.double()).round().sum())

        return torch.stack(
            [
                torch.from_numpy(noise(total(q) + 3 * total(s), 1 + s.shape[0]))
                for s, q in zip(support, query, strict=True)
            ]
        )


class Constant(nn.Module):
    """The same logits, whatever it is given."""

    input_size = SIDE

    def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
        return torch.from_numpy(noise(7, 1 + support.shape[1]))[None].repeat(len(query), 1, 1, 1)


@dataclass(frozen=True)
class Slow:
    """The second implementation."""

    tree: Path
    rules: EvaluationProtocol
    side: int
    constant: bool = False

    def image(self, name: str) -> NDArray[np.uint8]:
        return np.array(Image.open(self.tree / "images" / f"{name}.png").convert("RGB"))

    def labels(self, name: str) -> Labels:
        return np.array(Image.open(self.tree / "masks" / f"{name}.png"))

    def shape_in_square(self, height: int, width: int) -> tuple[int, int]:
        if self.rules.image_resize == "native":
            return height, width
        if self.rules.image_resize == "warp":
            return self.side, self.side
        ratio = self.side / max(height, width)
        long, short = self.side // 8 * 8, int(min(height, width) * ratio) // 8 * 8
        return (long, short) if height >= width else (short, long)

    def total(self, name: str) -> int:
        """Sum of the pixels that the method is given; what is around them adds 0."""
        pixels = self.image(name)
        height, width = self.shape_in_square(*pixels.shape[:2])
        if self.rules.image_resize != "native":
            resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(resized)
        return int(pixels.astype(np.int64).sum())

    def answer(self, query: str, supports: Sequence[str], ways: int) -> NDArray[np.float64]:
        seed = 7
        if not self.constant:
            seed = self.total(query) + 3 * sum(map(self.total, supports))
        return noise(seed, 1 + ways).astype(np.float64)

    def weights(self, n_in: int, n_out: int) -> NDArray[np.float64]:
        """Bilinear interpolation of one axis, [n_out, n_in]."""
        found = np.zeros((n_out, n_in))
        for i in range(n_out):
            if self.rules.logits_resize == "bilinear-corners":
                place = i * (n_in - 1) / (n_out - 1)
            else:
                place = max((i + 0.5) * n_in / n_out - 0.5, 0)
            low = int(place)
            found[i, low] += 1 - (place - low)
            found[i, min(low + 1, n_in - 1)] += place - low
        return found

    def label(self, logits: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
        rows, columns = self.side, self.side
        if self.rules.iou_at == "original":
            if self.rules.image_resize == "warp":
                rows, columns = height, width
            elif self.rules.image_resize == "pad":
                rows = columns = max(height, width)
        else:
            height, width = self.shape_in_square(height, width)
        fitted = self.weights(7, rows) @ logits @ self.weights(7, columns).T
        fitted = fitted[:, :height, :width]
        best, second = np.sort(fitted, axis=0)[[-1, -2]]
        assert (best - second).min() > 1e-6, "too near for float32: another seed"
        return np.asarray(fitted.argmax(axis=0))

    def target(self, query: str, classes: Sequence[int]) -> Labels:
        labels = self.labels(query)
        target = np.where(labels == 255, 255, 0).astype(np.uint8)
        for way, class_id in enumerate(classes, start=1):
            target[labels == class_id] = way
        if self.rules.iou_at == "original":
            return target
        height, width = self.shape_in_square(*labels.shape)
        return target[self.index(labels.shape[0], height)][:, self.index(labels.shape[1], width)]

    def index(self, n_in: int, n_out: int) -> list[int]:
        if self.rules.mask_resize == "nearest-pil":
            return [(2 * i + 1) * n_in // (2 * n_out) for i in range(n_out)]
        return [i * n_in // n_out for i in range(n_out)]

    def predicted(self, query: str, classes: Sequence[int], supports: Any) -> NDArray[np.int64]:
        height, width = self.labels(query).shape
        ways, shots = len(classes), len(supports[0])
        if self.rules.kshot == "method" or shots == 1:
            every = [image for way in supports for image in way]
            return self.label(self.answer(query, every, ways), height, width)
        assert ways == 1
        one_by_one = [
            self.label(self.answer(query, [supports[0][k]], ways), height, width)
            for k in range(shots)
        ]
        votes = np.sum(one_by_one, axis=0)
        enough = {"or": 1, "vote": max(votes.max(), 1) / 2}[self.rules.kshot]
        return np.asarray((votes >= enough).astype(int))

    def scores(self, run: Run) -> tuple[dict[int, tuple[int, int]], float, float]:
        """Counts a class, mIoU and FB-IoU of the episodes of a run."""
        inter, union, kinds = Counter[int](), Counter[int](), Counter[str]()
        for row in run.episodes.itertuples():
            guess = self.predicted(row.query, row.class_ids, row.supports)
            truth = self.target(row.query, row.class_ids)
            valid = truth != 255
            if self.rules.query_ignore == "background":
                valid, truth = valid | True, np.where(valid, truth, 0)
            drop = self.rules.vanished == "dropped"
            for way, class_id in enumerate(row.class_ids, start=1):
                a, b = (guess == way) & valid, (truth == way) & valid
                inter[class_id] += int((a & b).sum())
                union[class_id] += 0 if drop and not b.any() else int((a | b).sum())
            a, b = (guess > 0) & valid, (truth > 0) & valid
            kinds["fg", "inter"] += int((a & b).sum())
            kinds["fg", "union"] += 0 if drop and not b.any() else int((a | b).sum())
            kinds["bg", "inter"] += int((~a & ~b & valid).sum())
            kinds["bg", "union"] += int(((~a | ~b) & valid).sum())
        classes = [c for c in union if union[c]]
        miou = sum(inter[c] / union[c] for c in classes) / len(classes)
        foreground = kinds["fg", "inter"] / kinds["fg", "union"]
        background = kinds["bg", "inter"] / kinds["bg", "union"]
        counts = {c: (inter[c], union[c]) for c in union}
        return counts, miou, (foreground + background) / 2


PAIRS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {"query_ignore": "background"}),
    ({}, {"iou_at": "input"}),
    ({}, {"logits_resize": "bilinear-corners"}),
    ({}, {"image_resize": "pad"}),
    ({}, {"image_resize": "native"}),
    ({"iou_at": "input"}, {"iou_at": "input", "vanished": "dropped"}),
    ({"iou_at": "input"}, {"iou_at": "input", "mask_resize": "nearest-pil"}),
    ({"image_resize": "pad"}, {"image_resize": "pad", "iou_at": "input"}),
    ({"image_resize": "pad"}, {"image_resize": "pad", "logits_resize": "bilinear-corners"}),
    ({"query_ignore": "background"}, {"query_ignore": "background", "iou_at": "input"}),
    ({"image_resize": "native"}, {"image_resize": "native", "query_ignore": "background"}),
]


def check_twice(
    method: nn.Module, tree: Path, dataset: SegDataset, rules: dict[str, str], **setting: Any
) -> Run:
    """Evaluate, score the answers again, and demand the same integers."""
    resolved = protocol(**rules, min_pixels=1, episodes=10)
    run = evaluate(method, dataset, resolved, fold=0, **setting)
    side = 64 if resolved.image_resize == "native" else SIDE
    slow = Slow(tree, resolved, side, isinstance(method, Constant))
    counts, miou, fb_iou = slow.scores(run)
    assert {s.class_id: (s.inter, s.union) for s in run.metrics.per_class.values()} == counts
    assert run.metrics.miou == pytest.approx(miou, abs=1e-12)
    assert run.metrics.fb_iou == pytest.approx(fb_iou, abs=1e-12)
    return run


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda r: "+".join(r.values()) or "standard")
def test_two_protocols_give_the_numbers_of_plain_numpy(
    one: dict[str, str], other: dict[str, str], tree: Path, dataset: SegDataset
) -> None:
    runs = [check_twice(Noise(), tree, dataset, rules) for rules in (one, other)]
    assert runs[0].record["episodes_sha256"] == runs[1].record["episodes_sha256"]
    assert runs[0].metrics.miou != runs[1].metrics.miou


@pytest.mark.parametrize("iou_at", ["original", "input"])
def test_the_same_logits_under_every_resize(iou_at: str, tree: Path, dataset: SegDataset) -> None:
    mious = {
        check_twice(
            Constant(), tree, dataset, {"image_resize": resize, "iou_at": iou_at}
        ).metrics.miou
        for resize in ("warp", "pad", "native")
    }
    assert len(mious) == 3


@pytest.mark.parametrize("rules", [{}, {"iou_at": "input", "query_ignore": "background"}])
def test_two_ways_give_the_numbers_of_plain_numpy(
    rules: dict[str, str], tree: Path, dataset: SegDataset
) -> None:
    check_twice(Noise(), tree, dataset, rules, ways=2)


@pytest.mark.parametrize("kshot", ["method", "or", "vote"])
@pytest.mark.parametrize("rules", [{}, {"iou_at": "input"}, {"image_resize": "pad"}])
def test_several_shots_give_the_numbers_of_plain_numpy(
    kshot: str, rules: dict[str, str], tree: Path, dataset: SegDataset
) -> None:
    check_twice(Noise(), tree, dataset, {**rules, "kshot": kshot}, shots=3)


def test_the_tree_has_a_class_that_vanishes(tree: Path, dataset: SegDataset) -> None:
    kept, dropped = (
        check_twice(Constant(), tree, dataset, {"iou_at": "input", "vanished": rule})
        for rule in ("counted", "dropped")
    )
    gone = [i for i, v in enumerate(dropped.episodes["union_ways"]) if list(v) == [0]]
    assert gone
    assert [kept.episodes["union_ways"][i][0] > 0 for i in gone] == [True] * len(gone)


# what may share a segmentation

GIVEN = [
    "image_resize",
    "image_filter",
    "mask_resize",
    "support_ignore",
    "support_others",
    "annotation",
    "annotation_points",
    "kshot",
    "coco_overlap",
    "coco_crowd",
]
"""Rules that change what a method is given, or is asked."""
SCORED = [
    "iou_at",
    "logits_resize",
    "query_ignore",
    "vanished",
    "empty_class",
    "fb_iou",
    "base_images",
    "train_ignore",
]


def other_values(rule: str) -> list[Any]:
    kind = get_type_hints(EvaluationProtocol)[rule]
    current = getattr(STANDARD, rule)
    if get_origin(kind) is tuple:
        return [(5,)]
    if kind in (int, int | None):
        return [(current or 0) + 1]
    return [value for value in get_args(kind) if value != current]


@pytest.fixture(scope="module")
def setting(dataset: SegDataset) -> Setting:
    return create_setting(dataset, rules={"min_pixels": 1, "episodes": 4})


def test_every_rule_is_of_one_kind() -> None:
    assert sorted([*GIVEN, *SCORED, *DRAWING_RULES]) == sorted(STANDARD.rules)
    assert sorted(SCORED) == sorted(SCORING_RULES)


@pytest.mark.parametrize("rule", STANDARD.rules)
def test_settings_share_a_segmentation_unless_the_method_is_given_something_else(
    rule: str, setting: Setting
) -> None:
    key = segmentation_key(setting)
    for value in other_values(rule):
        other = replace(setting, protocol=replace(setting.protocol, **{rule: value}))
        assert (segmentation_key(other) == key) == (rule not in GIVEN)


def test_names_do_not_matter_and_episodes_do(setting: Setting) -> None:
    key = segmentation_key(setting)
    named = replace(setting, protocol=replace(setting.protocol, name="mine"))
    assert segmentation_key(named) == key
    fewer = replace(setting, specs=setting.specs[:3])
    others = [fewer] + [replace(setting, **{name: 2}) for name in ("fold", "ways", "shots")]
    assert len({key, *map(segmentation_key, others)}) == 5


def test_another_tree_is_never_shared(setting: Setting, make_folder: Callable[..., Path]) -> None:
    other = replace(setting, dataset=create_dataset("folder", make_folder()))
    assert segmentation_key(other) != segmentation_key(setting)
