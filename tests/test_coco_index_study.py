"""The benchmark of start-up at COCO's size: its tree, its tasks, what it tells."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pycocotools.coco import COCO
from studies import load_study

from fss_bench import coco_masks, create_dataset
from fss_bench.setting import create_setting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """For a tree of 120 images."""
    found = load_study("coco_index")
    monkeypatch.setattr(found, "SPLITS", {"train": (20, 40), "val": (100, 700)})
    monkeypatch.setattr(found, "FEWEST", 1)
    return found


@pytest.fixture
def root(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSS_BENCH_CACHE", str(tmp_path / "cache"))
    study.make(tmp_path, 1.0)
    return tmp_path


def test_the_tree_is_as_large_as_it_should_be(study: ModuleType, root: Path) -> None:
    facts = create_dataset("coco20i", root).index.facts
    assert facts == {
        "train": {"images": 20, "annotations": 40},
        "test": {"images": 100, "annotations": 700},
    }
    files = sorted((root / "annotations").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    study.make(root, 1.0)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_its_annotations_are_of_the_length_of_those_of_coco(root: Path) -> None:
    """COCO's files have 494 bytes an annotation; every mask of ours can be drawn."""
    api = COCO(root / "annotations" / "instances_val2017.json")
    lengths = [len(json.dumps(found)) for found in api.dataset["annotations"]]
    assert 440 < sum(lengths) / len(lengths) < 510
    assert any(found["iscrowd"] for found in api.dataset["annotations"])
    assert all(api.annToMask(found).shape == (480, 640) for found in api.dataset["annotations"])


def test_tasks_of_a_warm_start_read_no_annotation_file(
    study: ModuleType,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study.write_first_images(root)

    def fail(file: Path) -> None:
        raise AssertionError(f"{file} was read")

    monkeypatch.setattr(coco_masks, "read_annotations", fail)
    figures = study.run_task("warm", root)
    assert set(figures) == {"seconds", "cpu_seconds", "peak_mb", "held_mb"}
    assert figures["seconds"] > 0
    assert figures["cpu_seconds"] > 0
    assert figures["peak_mb"] >= figures["held_mb"]
    study.run_task("specs", root)
    setting = create_setting(create_dataset("coco20i", root), fold=0, shots=5, episodes=20000)
    assert capsys.readouterr().out == f"digest {setting.sha256}\n"
    with pytest.raises(AssertionError, match="was read"):
        study.run_task("cold", root)


def test_memory_is_what_a_task_took(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(_: Path) -> object:
        return lambda: bytearray(b"1") * (300 << 20)

    def freed(_: Path) -> object:
        return lambda: len(bytearray(b"1") * (300 << 20))

    monkeypatch.setattr(study, "TASKS", {"held": ("", held), "freed": ("", freed)})
    figures = study.run_task("held", Path())
    assert 290 < figures["held_mb"] < 320
    assert 290 < figures["peak_mb"] < 320
    figures = study.run_task("freed", Path())
    assert figures["held_mb"] < 20
    assert 290 < figures["peak_mb"] < 320


def figures(seconds: float, peak: float, digest: str | None = None) -> dict[str, object]:
    told = {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_mb": peak, "held_mb": peak / 2}
    return {**told, "process_seconds": seconds + 1, "digest": digest}


def test_what_it_tells(study: ModuleType) -> None:
    _, theirs, ours, _, compared, digests = study.told(
        {
            "cold": [],
            "pycocotools": [figures(9, 800), figures(10, 1000), figures(12, 1000)],
            "warm": [figures(0.3, 50), figures(0.1, 20), figures(0.2, 40)],
            "specs": [figures(1, 40, "abc"), figures(1, 40, "abc")],
        }
    )
    for text in ("10.000 (9.000-12.000)", "20.00 (18.00-24.00)", "1000 (800-1000)", "500", "11.00"):
        assert text in theirs
    assert "0.200 (0.100-0.300)" in ours
    assert "50.0 (at least 30.0) times as fast" in compared
    assert "1/25.0 (at least 16.0) of its memory at the peak" in compared
    assert digests == "digest of the specs: abc"


@pytest.mark.slow
def test_the_command_measures_every_task(
    study: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--folder", str(tmp_path), "--repeats", "2", "--output", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["coco_index.py", *words])
    monkeypatch.setenv("FSS_BENCH_CACHE", "")
    study.main()
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert {name: len(rows) for name, rows in found["figures"].items()} == {
        "cold": 1,
        "pycocotools": 2,
        "warm": 2,
        "specs": 2,
    }
    assert found["machine"]["cpu"] in text
    assert found["tree"]["splits"]["test"] == {"images": 100, "annotations": 700}
    assert len({row["digest"] for row in found["figures"]["specs"]}) == 1
