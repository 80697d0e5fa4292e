"""`fss-bench pretrain` as a user meets it."""

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from tiny_pretraining import make_images

from fss_bench.cli import main
from fss_bench.pretraining.state import Folder
from fss_bench.pretraining.watching import Pretrained, Tick
from fss_bench.report.pretraining import pretraining_watch, result_lines

TINY = "--backbone test_resnet --epochs 1 --batch-size 8 --image-size 32 --workers 0 --device cpu"


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def pretrain(*arguments: object, status: int = 0, tiny: bool = True) -> Done:
    out, errors = StringIO(), StringIO()
    words = ["fss-bench", "pretrain", *map(str, arguments), *(TINY.split() if tiny else ())]
    with (
        patch.object(sys, "argv", words),
        redirect_stdout(out),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    assert stopped.value.code == status, errors.getvalue()
    return Done(out.getvalue(), errors.getvalue())


def complaint(*arguments: object, tiny: bool = True) -> str:
    """The one line that a mistake gets."""
    done = pretrain(*arguments, status=2, tiny=tiny)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of a tiny run is that of its plot."""
    monkeypatch.setattr("fss_bench.pretraining.finishing.curves_png", lambda *_: b"a plot")


@pytest.mark.usefixtures("no_plot")
def test_a_run(images: Path, tmp_path: Path) -> None:
    done = pretrain("npid", "--images", images, "--option", "negatives=8")
    folder = Path("pretrained") / "npid-v1-test_resnet"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("loss ")
    assert "24 images, 0 skipped" in lines
    assert str(folder / "curves.png") in lines
    assert lines[-1] == (
        f"fss-bench evaluate panet --backbone test_resnet --weights {folder}/weights.safetensors"
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("npid-v1-test_resnet: step 3/3, epoch 1/1, loss ")
    assert last.endswith("left")
    again = pretrain("npid", "--images", images, "--option", "negatives=8")
    assert "this run is finished; nothing was done" in again.stdout
    assert again.stdout.splitlines()[1:] == lines


@pytest.mark.slow
def test_the_printed_command_evaluates(images: Path) -> None:
    done = pretrain("npid", "--images", images, "--option", "negatives=8", "--quiet")
    words = done.stdout.splitlines()[-1].split()
    words += "--quiet --episodes 2 --fold 0 --option input_size=96".split()
    out = StringIO()
    with patch.object(sys, "argv", words), redirect_stdout(out), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "panet" in out.getvalue()


@pytest.mark.usefixtures("no_plot")
def test_json_and_quiet(images: Path, tmp_path: Path) -> None:
    broken = make_images(tmp_path / "more", 3, seed=7)
    (broken / "bad.png").write_bytes(b"")
    labelled = tmp_path / "labelled"
    for seed, name in enumerate(("ant", "bee")):
        make_images(labelled / name, 2, seed)
    done = pretrain(
        *("moco", "--images", images, "--images", broken, "--output", "out"),
        *("--option", "queue-size=24", "--knn", labelled, "--json", "--quiet"),
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["images"] == 27
    assert found["skipped"] == 1
    assert found["weights"] == "out/weights.safetensors"
    assert 0 <= found["knn"] <= 1
    assert 0 <= found["knn_momentum"] <= 1
    assert found["loss_last"] > 0
    record = json.loads(Path("out/pretrain.json").read_text())
    assert record["skipped"] == 1
    assert record["first_skipped"][0][0] == "bad.png"
    first = json.loads(Path("out/log.jsonl").read_text().splitlines()[0])
    assert first == {"kind": "start", "images": 27, "skipped": 1, "first_skipped": ["bad.png"]}
    noted = pretrain("moco", "--images", broken, "--output", "out2", status=2)
    assert "1 of 4 images cannot be used and are skipped: bad.png" in noted.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("moko",), "unknown pretraining method 'moko': did you mean 'moco'?"),
        (("moco", "--version", "4"), "--version 4: moco has 1, 2, 3"),
        (("simclr", "--version", "2"), "--version 2: simclr has 1"),
        (("moco",), "--images: give the folder"),
        (("moco", "--images", "nowhere"), "--images nowhere: no such folder"),
        (("moco", "--images", "IMAGES", "--knn", "nowhere"), "--knn nowhere: no such folder"),
        (("npid", "--images", "IMAGES", "--knn", "IMAGES"), "0 subfolders"),
        (("moco", "--images", "IMAGES"), "a queue of 65536 keys is more than the 24 usable images"),
        (("moco", "--images", "IMAGES", "--batch-size", "12"), "--option queue_size=24"),
        (("moco", "--images", "IMAGES", "--batch-size", "9"), "choose a --batch-size of 10"),
        (("npid", "--images", "IMAGES", "--workers", "-1"), "error: --workers -1: it must be 0"),
        (("npid", "--images", "IMAGES", "--option", "lars_trust=1"), "only optimiser=lars has it"),
        (("npid", "--images", "IMAGES", "--accumulate", "4"), "use --batch-size 4"),
        (("npid", "--images", "IMAGES", "--accumulate", "0"), "--accumulate 0: it must be 1"),
        (("npid", "--images", "IMAGES", "--save-every", "0"), "--save-every 0: it must be 1"),
        (("npid", "--images", "IMAGES", "--knn-every", "-1"), "--knn-every -1: it must be 1"),
        (("npid", "--images", "IMAGES", "--option", "lrr=1"), "did you mean 'lr'?"),
        (("npid", "--images", "IMAGES", "--option", "lr=fast"), "it must be of type float"),
        (("npid", "--images", "IMAGES", "--option", "epochs=2"), "--option epochs=2: give one"),
        (("npid", "--images", "IMAGES", "--backbone", "resnet5000"), "unknown backbone"),
        (("npid", "--images", "IMAGES", "--weights", "gone.pth"), "gone.pth"),
        (("npid", "--images", "IMAGES", "--device", "tpu"), "unknown device 'tpu'"),
        (("npid", "--images", "IMAGES", "--precision", "int8"), "unknown precision 'int8'"),
        (("simclr", "--images", "IMAGES"), "warmup_epochs"),
        (("npid", "--images", "FILE"), "is a file, give a folder"),
        (("npid", "--images", "IMAGES", "--output", "FILE"), "is a file, give a folder"),
        (("npid", "--images", "IMAGES", "--seed", str(2**70)), "must be 0 or more and below 2**63"),
        (("npid", "--images", "IMAGES", "--option", "queue_size=8"), "npid-v1 has no queue_size"),
        (("moco", "--images", "IMAGES", "--option", "negatives=8"), "only npid-v1 has it"),
        (
            ("moco", "--images", "IMAGES", "--option", "queue_size=16", "--option", "bn_groups=8"),
            "bn_groups=8: 8 images",
        ),
        (
            ("npid", "--images", "IMAGES", "--backbone", "test_vit", "--image-size", "30"),
            "test_vit does not take views of 30 px",
        ),
    ],
)
def test_mistakes(images: Path, arguments: tuple[str, ...], text: str) -> None:
    places = {"IMAGES": str(images), "FILE": str(images / "000.jpg")}
    words = [places.get(word, word) for word in arguments]
    given = {word for word in words if word.startswith("--")}
    tiny = TINY.split()
    rest = [w for i in range(0, len(tiny), 2) if tiny[i] not in given for w in tiny[i : i + 2]]
    assert text in complaint(*words, *rest, "--quiet", tiny=False)


@pytest.mark.parametrize("name", ["lightly"])
def test_the_extra_is_asked_for(name: str, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as Python marks what cannot be imported
    line = complaint("npid", "--images", images)
    assert f"needs {name}, which is not installed: pip install 'fss-bench[pretrain]'" in line


@pytest.mark.parametrize("wrong", ["--device tpu", "--accumulate 0", "--option lr", "--workers -1"])
def test_a_mistake_is_said_by_one_of_several_processes(
    wrong: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("npid", "--images", images, *wrong.split())
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert complaint(*words, tiny=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pretrain(*words, status=2, tiny=False) == Done("", "")


def test_an_output_that_cannot_be_written(images: Path) -> None:
    Path("file").write_text("")
    text = complaint("npid", "--images", images, "--output", "file/run", "--quiet")
    assert "cannot write to file/run" in text


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from fss_bench.cli import app\n"
        "try: app(['pretrain', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'lightly', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--knn-every" in done.stdout


def test_knn_is_shown_without_a_baseline(tmp_path: Path) -> None:
    """As where the log's line of it was damaged."""
    figures = {"loss_first": 1.0, "loss_highest": 1.0, "loss_last": 1.0}
    figures |= {"accuracy_first": 0.5, "accuracy_last": 0.5, "knn": 0.75}
    record = {"images": 3, "skipped": 0, "backbone": "resnet18"}
    shown = list(result_lines(Pretrained(Folder(tmp_path), figures, record, trained=True)))
    assert shown[1] == "kNN accuracy 75.0 % after"
    figures["knn_before"] = 0.5
    shown = list(result_lines(Pretrained(Folder(tmp_path), figures, record, trained=True)))
    assert shown[1] == "kNN accuracy 50.0 % before training, 75.0 % after"


def tick(step: int) -> Tick:
    return Tick(step, 100, 1, 2, 1.25, 0.5, None if step < 50 else 0.75, 12.0, 3725.0)


def test_plain_lines() -> None:
    errors = StringIO()
    with redirect_stderr(errors), pretraining_watch("run", quiet=False) as watch:
        assert watch.step is not None
        for step in range(1, 101):
            watch.step(tick(step))
    lines = errors.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[0] == (
        "run: step 5/100, epoch 1/2, loss 1.250, accuracy 50.0 %, 12 images/s, 1:02:05 left"
    )
    assert "accuracy 50.0 %, kNN 75.0 %, 12 images/s" in lines[-1]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    errors = Terminal()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(errors), pretraining_watch("run", quiet=False) as watch:
        assert watch.step is not None
        assert watch.checking is not None
        assert watch.note is not None
        watch.checking(3, 7)
        watch.note("3 of 7 images are skipped [a]")
        watch.step(tick(60))
    shown = errors.getvalue()
    assert "checking images" in shown
    assert "3 of 7 images are skipped [a]" in shown
    assert "60/100" in shown
    assert "loss 1.250, accuracy 50.0 %, kNN 75.0 %, 12 images/s, 1:02:05 left" in shown
