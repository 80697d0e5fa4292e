"""Methods in parts: evaluation from kept parts equals `forward` on the episode's own tensors."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_backbone import PixelBackbone
from torch import Tensor, nn

from fss_bench import Compute, ResultStore, cost, create_backbone, create_method, evaluate
from fss_bench.backbone import Features
from fss_bench.dataset import SegDataset, create_dataset
from fss_bench.encoding import ImageStore, OneShotAtATime
from fss_bench.evaluation import Evaluation
from fss_bench.items import wants
from fss_bench.loading import EpisodeLoader
from fss_bench.part_method import PartMethod, Size, in_parts
from fss_bench.passes import evaluate_all
from fss_bench.registry import methods
from fss_bench.results import Run
from fss_bench.scoring import Answers, score_row
from fss_bench.setting import Setting, create_setting

SMALL = 1500 / 2**30
"""GB of memory or disk that hold a few parts of `Means`."""
COMPUTES = {
    "nothing kept": Compute(cache_gb=0, disk_gb=0),
    "some kept": Compute(cache_gb=SMALL, disk_gb=0),
    "all on disk": Compute(cache_gb=0, disk_gb=1),
    "some on disk": Compute(cache_gb=SMALL, disk_gb=SMALL),
    "batches": Compute(batch_size=3),
    "batches of both": Compute(batch_size=3, encode_batch=4),
    "groups, nothing kept": Compute(encode_batch=4, cache_gb=0, disk_gb=0),
    "groups, some kept": Compute(encode_batch=4, cache_gb=SMALL, disk_gb=SMALL, batch_size=3),
    "workers": Compute(workers=2, encode_batch=4),
    "workers, nothing kept": Compute(workers=2, cache_gb=0, disk_gb=0, batch_size=3),
}
RULES: dict[str, dict[str, Any]] = {
    "one way": {"ways": 1},
    "plain": {},
    "votes": {"kshot": "vote"},
    "points": {"annotation": "points"},
    "others excluded": {"support_others": "excluded", "support_ignore": "background"},
    "padded, votes": {"image_resize": "pad", "kshot": "vote", "iou_at": "input"},
}


class Means(PartMethod):
    """Distance to the mean colours of cells on and off the class; tallies what it is asked."""

    def __init__(self, input_size: int = 32) -> None:
        super().__init__(PixelBackbone(), ("c2",), input_size)
        # names with an underscore are no part of a run's identity
        self._encoded, self._supports, self._queries = (Counter[bytes]() for _ in range(3))

    def encode(self, images: Tensor) -> Features:
        self._encoded.update(image.numpy().tobytes() for image in images if image.any())
        return super().encode(images)

    def support_part(self, features: Features, mask: Tensor) -> Features:
        maps = features["c2"]
        self._supports[maps.numpy().tobytes() + mask.numpy().tobytes()] += 1
        areas = [F.avg_pool2d((mask == label).float()[None], 4) for label in (0, 1)]
        means = [(maps[0] * area).sum((1, 2)) / (area.sum() + 1e-5) for area in areas]
        return {"means": torch.stack(means), "seen": (mask != 255).sum().reshape(1)}

    def query_part(self, features: Features) -> Features:
        self._queries[features["c2"].numpy().tobytes()] += 1
        return {"cells": features["c2"].permute(0, 2, 3, 1) ** 0.5}  # in no order of its own

    def compare(
        self, supports: Sequence[Sequence[Features]], query: Features, size: Size
    ) -> Tensor:
        weights = [torch.stack([part["seen"] for part in way]).float() for way in supports]
        means = [
            (torch.stack([part["means"] for part in way]) * w[..., None]).sum(0) / w.sum()
            for way, w in zip(supports, weights, strict=True)
        ]  # N of [2, C]
        shown = torch.stack([sum(m[0] for m in means) / len(means), *(m[1] for m in means)])
        cells = query["cells"] ** 2
        return -(cells[:, None] - shown[None, :, None, None]).square().sum(-1)


@pytest.fixture(autouse=True)
def no_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting FLOPs takes longer than these small evaluations, and asks the method more."""
    monkeypatch.setattr(cost, "gflops", lambda module, inputs: 0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SegDataset:
    """Four classes, two in each of 16 images, of three sizes and with some 255."""
    root = tmp_path_factory.mktemp("parts")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    rng = np.random.RandomState(5)
    for number in range(16):
        height, width = [(40, 60), (56, 48), (33, 33)][number % 3]
        labels = np.zeros((height, width), np.uint8)
        first, second = number % 4 + 1, (number + 1 + number // 4) % 4 + 1
        top, left = rng.randint(0, 12, 2)
        labels[top : top + 14, left : left + 16] = first
        labels[top + 10 : top + 20, left + 5 : left + 20] = second
        labels[:3] = 255
        image = rng.randint(0, 200, (height, width, 3))
        for class_id in (first, second):
            image[labels == class_id, class_id % 3] = 40 * class_id
        for folder, pixels in (("images", image), ("masks", labels)):
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{number:02d}.png")
    return create_dataset("folder", root)


def make_setting(dataset: SegDataset, ways: int = 2, episodes: int = 9, **rules: Any) -> Setting:
    rules = {"min_pixels": 1, "episodes": episodes, **rules}
    return create_setting(dataset, rules=rules, ways=ways, shots=2)


def run_on(setting: Setting, method: nn.Module, compute: Compute) -> Run:
    (run,) = Evaluation(method, [setting], compute).run()
    return run


def rows(run: Run) -> list[dict[str, Any]]:
    return [{**row} for row in run.episodes.drop(columns="ms").to_dict("records")]


def by_forward(setting: Setting, method: nn.Module) -> list[dict[str, Any]]:
    """The rows from `forward` on the tensors of every episode alone."""
    side, protocol, found = int(method.input_size), setting.protocol, []  # type: ignore[arg-type]
    loader = EpisodeLoader(setting.dataset, protocol, (), side)
    alone = protocol.kshot != "method"
    for spec in setting.specs:
        one = loader.episode(spec)
        asked = OneShotAtATime(method) if alone else method
        with torch.no_grad():
            logits = asked(one.support_images[None], one.support_masks[None], one.query_image[None])
        answers = Answers((logits if alone else logits[:, None]).float(), side)
        (labels,), _ = answers.labels([one.query_mask], protocol)
        row = score_row(spec, labels, one.query_mask.numpy(), protocol, 0.0)
        found.append({name: value for name, value in row.items() if name != "ms"})
    return found


# what is asked of a method


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("compute", COMPUTES.values(), ids=COMPUTES)
def test_counts_are_those_of_forward(
    compute: Compute, rules: dict[str, Any], dataset: SegDataset
) -> None:
    setting = make_setting(dataset, **rules)
    assert rows(run_on(setting, Means(), compute)) == by_forward(setting, Means())


def test_forward_tells_the_rules_apart(dataset: SegDataset) -> None:
    """Else the test above would not see which of them a run was made under."""
    found = {str(by_forward(make_setting(dataset, **own), Means())) for own in RULES.values()}
    assert len(found) == len(RULES)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    "compute",
    [
        Compute(),
        Compute(batch_size=3, encode_batch=4, workers=2),
        Compute(cache_gb=0, disk_gb=1),
    ],
    ids=["plain", "batches", "disk"],
)
def test_with_room_every_part_is_made_once(
    compute: Compute, rules: dict[str, Any], dataset: SegDataset
) -> None:
    setting, method = make_setting(dataset, episodes=24, **rules), Means()
    needed = {w.item for s in setting.specs for w in wants(s, setting.protocol, True)}
    run_on(setting, method, compute)
    for tally, role in ((method._supports, "support"), (method._queries, "query")):
        assert tally.total() == sum(item.role == role for item in needed)
        # equal masks of several draws are as many calls, of points that is
        assert set(tally.values()) == {1} or rules.get("annotation") == "points"
    assert set(method._encoded.values()) == {1}
    assert len(method._encoded) == len({item.image for item in needed})


def test_without_room_an_episode_makes_its_own_parts_again(dataset: SegDataset) -> None:
    setting, method = make_setting(dataset, 1, 24), Means()
    run_on(setting, method, Compute(cache_gb=0, disk_gb=0))
    assert method._encoded.total() == sum(len(spec.images) for spec in setting.specs)
    some = Means()
    run_on(setting, some, Compute(cache_gb=SMALL, disk_gb=0))
    assert len(method._encoded) < some._encoded.total() < method._encoded.total()


def test_a_support_of_two_masks_is_two_parts_of_one_image(
    dataset: SegDataset, tmp_path: Path
) -> None:
    """Passes that give supports in two ways, or ask for them one at a time."""
    own: list[dict[str, Any]] = [{}, {"annotation": "box"}, {"kshot": "vote"}]
    settings, method = [make_setting(dataset, **rules) for rules in own], Means()

    class One:
        def method_for(self, fold: int) -> nn.Module:
            return method

        def name_for(self, fold: int) -> str | None:
            return None

    store = ResultStore(tmp_path)
    runs = list(evaluate_all(settings, [One()], Compute(), store, watch=lambda *_: nullcontext()))
    for setting in settings:
        (run,) = (r for r in runs if r.record["protocol"] == setting.protocol.record)
        wanted = by_forward(setting, Means())
        names = ["index", "inter_fg", "union_fg", "inter_bg", "union_bg"]
        assert run.episodes[names].to_dict("records") == [
            {name: row[name] for name in names} for row in wanted
        ]
    shown = {
        w.item
        for setting in settings
        for spec in setting.specs
        for w in wants(spec, setting.protocol, True)
    }
    assert set(method._encoded.values()) == {1}
    assert method._queries.total() == sum(item.role == "query" for item in shown)
    assert method._supports.total() == sum(item.role == "support" for item in shown)


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_kept_holds_no_more_than_itself(whole: bool, dataset: SegDataset) -> None:
    """Not the batch that it is a view of, nor memory that workers share: a file handle each."""

    class Default(PartMethod):
        """Its supports' parts hold the masks that workers gave."""

        def __init__(self) -> None:
            super().__init__(PixelBackbone(), ("c2", "c3"), 32)

        def query_part(self, features: Features) -> Features:
            return {level: maps.clone().mT for level, maps in features.items()}

        def compare(
            self, supports: Sequence[Sequence[Features]], query: Features, size: Size
        ) -> Tensor:
            return F.pad(query["c2"][:, :1], (0, 0, 0, 0, 0, len(supports)))

    class Whole(nn.Module):
        input_size = 32

        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            return query[:, :2]

    method = Whole() if whole else Default()
    method.eval()
    images = ImageStore([method], torch.device("cpu"), Path("unused"), 4)
    later = make_setting(dataset, 1, 9)
    evaluation = Evaluation(method, [later], Compute(workers=1), images=images)
    kept: list[Tensor] = []
    put = images.shelf.put

    def keep(item: Any, maps: dict[str, Tensor], seconds: float) -> None:
        kept.extend(maps.values())
        put(item, maps, seconds)

    images.shelf.put = keep  # type: ignore[method-assign, assignment]
    evaluation.run()
    assert len(kept) > 10
    for value in kept:
        assert value.is_contiguous()
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
        assert not value.is_shared()


@pytest.mark.parametrize("compute", [Compute(), Compute(cache_gb=0, disk_gb=0, batch_size=3)])
def test_images_are_encoded_in_groups_of_one_size(compute: Compute, dataset: SegDataset) -> None:
    """What is encoded beside an image is another with room than without: its number is not."""
    sizes = set()

    class Counted(Means):
        def encode(self, images: Tensor) -> Features:
            sizes.add(len(images))
            return super().encode(images)

    run_on(make_setting(dataset), Counted(), replace(compute, encode_batch=7))
    assert sizes == {7}


# rounding


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_rounded_parts_do_not_depend_on_where_they_are_kept(
    dtype: str, dataset: SegDataset
) -> None:
    setting = make_setting(dataset, 1, 12)
    full = run_on(setting, Means(), Compute())
    runs = [
        run_on(setting, Means(), Compute(cache_dtype=dtype, **room))
        for room in (
            {},
            {"cache_gb": 0, "disk_gb": 0},
            {"cache_gb": 0, "disk_gb": 1},
            {"workers": 1},
        )
    ]
    for run in runs:
        assert rows(run) == rows(runs[0])
        assert run.record["run_id"] == runs[0].record["run_id"]
    assert runs[0].record["run_id"] != full.record["run_id"]
    assert runs[0].record["cache_dtype"] == dtype
    assert "cache_dtype" not in full.record
    assert rows(runs[0]) != rows(full)  # it is rounded
    assert runs[0].metrics.miou == pytest.approx(full.metrics.miou, abs=0.05)


def test_rounding_halves_what_is_kept_and_touches_no_masks(dataset: SegDataset) -> None:
    (spec, *_) = make_setting(dataset).specs
    found = wants(spec, make_setting(dataset).protocol, True)
    used = []
    for kind in ("fp32", "fp16"):
        images = ImageStore([Means()], torch.device("cpu"), Path("unused"), kept_as=kind)
        images.shelf.begin({want.item: [0] for want in found}, 10**6, 0)
        pixels = {i: torch.full((3, 32, 32), 77, dtype=torch.uint8) for i in spec.images}
        masks = {
            w.item: torch.zeros(32, 32, dtype=torch.uint8) if w.way >= 0 else None for w in found
        }
        images.add(pixels, masks, [want.item for want in found])
        assert images._get(found[0].item)["cells"].dtype == torch.float32
        assert images._get(found[1].item)["seen"].dtype == torch.int64
        used.append(images.shelf.used)
    whole = 4 * 8  # four supports' counts, which are integers
    assert used[0] - whole == 2 * (used[1] - whole)


# built-in methods


@pytest.fixture(scope="module")
def backbone() -> Any:
    return create_backbone("tf_efficientnet_lite0", weights="none")


BUILT_IN = [name for name in methods.names() if issubclass(methods.get(name), PartMethod)]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize(("ways", "rules"), [(1, {}), (2, {"kshot": "vote"})])
def test_built_in_methods_give_the_counts_of_forward(
    name: str, ways: int, rules: dict[str, Any], backbone: Any, dataset: SegDataset
) -> None:
    method = create_method(name, backbone, input_size=64)
    assert in_parts(method)
    setting = make_setting(dataset, ways, 3, **rules)
    small = 10**5 / 2**30
    runs = [
        run_on(setting, method, compute)
        for compute in (
            Compute(cache_gb=0, disk_gb=1),
            Compute(cache_gb=small, disk_gb=small, batch_size=3, workers=2),
            Compute(cache_gb=0, disk_gb=0, encode_batch=4),
        )
    ]
    wanted = by_forward(setting, method)
    for run in runs:
        assert rows(run) == wanted


def test_a_subclass_with_a_segment_of_its_own_is_not_in_parts(dataset: SegDataset) -> None:
    class Other(Means):
        def segment(self, support: Features, masks: Tensor, query: Features) -> Tensor:
            return -super().segment(support, masks, query)

    class Further(Means):
        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            return -super().forward(support, masks, query)

    setting = make_setting(dataset)
    plain = rows(run_on(setting, Means(), Compute()))
    assert in_parts(Means())
    for kind in (Other, Further):
        assert not in_parts(kind())
        found = rows(run_on(setting, kind(), Compute(cache_gb=SMALL)))
        assert found == by_forward(setting, kind()) != plain


def test_evaluate_takes_parts_from_the_python_interface(dataset: SegDataset) -> None:
    run = evaluate(
        Means(),
        dataset,
        rules={"min_pixels": 1},
        ways=2,
        shots=2,
        episodes=9,
        compute=Compute(cache_gb=0),
    )
    assert rows(run) == by_forward(make_setting(dataset), Means())
