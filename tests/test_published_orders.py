"""HSNet's published episodes: against the digests of the official code, and damaged lists."""

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fss_bench.dataset import create_dataset
from fss_bench.episodes import EpisodeSpec
from fss_bench.errors import DatasetError, EpisodeError, FssBenchError
from fss_bench.published_orders import HSNetLists, hsnet_digest, hsnet_episodes, read_hsnet_lists
from fss_bench.setting import create_setting, listed_episodes

DATASETS = {"pascal": "pascal5i", "coco": "coco20i"}
CELLS = [(s, fold, shots) for s in DATASETS for fold in range(4) for shots in (1, 5)]


@pytest.fixture(scope="session")
def lists(shared: Path) -> Path:
    return shared / "lists" / "hsnet"


@pytest.fixture(scope="session")
def golden(shared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "golden" / "hsnet_episodes.json").read_text())
    assert len(found) == len(CELLS) == 16
    return found


@pytest.fixture(scope="session")
def replayed(lists: Path) -> Callable[..., list[EpisodeSpec]]:
    drawn: dict[tuple[str, int, int], list[EpisodeSpec]] = {}

    def replay(source: str, fold: int, shots: int) -> list[EpisodeSpec]:
        if (source, fold, shots) not in drawn:
            drawn[source, fold, shots] = listed_episodes(
                DATASETS[source], "hsnet", lists, fold=fold, shots=shots
            )
        return drawn[source, fold, shots]

    return replay


@pytest.mark.parametrize(("source", "fold", "shots"), CELLS)
def test_episodes_equal_the_official_codes(
    replayed: Callable[..., list[EpisodeSpec]],
    golden: dict[str, Any],
    source: str,
    fold: int,
    shots: int,
) -> None:
    specs = replayed(source, fold, shots)
    expected = golden[f"{source}_fold{fold}_{shots}shot"]
    first = [[spec.classes[0] - 1, spec.query, list(spec.supports[0])] for spec in specs[:20]]
    assert first == expected["first20"]
    assert hsnet_digest(specs) == expected["sha256"]
    assert [spec.index for spec in specs] == list(range(1000))
    assert {spec.fold for spec in specs} == {fold}
    assert {len(spec.supports[0]) for spec in specs} == {shots}
    assert not any(spec.query in spec.supports[0] for spec in specs)


@pytest.mark.parametrize(
    ("source", "counts"), [("pascal", (133, 112, 53, 133)), ("coco", (22, 16, 39, 27))]
)
def test_supports_repeat_as_often_as_published(
    replayed: Callable[..., list[EpisodeSpec]], source: str, counts: tuple[int, ...]
) -> None:
    # PROTOCOLS.md 1.3, row 12
    found = [
        sum(len(set(spec.supports[0])) < 5 for spec in replayed(source, fold, 5))
        for fold in range(4)
    ]
    assert found == list(counts)


def test_classes_are_the_folds_novel_ones(replayed: Callable[..., list[EpisodeSpec]]) -> None:
    for fold in range(4):
        pascal = {spec.classes[0] for spec in replayed("pascal", fold, 1)}
        coco = {spec.classes[0] for spec in replayed("coco", fold, 1)}
        assert pascal == set(range(5 * fold + 1, 5 * fold + 6))
        assert coco == set(range(fold + 1, 81, 4))


def coco_by_class(lists: Path, fold: int = 0) -> dict[int, list[str]]:
    raw = gzip.decompress((lists / "coco_json" / f"val_fold{fold}.json.gz").read_bytes())
    return {int(c): names for c, names in json.loads(raw).items()}


def write_pickle(folder: Path, content: Any, fold: int = 0) -> Path:
    file = folder / "coco" / "val" / f"fold{fold}.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content))
    return file


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_the_official_pickle_gives_the_same_episodes(
    lists: Path, golden: dict[str, Any], tmp_path: Path, protocol: int
) -> None:
    file = tmp_path / "coco" / "val" / "fold1.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(coco_by_class(lists, 1), protocol=protocol))
    specs = listed_episodes("coco20i", "hsnet", tmp_path, fold=1, shots=1)
    assert hsnet_digest(specs) == golden["coco_fold1_1shot"]["sha256"]


class RunsACommand:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class WritesWhenBuilt:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("attack", [RunsACommand, WritesWhenBuilt])
@pytest.mark.parametrize("depth", ["whole", "key", "inside"])
def test_a_malicious_pickle_is_refused_and_does_nothing(
    tmp_path: Path, attack: Any, depth: str
) -> None:
    marker = tmp_path / "marker"
    evil = attack(marker)
    write_pickle(tmp_path, {"whole": evil, "key": {evil: ["a"]}, "inside": {0: ["a", evil]}}[depth])
    with pytest.raises(DatasetError, match="is not admitted") as error:
        read_hsnet_lists(tmp_path, "coco20i", 0)
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_the_attacks_above_would_work_on_a_plain_unpickler(tmp_path: Path) -> None:
    for i, attack in enumerate((RunsACommand, WritesWhenBuilt)):
        marker = tmp_path / f"marker{i}"
        opened = pickle.loads(pickle.dumps(attack(marker)))
        if hasattr(opened, "close"):
            opened.close()
        assert marker.exists()


@pytest.mark.parametrize(
    "template",
    [
        "cos\nsystem\n(S'touch {marker}'\ntR.",  # GLOBAL, REDUCE
        "(S'touch {marker}'\nios\nsystem\n.",  # INST
        "(cos\nsystem\nS'touch {marker}'\no.",  # OBJ
        "S'os'\nS'system'\n\x93(S'touch {marker}'\ntR.",  # STACK_GLOBAL
    ],
)
def test_every_opcode_that_calls_is_refused(tmp_path: Path, template: str) -> None:
    marker = tmp_path / "marker"
    file = write_pickle(tmp_path, {})
    file.write_bytes(template.format(marker=marker).encode("latin-1"))
    with pytest.raises(DatasetError, match=r"os\.system is not admitted"):
        read_hsnet_lists(tmp_path, "coco20i", 0)
    assert not marker.exists()


@pytest.mark.parametrize("content", [{0: [Fraction(1, 2)]}, {0: partial(print)}, Path("x")])
def test_a_pickle_with_any_class_is_refused(tmp_path: Path, content: Any) -> None:
    write_pickle(tmp_path, content)
    with pytest.raises(DatasetError, match="is not admitted"):
        read_hsnet_lists(tmp_path, "coco20i", 0)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"a": ["x"]}, {0: [3]}, {0: 3}, {float("inf"): ["x"]}, {None: ["x"]}, "text", 5],
)
def test_a_pickle_of_another_form_is_one_line(tmp_path: Path, content: Any) -> None:
    file = write_pickle(tmp_path, content)
    with pytest.raises(DatasetError) as error:
        read_hsnet_lists(tmp_path, "coco20i", 0)
    assert str(error.value).startswith(f"{file} cannot be read (")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["pkl", "json.gz"])
def test_truncated_files_are_one_line(lists: Path, tmp_path: Path, kind: str, kept: float) -> None:
    file = tmp_path / {"pkl": "coco/val/fold0.pkl", "json.gz": "coco_json/val_fold0.json.gz"}[kind]
    file.parent.mkdir(parents=True)
    whole = (lists / "coco_json" / "val_fold0.json.gz").read_bytes()
    if kind == "pkl":
        whole = pickle.dumps(coco_by_class(lists))
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DatasetError) as error:
        read_hsnet_lists(tmp_path, "coco20i", 0)
    assert str(error.value).startswith(f"{file} cannot be read (")
    assert str(error.value).endswith("): fetch it again")
    assert "\n" not in str(error.value)


@pytest.fixture
def pascal_copy(lists: Path, tmp_path: Path) -> Path:
    file = tmp_path / "pascal" / "val" / "fold2.txt"
    file.parent.mkdir(parents=True)
    shutil.copy(lists / "pascal" / "val" / "fold2.txt", file)
    file.chmod(0o644)
    read_hsnet_lists(tmp_path, "pascal5i", 2)
    return file


def test_a_pascal_list_with_one_line_changed_is_not_official(pascal_copy: Path) -> None:
    lines = pascal_copy.read_text().splitlines()
    lines[100], lines[101] = lines[101], lines[100]
    pascal_copy.write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError) as error:
        read_hsnet_lists(pascal_copy.parents[2], "pascal5i", 2)
    text = str(error.value)
    assert text.startswith(f"{pascal_copy} is not the official list: its content has sha256 ")
    assert "expected fe757b590123e0b8" in text
    assert len(text.split("has sha256 ")[1].split(",")[0]) == 16


def test_line_ends_do_not_matter(pascal_copy: Path) -> None:
    before = read_hsnet_lists(pascal_copy.parents[2], "pascal5i", 2)
    pascal_copy.write_bytes(pascal_copy.read_bytes().replace(b"\n", b"\r\n"))
    assert read_hsnet_lists(pascal_copy.parents[2], "pascal5i", 2) == before


def test_a_coco_list_with_one_image_swapped_is_not_official(lists: Path, tmp_path: Path) -> None:
    by_class = coco_by_class(lists)
    by_class[4][0], by_class[4][1] = by_class[4][1], by_class[4][0]
    write_pickle(tmp_path, by_class)
    with pytest.raises(
        DatasetError, match=r"is not the official list: .*expected c015336116dfa248"
    ):
        read_hsnet_lists(tmp_path, "coco20i", 0)


@pytest.mark.parametrize(
    "content",
    [b"2007_000033__\n", b"2007_000033\n", b"__01\n", b"2007__x1\n", "2007__²\n".encode()],
)
def test_a_pascal_line_of_another_form_is_shown(pascal_copy: Path, content: bytes) -> None:
    pascal_copy.write_bytes(pascal_copy.read_bytes() + content)
    shown = content.decode().strip()
    with pytest.raises(DatasetError, match=f"line '{shown}' is not of the form image__class"):
        read_hsnet_lists(pascal_copy.parents[2], "pascal5i", 2)


def test_a_pascal_list_that_is_no_text_is_one_line(pascal_copy: Path) -> None:
    pascal_copy.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_hsnet_lists(pascal_copy.parents[2], "pascal5i", 2)


def test_a_missing_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    with pytest.raises(DatasetError) as pascal:
        read_hsnet_lists(folder, "pascal5i", 3)
    assert str(folder / "pascal/val/fold3.txt") in str(pascal.value)
    assert "--split-lists" in str(pascal.value)
    with pytest.raises(DatasetError) as coco:
        read_hsnet_lists(folder, "coco20i", 3)
    assert str(folder / "coco/val/fold3.pkl") in str(coco.value)
    assert str(folder / "coco_json/val_fold3.json.gz") in str(coco.value)


@pytest.mark.parametrize(("dataset", "fold"), [("shapes", 0), ("pascal5i", 4), ("coco20i", -1)])
def test_no_list_for_other_datasets_and_folds(lists: Path, dataset: str, fold: int) -> None:
    with pytest.raises(EpisodeError, match=f"no list for {dataset} fold {fold}: it covers"):
        read_hsnet_lists(lists, dataset, fold)


def test_a_protocol_without_lists_needs_the_data(lists: Path) -> None:
    with pytest.raises(EpisodeError, match="--data-root"):
        listed_episodes("pascal5i", "standard", lists, fold=0, shots=1)


def test_shots_below_one_are_an_error(lists: Path) -> None:
    with pytest.raises(EpisodeError, match="--shots is 0"):
        listed_episodes("pascal5i", "hsnet", lists, fold=0, shots=0)


def test_episodes_are_a_prefix_of_a_longer_list(
    lists: Path, replayed: Callable[..., list[EpisodeSpec]]
) -> None:
    some = listed_episodes("coco20i", "hsnet", lists, fold=2, shots=5, episodes=30)
    assert some == replayed("coco", 2, 5)[:30]
    many = listed_episodes("pascal5i", "hsnet", lists, fold=0, shots=1, episodes=1010)
    assert many[:1000] == replayed("pascal", 0, 1)
    assert many[346].query == many[0].query  # the list of 346 pairs starts again


def test_replaying_does_not_touch_numpys_global_stream(lists: Path) -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    listed_episodes("pascal5i", "hsnet", lists, fold=0, shots=1, episodes=5)
    assert np.random.get_state()[1].tolist() == before


def test_lists_are_restricted_to_the_images_of_a_tree() -> None:
    whole = HSNetLists([("a", 1), ("b", 1), ("c", 2), ("a", 2)], {1: ["a", "b"], 2: ["c", "a"]})
    part = whole.restricted_to(["c", "a", "z"])
    assert part.pairs == [("a", 1), ("c", 2), ("a", 2)]
    assert part.by_class == {1: ["a"], 2: ["c", "a"]}
    assert whole.by_class[1] == ["a", "b"]


@pytest.mark.parametrize("pool", [[], ["a"], ["a", "a"]])
def test_a_class_of_fewer_than_two_images_is_an_error(pool: list[str]) -> None:
    with pytest.raises(EpisodeError, match=r"class 5 has \d listed images, an episode needs 2"):
        hsnet_episodes(HSNetLists([], {5: pool}), fold=0, shots=1, episodes=1)


def test_a_dataset_without_lists_is_refused(make_folder: Callable[..., Path], lists: Path) -> None:
    dataset = create_dataset("folder", make_folder())
    with pytest.raises(FssBenchError, match="no list for folder fold 0"):
        create_setting(dataset, "hsnet", split_lists=lists)
    with pytest.raises(FssBenchError, match="--split-lists"):
        create_setting(dataset, "hsnet")
    with pytest.raises(FssBenchError, match="1-way: --ways 2 is not possible"):
        create_setting(dataset, "hsnet", ways=2, split_lists=lists)
