"""Every command and example in the README and docs runs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from fss_bench.cli import main
from fss_bench.shapes import render

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = ("make", "git", "pip", "python", "source", "cd")
"""`make` is what CI runs; benchmarks take long; the others install."""
GUIDE = "add-a-method.md"
"""`test_guide.py` runs it in order, where installing is allowed."""
QUICK = "--episodes 2 --option input_size=96".split()
QUICK_TRAINING = "--steps 2 --validation-episodes 2 --workers 0 --option input_size=96".split()
QUICK_PRETRAINING = "--epochs 1 --image-size 32 --workers 0".split()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> Iterator[str]:
    for page in PAGES:
        for block in blocks(page, "bash") if page.name != GUIDE else ():
            yield from (line for line in block.splitlines() if line and not line.startswith("#"))


OURS = sorted({line for line in commands() if not line.startswith(ELSEWHERE)})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "results").mkdir()
    (folder / "results" / "published.csv").symlink_to(ROOT / "results" / "published.csv")
    return folder


@pytest.fixture
def reader(
    workplace: Path,
    shared: Path,
    make_folder: Callable[..., Path],
    make_coco_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reader's folder: the data under the names that the pages use."""
    for name, source in {
        "VOC2012": "data/voc_mini",
        "COCO": "data/coco_mini",
        "FSS-1000": "data/fss1000_standin",
        "lists": "lists",
    }.items():
        if not (workplace / name).exists():
            (workplace / name).symlink_to(shared / source)
    if not (workplace / "my-data").exists():
        make_folder(root=workplace / "my-data")
        make_coco_folder(root=workplace / "my-coco")
        draw_own_pictures(workplace)
    monkeypatch.chdir(workplace)


def draw_own_pictures(folder: Path) -> None:
    """Pictures and masks under the names of docs/predict.md."""
    (folder / "photos").mkdir()
    for number, name in enumerate(["cat1", "cat2", "dog1", "photo", "photos/a", "photos/b"]):
        pixels, labels = render(f"test/{number}")
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
        if name[-1].isdigit():
            Image.fromarray(labels > 0).save(folder / f"{name}.png")


def test_pages_have_commands() -> None:
    assert len(OURS) > 15
    assert all(line.startswith("fss-bench ") for line in OURS)


@pytest.mark.parametrize("line", OURS)
def test_command(line: str, reader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, but with two episodes of small images, and no download."""
    words = shlex.split(line, comments=True)
    if words[1] in ("evaluate", "profile"):
        words += QUICK
    if words[1] == "predict":
        words += QUICK[2:]
    if words[1] == "pretrain":
        words += QUICK_PRETRAINING
    if "mine/weights.safetensors" in words:
        (before,) = (other for other in OURS if "--output mine" in other)
        call(monkeypatch, [*shlex.split(before), *QUICK_PRETRAINING])
    if words[1] == "train":
        words += QUICK_TRAINING
    if any(word.startswith("trained/") for word in words):
        (before,) = (
            other for other in OURS if "train panet" in other and "--output trained" in other
        )
        call(monkeypatch, [*shlex.split(before), *QUICK_TRAINING])
    if words[1] == "leaderboard":
        run = "evaluate panet --backbone tf_efficientnet_lite0 --weights packaged".split()
        call(monkeypatch, ["fss-bench", *run, *QUICK])
    call(monkeypatch, ["none" if word == "imagenet" else word for word in words])


def call(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0


def test_python_examples_are_files_that_run() -> None:
    files = {file.name: file.read_text() for file in (ROOT / "examples").glob("*.py")}
    shown = [code for page in PAGES for code in blocks(page, "python")]
    assert set(shown) == set(files.values())
    subprocess.run([sys.executable, ROOT / "examples" / "python_api.py"], check=True)


def test_no_page_has_a_gap() -> None:
    for page in PAGES:
        assert not re.findall(r"^[A-Z]{4,}$", page.read_text(encoding="utf-8"), re.MULTILINE), page


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"
