"""Published orders drawn from the data: exact where they can be, and their quirks."""

import ast
import io
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fss_bench.dataset import SegDataset, create_dataset
from fss_bench.errors import EpisodeError, FssBenchError
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol
from fss_bench.published_draws import (
    ORDERS,
    Listed,
    oslsm_episodes,
    panet_episodes,
    pfenet_episodes,
    revolver_episodes,
    shuffle_as_python2,
)
from fss_bench.setting import Setting, create_setting

NAMES = {1: "cat", 2: "dog", 3: "cow"}
BIG, SMALL = 5000, 30
IMAGES: dict[str, dict[int, int]] = {  # a list of eight images: what is in each, in pixels
    "a": {1: BIG},
    "b": {1: BIG, 2: SMALL},
    "c": {2: BIG},
    "d": {3: SMALL},
    "e": {2: BIG, 3: BIG},
    "f": {3: BIG, 1: BIG},
    "g": {1: SMALL, 2: SMALL},
    "h": {2: BIG, 3: BIG},
}


def listed(name: str, images: Mapping[str, Mapping[int, int]] = IMAGES, **rules: Any) -> Listed:
    protocol = PROTOCOLS[name].replace_rules(rules)
    return Listed(0, images, protocol, NAMES)


# PFENet and BAM


@cache
def val_pixels(shared: Path) -> dict[str, list[int]]:
    """Image -> pixels of each label, of all 1,449 val images of VOC 2012."""
    found = {}
    with zipfile.ZipFile(shared / "data" / "voc_aug_masks.zip") as archive:
        files = {Path(name).stem: name for name in archive.namelist() if name.endswith(".png")}
        for line in (shared / "lists" / "pfenet" / "val.txt").read_text().splitlines():
            image = Path(line.split()[0]).stem
            labels = np.asarray(Image.open(io.BytesIO(archive.read(files[image]))))
            found[image] = np.bincount(labels.ravel(), minlength=256).tolist()
    assert len(found) == 1449
    return found


@pytest.mark.parametrize("fold", range(4))
def test_the_lists_of_bam_are_met_exactly(shared: Path, fold: int) -> None:
    folder = shared / "lists" / "bam_pascal" / "val"
    images = [
        Path(line.split()[0]).stem
        for line in (folder / f"data_list_{fold}.txt").read_text().splitlines()
    ]
    by_class = {
        class_id: [Path(pair[0]).stem for pair in pairs]
        for class_id, pairs in ast.literal_eval(
            (folder / f"sub_class_file_list_{fold}.txt").read_text()
        ).items()
    }
    novel = range(5 * fold + 1, 5 * fold + 6)
    present = {
        image: {c: pixels[c] for c in novel if pixels[c]}
        for image, pixels in val_pixels(shared).items()
    }
    present = {image: found for image, found in present.items() if found}
    names = {c: str(c) for c in novel}
    source = Listed(fold, present, PROTOCOLS["bam"], names)
    assert source.pools() == by_class
    specs, short = pfenet_episodes(source, 1, 5, len(images), seed=510)
    assert [spec.query for spec in specs] == images
    assert short == []


def test_pfenet_draws_a_class_below_the_size_filter() -> None:
    specs, _ = pfenet_episodes(listed("pfenet"), 1, 1, 700, seed=321)
    queries = [spec.query for spec in specs]
    assert queries[:7] == ["a", "b", "c", "e", "f", "h", "a"]  # not d and g: nothing large in them
    drawn = Counter((spec.query, spec.classes[0]) for spec in specs)
    assert drawn["b", 2] > 20  # 30 pixels of dog, drawn because there is a large cat
    supports = {(spec.classes[0], image) for spec in specs for image in spec.supports[0]}
    assert supports == {
        (c, image) for image, pixels in IMAGES.items() for c in pixels if pixels[c] == BIG
    }


def test_with_the_filter_on_the_class_no_small_one_is_drawn() -> None:
    specs, _ = pfenet_episodes(listed("pfenet", min_pixels_of="class"), 1, 1, 700, seed=321)
    assert all(IMAGES[spec.query][spec.classes[0]] == BIG for spec in specs)


def test_pfenet_ends_one_late(voc_mini: SegDataset) -> None:
    protocol = PROTOCOLS["pfenet"]
    assert (protocol.episodes, protocol.coco_episodes) == (5001, 20001)
    specs = create_setting(voc_mini, "pfenet").specs
    assert len(specs) == 5001
    assert specs[-1].index == 5000
    asked = list(dict.fromkeys(spec.query for spec in specs))
    assert specs[-1].query == asked[5000 % len(asked)]


def test_bam_has_the_seeds_that_numpy_draws() -> None:
    stream = np.random.RandomState(123)
    assert PROTOCOLS["bam"].seeds == tuple(stream.randint(0, 1000, size=5).tolist())


def test_bams_five_runs_ask_the_same_images(voc_mini: SegDataset) -> None:
    specs = create_setting(voc_mini, "bam", shots=5).specs
    assert [spec.index for spec in specs] == list(range(5000))
    runs = [specs[1000 * r : 1000 * (r + 1)] for r in range(5)]
    assert all([s.query for s in run] == [s.query for s in runs[0]] for run in runs)
    assert len({tuple(s.supports for s in run) for run in runs}) == 5


def test_bam_on_coco_asks_the_first_thousand_images() -> None:
    images = {f"{i:06d}": {1 + i % 3: BIG} for i in range(3000)}
    specs, _ = pfenet_episodes(listed("bam", images), 1, 1, 1000, seed=510)
    assert [spec.query for spec in specs] == list(images)[:1000]
    assert PROTOCOLS["bam"].coco_episodes is None


# PANet


def test_panet_draws_from_the_training_images(voc_mini: SegDataset) -> None:
    specs = create_setting(voc_mini, "panet").specs
    train, test = set(voc_mini.images("train")), set(voc_mini.images("test"))
    assert {image for spec in specs for image in spec.images} <= train
    assert create_setting(voc_mini, "panet", rules={"test_split": "test"}).protocol.changes == {
        "test_split": "test"
    }
    honest = create_setting(voc_mini, "panet", rules={"test_split": "test"}).specs
    assert {image for spec in honest for image in spec.images} <= test


@pytest.mark.parametrize("ways", [1, 2])
def test_panet_draws_classes_evenly_and_images_once(ways: int) -> None:
    images = {f"{c}{i}": {c: 1 + i} for c in NAMES for i in range(8)}
    specs, _ = panet_episodes(listed("panet", images), ways, 2, 3000, seed=1234)
    counts = Counter(c for spec in specs for c in spec.classes)
    assert set(counts) == set(NAMES)
    assert max(counts.values()) < 1.2 * min(counts.values())
    asked = Counter()
    for spec in specs:
        every = [spec.query, *(image for way in spec.supports for image in way)]
        assert len(set(every)) == len(every) == 1 + 2 * ways
        for class_id, way in zip(spec.classes, spec.supports, strict=True):
            assert {image[0] for image in way} == {str(class_id)}
        asked[[str(c) for c in spec.classes].index(spec.query[0])] += 1
    assert set(asked) == set(range(ways))
    assert max(asked.values()) < 1.2 * min(asked.values())


# OSLSM


def test_the_shuffle_of_python_2() -> None:
    # by its rule: the last place first, each swapped with int(random() * (place + 1))
    class Fixed(Random):
        values = iter([0.0, 0.99, 0.5])

        def random(self) -> float:
            return next(self.values)

    items = ["a", "b", "c", "d"]
    # place 3 with 0: d b c a; place 2 with 2; place 1 with int(0.5 * 2) = 1
    shuffle_as_python2(items, Fixed())
    assert items == ["d", "b", "c", "a"]


def test_python_3_shuffles_otherwise() -> None:
    ours, theirs = list(range(20)), list(range(20))
    shuffle_as_python2(ours, Random(1385))
    Random(1385).shuffle(theirs)
    assert sorted(ours) == sorted(theirs)
    assert ours != theirs


def test_oslsm_asks_every_pair_once_a_pass_in_another_order() -> None:
    specs, _ = oslsm_episodes(listed("oslsm"), 1, 2, 26, seed=1385)
    pairs = [(spec.query, spec.classes[0]) for spec in specs]
    whole = sorted((image, c) for image, found in IMAGES.items() for c in found)
    assert len(whole) == 13
    assert sorted(pairs[:13]) == sorted(pairs[13:]) == whole
    assert pairs[:13] != pairs[13:]
    for spec in specs:
        assert spec.query not in spec.supports[0]
        assert len(set(spec.supports[0])) == 2
        assert all(spec.classes[0] in IMAGES[image] for image in spec.supports[0])


def test_oslsm_follows_one_stream() -> None:
    pairs = [(image, c) for image, found in IMAGES.items() for c in sorted(found)]
    stream = Random(1385)
    shuffle_as_python2(pairs, stream)
    expected = []
    for query, class_id in pairs[:5]:
        pool = [image for image, found in IMAGES.items() if class_id in found]
        shuffle_as_python2(pool, stream)
        support = next(image for image in pool if image != query)
        expected.append((query, class_id, support))
    specs, _ = oslsm_episodes(listed("oslsm"), 1, 1, 5, seed=1385)
    assert [(s.query, s.classes[0], s.supports[0][0]) for s in specs] == expected


# Revolver


def test_revolver_asks_every_pair_once(voc_mini: SegDataset) -> None:
    specs = create_setting(voc_mini, "revolver").specs
    pixels = voc_mini.index.class_pixels("test", voc_mini.novel_classes(0))
    pairs = [(image, c) for image in sorted(pixels) for c in sorted(pixels[image])]
    assert [(spec.query, spec.classes[0]) for spec in specs] == pairs


def test_a_support_of_revolver_may_be_the_query_and_may_repeat() -> None:
    specs, _ = revolver_episodes(listed("revolver"), 1, 5, 0, seed=1337)
    assert any(spec.query in spec.supports[0] for spec in specs)
    assert any(len(set(spec.supports[0])) < 5 for spec in specs)
    strict = listed("revolver", support_query="never", support_draw="distinct")
    specs, _ = revolver_episodes(strict, 1, 2, 0, seed=1337)
    assert not any(spec.query in spec.supports[0] for spec in specs)
    assert all(len(set(spec.supports[0])) == 2 for spec in specs)


# All of them


@pytest.fixture(scope="module")
def voc_mini(shared: Path) -> SegDataset:
    return create_dataset("pascal5i", shared / "data" / "voc_mini")


DIGESTS = {
    ("standard", 1): (1000, "c128aa762f3261a3"),
    ("standard", 5): (1000, "25ece96c903bba5e"),
    ("hsnet", 1): (1000, "beab7c35e7995dd8"),
    ("hsnet", 5): (1000, "7a6a9814e2a5fe4c"),
    ("hsnet-orig", 1): (1000, "beab7c35e7995dd8"),
    ("hsnet-orig", 5): (1000, "7a6a9814e2a5fe4c"),
    ("pfenet", 1): (5001, "a2f21a2d0254827e"),
    ("pfenet", 5): (5001, "1bb6052fd0e73f32"),
    ("bam", 1): (5000, "b93d054060fdb39f"),
    ("bam", 5): (5000, "4db97725bfb9779d"),
    ("panet", 1): (5000, "57afc03db377ac96"),
    ("panet", 5): (5000, "7422d3148d7ddc60"),
    ("oslsm", 1): (1000, "bc021d0adf6d9880"),
    ("oslsm", 5): (1000, "00f615ddfb4eed0c"),
    ("revolver", 1): (85, "d0353b23389aae46"),
    ("revolver", 5): (85, "62d2fbf73e8ae4ef"),
}


@pytest.mark.parametrize(("name", "shots"), DIGESTS)
def test_digests_on_voc_mini(voc_mini: SegDataset, shared: Path, name: str, shots: int) -> None:
    setting = create_setting(voc_mini, name, shots=shots, split_lists=shared / "lists" / "hsnet")
    assert (len(setting.specs), setting.sha256[:16]) == DIGESTS[name, shots]
    assert {name for name, _ in DIGESTS} == set(PROTOCOLS)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shots", [1, 2])
def test_fewer_episodes_are_the_first_ones(order: str, shots: int) -> None:
    few, _ = ORDERS[order](listed(order), 1, shots, 15, 7)
    more, _ = ORDERS[order](listed(order), 1, shots, 40, 7)
    other, _ = ORDERS[order](listed(order), 1, shots, 40, 8)
    assert more[:15] == few
    assert len(more) == 40
    assert more != other


@pytest.mark.parametrize("order", ["pfenet", "oslsm", "revolver"])
def test_several_ways_are_refused(order: str) -> None:
    with pytest.raises(EpisodeError, match=f"protocol {order} is 1-way: --ways 2 is not possible"):
        ORDERS[order](listed(order), 2, 1, 5, 0)


def test_more_ways_than_classes_are_refused() -> None:
    with pytest.raises(
        EpisodeError, match="4-way episodes need 4 classes, fold 0 has 3: use fewer"
    ):
        panet_episodes(listed("panet"), 4, 1, 5, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_too_few_images_name_the_classes_or_leave_them_out(order: str) -> None:
    images = {**IMAGES, "i": {1: BIG}, "j": {2: BIG}}
    rules: dict[str, Any] = {"support_draw": "distinct", "support_query": "never"}
    source = listed(order, images, **rules, min_pixels=2048, min_pixels_of="class")
    with pytest.raises(EpisodeError, match=rf"protocol {order} need 4 images a class.*cow"):
        ORDERS[order](source, 1, 3, 5, 0)
    protocol = source.protocol.replace_rules({"short_classes": "skip"})
    specs, short = ORDERS[order](replace(source, protocol=protocol), 1, 3, 50, 0)
    assert short == [3]
    assert {spec.classes for spec in specs} == {(1,), (2,)}


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.seeds])
def test_a_seed_is_refused_where_the_protocol_has_its_own(voc_mini: SegDataset, name: str) -> None:
    with pytest.raises(FssBenchError, match=f"--seed 3: protocol {name} has its own seeds: drop"):
        create_setting(voc_mini, name, seed=3)


def test_other_seeds_are_other_episodes(voc_mini: SegDataset) -> None:
    def drawn(protocol: EvaluationProtocol) -> Setting:
        return create_setting(voc_mini, protocol)

    bam = PROTOCOLS["bam"]
    two = drawn(bam.replace_rules({"runs": 2}))
    assert two.protocol.seeds == (510, 365)
    assert two.protocol.label == "bam+runs=2+seeds=510-365"
    assert list(two.specs) == list(drawn(bam).specs)[:2000]
    swapped = drawn(bam.replace_rules({"seeds": "365-510"})).specs
    assert [s.supports for s in swapped[:1000]] == [s.supports for s in two.specs[1000:]]


def test_runs_of_the_standard_are_its_seeds(voc_mini: SegDataset) -> None:
    three = create_setting(voc_mini, rules={"runs": 3, "episodes": 20}, seed=4).specs
    alone = [create_setting(voc_mini, episodes=20, seed=4 + r).specs for r in range(3)]
    together = [replace(spec, index=20 * r + spec.index) for r in range(3) for spec in alone[r]]
    assert list(three) == together
