"""The command line as a user meets it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from checkpoint_files import own_arguments, write_checkpoint
from PIL import Image

from fss_bench import create_backbone, create_method
from fss_bench.checkpoint import layouts
from fss_bench.cli import main
from fss_bench.weights import file_sha256

SMALL = [
    "--backbone",
    "tf_efficientnet_lite0",
    "--weights",
    "packaged",
    "--option",
    "input_size=96",
]


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def fss_bench(*arguments: object, status: int = 0) -> Done:
    """Run a command here: importing torch in a new process for each would take minutes."""
    out, errors = StringIO(), StringIO()
    with (
        patch.object(sys, "argv", ["fss-bench", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    assert stopped.value.code == status, errors.getvalue()
    return Done(out.getvalue(), errors.getvalue())


def complaint(*arguments: object) -> str:
    """The one line of a command that must fail with status 2."""
    done = fss_bench(*arguments, status=2)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert done.stdout == ""
    return lines[0]


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys, fss_bench.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'timm', 'numpy', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_lists_print_a_line_each_without_torch() -> None:
    for what, name in [
        ("methods", "panet"),
        ("datasets", "coco20i"),
        ("backbones", "vgg16"),
        ("protocols", "hsnet"),
    ]:
        lines = fss_bench("list", what).stdout.splitlines()
        assert any(line.startswith(name) and len(line) > len(name) + 10 for line in lines)
        code = f"import sys; from fss_bench.cli import app; app(['list', {what!r}], False)"
        code += "; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_evaluate_writes_runs_table_and_leaderboard(tmp_path: Path) -> None:
    done = fss_bench(
        *("evaluate", "panet", *SMALL, "--fold", "0,2", "--shots", "1,2", "--episodes", "10"),
        *("--output", tmp_path),
    )
    runs = [Path(line) for line in done.stdout.splitlines() if "/runs/" in line]
    folder = tmp_path / "runs" / "shapes" / "standard+episodes=10" / "1way-2shot" / "fold2"
    assert len(runs) == 4
    assert all((run / "run.json").is_file() for run in runs)
    assert [run.parent for run in runs][-1] == folder
    assert done.stdout.splitlines()[-1] == str(tmp_path / "leaderboard.csv")
    assert max(map(len, done.stdout.split("/")[0].splitlines())) <= 80
    assert "mIoU" in done.stderr  # plain progress lines
    csv = fss_bench("leaderboard", "--results", tmp_path, "--format", "csv").stdout
    assert csv == (tmp_path / "leaderboard.csv").read_text()
    assert len(csv.splitlines()) == 3


def test_evaluate_json_is_machine_readable(tmp_path: Path) -> None:
    arguments = ["evaluate", "panet", *SMALL, "--fold", "0", "--episodes", "5", "--ways", "2"]
    done = fss_bench(*arguments, "--output", tmp_path, "--json", "--quiet")
    assert done.stderr == ""
    result = json.loads(done.stdout)
    run = result["runs"][0]
    assert (run["ways"], run["episodes"]) == (2, 5)
    assert 0 < run["metrics"]["miou"] < 1
    assert json.loads(Path(run["path"], "run.json").read_text())["run_id"] == run["run_id"]


def test_episodes_writes_the_list_and_prints_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    done = fss_bench("episodes", "--fold", 3, "--shots", 5, "--episodes", 20, "-o", file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert done.stdout.split() == [digest, str(file)]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert list(rows[0]) == ["index", "fold", "classes", "query", "supports"]
    assert [row["index"] for row in rows] == list(range(20))


def test_published_digests_from_the_command_line(shared: Path, tmp_path: Path) -> None:
    golden = json.loads((shared / "golden" / "hsnet_episodes.json").read_text())
    lists = ["--split-lists", shared / "lists" / "hsnet"]
    for dataset, name in (("pascal5i", "pascal"), ("coco20i", "coco")):
        arguments = ["episodes", "--dataset", dataset, "--protocol", "hsnet", "--fold", 1, "--json"]
        answer = json.loads(fss_bench(*arguments, *lists, "-o", tmp_path / "list.jsonl").stdout)
        assert answer["published_sha256"] == golden[f"{name}_fold1_1shot"]["sha256"]
        lines = []
        for text in (tmp_path / "list.jsonl").read_text().splitlines():
            row = json.loads(text)
            supports = ",".join(row["supports"][0])
            lines.append(f"{row['classes'][0] - 1} {row['query']} {supports}\n")
        assert hashlib.sha256("".join(lines).encode()).hexdigest() == answer["published_sha256"]


def test_data_commands_on_an_own_folder(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    own = ["--dataset", "folder", "--data-root", make_folder()]
    assert "test: 12 images" in fss_bench("data", "index", *own).stdout
    assert "no problems" in fss_bench("data", "verify", *own).stdout
    sheet = tmp_path / "sheet.png"
    rule = ["--rule", "min_pixels=1"]
    fss_bench("data", "show", *own, *rule, "--episodes", 3, "--shots", 2, "-o", sheet)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_verify_lists_everything_and_fails(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "images" / "c1_0.jpg").write_bytes(b"not a picture")
    (root / "masks" / "c2_0.png").unlink()
    done = fss_bench("data", "verify", "--dataset", "folder", "--data-root", root, status=2)
    assert "c1_0" in done.stdout
    assert "c2_0" in done.stdout
    assert "2 problems" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["panett"], "unknown method 'panett': did you mean 'panet'?"),
        (
            ["panet", "--dataset", "pascal51"],
            "unknown dataset 'pascal51': did you mean",
        ),
        (["panet", "--backbone", "resnet5O", "--weights", "none"], "did you mean 'resnet50'?"),
        (["panet", "--protocol", "standart"], "did you mean 'standard'?"),
        (["panet", "--dataset", "pascal5i"], "pass --data-root DIR"),
        (["panet", "--dataset", "coco20i", "--data-root", "/nowhere"], "/nowhere is not a folder"),
        (["panet", "--shots", "0"], "--shots is 0: it must be 1 or more"),
        (["panet", "--shots", "one"], "--shots 'one': write a whole number"),
        (["panet", "--ways", "0"], "--ways is 0: it must be 1 or more"),
        (
            ["panet", "--ways", "9", "--fold", "0"],
            "need 9 classes with at least 2",
        ),
        (["panet", "--fold", "4"], "fold 4 is out of range: shapes has folds 0 to 3"),
        (["panet", "--episodes", "0"], "episodes=0: it must be 1 or more"),
        (["panet", "--rule", "min_pixel=1"], "did you mean 'min_pixels'?"),
        (["panet", "--rule", "iou_at=native"], "it must be one of original, input"),
        (["panet", *SMALL, "--option", "levle=c3"], "did you mean 'level'?"),
        (["panet", *SMALL, "--option", "level"], "must look like key=value"),
        (["panet", "--plugin", "nowhere.py"], "plug-in file not found: nowhere.py"),
        (["panet", "--no-such-flag"], "No such option: --no-such-flag"),
        (["panet", "--weights", "nowhere.pth"], "no such file, and not one of imagenet"),
        ([], "Missing argument"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(map(str, value[-2:])),
)
def test_bad_input_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    output = tmp_path / "results"
    assert message in complaint("evaluate", *arguments, "--output", output)
    assert not list(output.rglob("*.json*"))


def test_too_few_images_names_class_count_and_cure(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    own = ["--dataset", "folder", "--data-root", make_folder(per_class=3)]
    text = complaint("evaluate", "panet", *own, "--shots", 3, "--rule", "min_pixels=1", *SMALL)
    assert "class 1 (class1) has 3 qualifying images, 3-shot episodes need 4" in text
    assert "use fewer --shots" in text


def test_class_id_out_of_range(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=4)
    Image.new("L", (64, 48), 9).save(root / "masks" / "c1_0.png")
    text = complaint("evaluate", "panet", "--dataset", "folder", "--data-root", root, *SMALL)
    assert "mask of image c1_0 holds class id 9, folder has 1 to 4" in text


def test_layout_of_another_dataset(make_folder: Callable[..., Path]) -> None:
    text = complaint("data", "index", "--dataset", "pascal5i", "--data-root", make_folder())
    assert "looked for JPEGImages" in text
    assert "found classes.txt, images, masks" in text


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    arguments = ["evaluate", "panet", *SMALL, "--fold", "0", "--episodes", "2"]
    assert "choose another --output" in complaint(*arguments, "--output", blocked)
    assert "choose another place" in complaint("episodes", "--episodes", 2, "-o", blocked / "list")


def test_interruption_can_be_resumed(tmp_path: Path) -> None:
    arguments = ["evaluate", "panet", *SMALL, "--fold", "0", "--episodes", "900", "--quiet"]
    command = [sys.executable, "-m", "fss_bench", *arguments, "--output", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell has what it starts in the background ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".partial/*/episodes.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted: the same command goes on from here\n"
    assert not (tmp_path / "runs").exists()
    journal = next(tmp_path.glob(".partial/*/episodes.jsonl"))
    first = json.loads(journal.read_text().splitlines()[0].split(" ", 1)[1])  # after its checksum
    run = json.loads(fss_bench(*arguments, "--output", tmp_path, "--json").stdout)["runs"][0]
    assert run["run_id"] == journal.parent.name
    episodes = pd.read_parquet(Path(run["path"]) / "episodes.parquet")
    assert len(episodes) == 900
    assert episodes["ms"][first["index"]] == first["ms"]  # taken over, not done again


def test_plugin_file_reaches_the_leaderboard(tmp_path: Path) -> None:
    plugin = tmp_path / "nearest.py"
    plugin.write_text(
        "from fss_bench.method import methods\n"
        "from fss_bench.methods.panet import PANet\n\n"
        '@methods.register("nearest")\n'
        "class Nearest(PANet):\n"
        '    """A copy under another name."""\n'
    )
    arguments = ["--plugin", plugin, "--fold", "0", "--episodes", "3", "--output", tmp_path]
    fss_bench("evaluate", "nearest", *SMALL, *arguments)
    assert ",nearest(input_size=96)," in (tmp_path / "leaderboard.csv").read_text()
    assert "nearest" in fss_bench("list", "methods", "--plugin", plugin).stdout


def test_console_script_is_installed() -> None:
    script = shutil.which("fss-bench", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "evaluate" in done.stdout


def records(output: Path) -> list[dict[str, Any]]:
    """All run.json files of a results folder, by fold."""
    found = [json.loads(file.read_text()) for file in output.rglob("run.json")]
    return sorted(found, key=lambda record: record["fold"])


def test_a_checkpoint_a_fold_makes_one_row(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    own, output = own_arguments(make_folder()), tmp_path / "results"
    for fold in (0, 1):
        file = tmp_path / f"ours/fold{fold}.safetensors"
        write_checkpoint(file, seed=fold, fold=fold, protocol="hsnet", scale=10.0)
    evaluate = ["evaluate", "panet", *own, "--output", output]
    done = fss_bench(*evaluate, "--checkpoint", tmp_path / "ours/fold{fold}.safetensors")
    notes = [line for line in done.stderr.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert "the paper of panet evaluates under protocol hsnet: numbers under standard" in notes[0]
    first, second = records(output)
    series = f"{tmp_path.name}/ours/fold{{fold}}.safetensors"
    for fold, record in enumerate((first, second)):
        checkpoint = record["checkpoint"]
        file = tmp_path / f"ours/fold{fold}.safetensors"
        assert checkpoint["path"] == series.replace("{fold}", str(fold))
        assert checkpoint["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert checkpoint["series"] == (tmp_path / "ours/fold{fold}.safetensors").as_posix()
        assert checkpoint["layout"] == "fss_bench"
        assert checkpoint["origin"]["path"] == f"official{fold}.pth"
        assert checkpoint["trained_on"]["fold"] == fold
        assert record["method_options"] == {"scale": 10.0, "input_size": 64}
        assert record["backbone"] == "tf_efficientnet_lite0"
        assert record["weights"]["source"] == "tuned"
    assert first["weights"]["sha256"] != second["weights"]["sha256"]
    (row,) = pd.read_csv(output / "leaderboard.csv").to_dict("records")
    assert row["weights"] == f"tuned ({series})"
    assert row["runs"] == f"{first['run_id']} {second['run_id']}"
    assert row["rank"] == 1
    # the same files one by one are the same row, and nothing is done twice
    for fold in (0, 1):
        file = tmp_path / f"ours/fold{fold}.safetensors"
        fss_bench(*evaluate, "--fold", fold, "--checkpoint", file, "--option", "scale=10.0")
    assert {r["run_id"] for r in records(output)} == {first["run_id"], second["run_id"]}
    assert len(pd.read_csv(output / "leaderboard.csv")) == 1


def test_another_checkpoint_is_another_run(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    own = [*own_arguments(make_folder()), "--output", tmp_path / "results", "--fold", 0]
    for name, seed in (("a", 1), ("b", 2), ("c", 2)):
        file = tmp_path / f"{name}.safetensors"
        write_checkpoint(file, seed)
        fss_bench("evaluate", "panet", *own, "--checkpoint", file)
    small = ["--backbone", "tf_efficientnet_lite0", "--weights", "none"]
    fss_bench("evaluate", "panet", *own, *small)
    found = records(tmp_path / "results")
    assert len({record["run_id"] for record in found}) == 4
    assert [record["checkpoint"] for record in found].count(None) == 1
    rows = pd.read_csv(tmp_path / "results" / "leaderboard.csv")
    names = {f"tuned ({tmp_path.parts[-2]}/{tmp_path.name}/{x}.safetensors)" for x in "abc"}
    assert set(rows["weights"]) == {"none", *names}


def test_quiet_suppresses_notes_and_options_go_before_the_checkpoints(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    own = [*own_arguments(make_folder()), "--output", tmp_path / "results"]
    file = tmp_path / "panet.safetensors"
    write_checkpoint(file, protocol="bam", scale=10.0)
    given = ["--checkpoint", file, "--option", "scale=3", "--backbone-option", "output_stride=16"]
    done = fss_bench("evaluate", "panet", *own, *given, "--quiet")
    assert done.stderr == ""
    for record in records(tmp_path / "results"):
        assert record["method_options"] == {"scale": 3, "input_size": 64}
        assert record["backbone_options"] == {"output_stride": 16}
    (row,) = pd.read_csv(tmp_path / "results" / "leaderboard.csv").to_dict("records")
    assert row["backbone"] == "tf_efficientnet_lite0(output_stride=16)"
    again = fss_bench("evaluate", "panet", *own, *given, "--no-resume").stderr
    assert "note: one checkpoint for folds 0, 1: " in again
    assert (
        "under protocol bam: numbers under standard do not compare with it (--protocol bam)"
        in again
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["panet", "--checkpoint", "DIR/fold{fold}.safetensors"], "fold1.safetensors: no such fi"),
        (["panet", "--checkpoint", "DIR"], "is a folder, give a file in it"),
        (["sgone", "--checkpoint", "DIR/fold0.safetensors"], "fss-bench evaluate panet --checkp"),
        (
            ["panet", "--checkpoint", "DIR/fold0.safetensors", "--weights", "imagenet"],
            "--weights imagenet and --checkpoint DIR/fold0.safetensors: a checkpoint holds",
        ),
        (
            ["panet", "--checkpoint", "DIR/fold0.safetensors", "--fold", "1"],
            "was trained on folder fold 0, whose base classes include class3, class4",
        ),
        (
            ["panet", "--checkpoint", "DIR/fold0.safetensors", "--fold", "0", "--shots", "1,2"],
            "is a 1-shot panet checkpoint: it cannot be evaluated with --shots 2; use the file",
        ),
        (
            ["panet", "--checkpoint", "DIR/fold0.safetensors", "--backbone", "resnet18"],
            "does not fit panet on resnet18",
        ),
        (
            ["panet", "--checkpoint", "DIR/fold0.safetensors", "--option", "scael=3"],
            "did you mean 'scale'",
        ),
        (["panet", "--checkpoint", "DIR/random.pth"], "random.pth is of no known layout"),
        (["panet", "--checkpoint", "DIR/page.pth"], "page.pth is a web page, not a checkpoint"),
        (["panet", *SMALL[:4], "--backbone-option", "output_strid=8"], "did you mean 'output_str"),
        (["panet", *SMALL[:4], "--backbone-option", "output_stride"], "must look like key=value"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(map(str, value[-2:])),
)
def test_a_checkpoint_that_cannot_be_evaluated_is_one_line(
    make_folder: Callable[..., Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_checkpoint(tmp_path / "fold0.safetensors", fold=0, shots=(1,))
    torch.save({"a": torch.zeros(2)}, tmp_path / "random.pth")
    (tmp_path / "page.pth").write_text("<html>")
    given = [a.replace("DIR", str(tmp_path)) for a in arguments]
    own = own_arguments(make_folder())
    text = complaint("evaluate", *given, *own, "--output", tmp_path / "results")
    assert message.replace("DIR", str(tmp_path)) in text
    assert not list((tmp_path / "results").rglob("*.json*"))  # found before any work


def test_convert_writes_and_inspects(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    method = write_checkpoint(first, protocol="hsnet", scale=10.0)
    count = len(method.state_dict())
    done = fss_bench("convert", first, second, "--dataset", "coco20i", "--fold", 2)
    assert done.stdout.splitlines() == [
        f"{tmp_path.parts[-2]}/{tmp_path.name}/first.safetensors: panet on tf_efficientnet_lite0, "
        "layout fss_bench, protocol hsnet",
        f"loaded {count} tensors",
        str(second),
    ]
    assert done.stderr == ""
    lines = fss_bench("convert", second, "--inspect").stdout.splitlines()
    assert lines[0] == f"second.safetensors: sha256 {file_sha256(second)}"
    assert "method panet on tf_efficientnet_lite0, options scale=10.0, shots any" in lines[1]
    assert lines[-2:] == [
        f"converted from official7.pth (sha256 {7:064d})",
        "trained on coco20i fold 2",
    ]
    assert fss_bench("convert", "--inspect", first).stdout.count("trained on") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DIR/ours.safetensors"], "convert needs a file to write: fss-bench convert IN OUT.safe"),
        (["DIR/ours.safetensors", "DIR/x.pth"], "x.pth: write to another file, whose name ends"),
        (["DIR/ours.safetensors", "DIR/ours.safetensors"], "write to another file"),
        (["DIR/ours.safetensors", "DIR/no/x.safetensors"], "no: no such folder to write into"),
        (["DIR/absent.pth", "DIR/x.safetensors"], "checkpoint DIR/absent.pth: no such file"),
        (["DIR/absent.pth", "--inspect"], "checkpoint DIR/absent.pth: no such file"),
        (["DIR", "--inspect"], "checkpoint DIR: is a folder, give a file in it"),
        (["DIR/random.pth", "--inspect"], "random.pth is of no known layout"),
        (["DIR/random.pth", "DIR/x.safetensors"], "weights of a backbone go to --weights"),
        (["DIR/page.pth", "DIR/x.safetensors"], "page.pth is a web page, not a checkpoint"),
        (
            ["DIR/ours.safetensors", "DIR/x.safetensors", "--fold", "0"],
            "--dataset and --fold go together: give both or neither",
        ),
        (
            ["DIR/ours.safetensors", "DIR/x.safetensors", "--dataset", "pascal51", "--fold", "0"],
            "did you mean 'pascal5i'",
        ),
        (
            ["DIR/ours.safetensors", "DIR/x.safetensors", "--dataset", "coco20i", "--fold", "4"],
            "--fold 4: coco20i has folds 0 to 3",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(map(str, value[-2:])),
)
def test_what_cannot_be_converted_is_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_checkpoint(tmp_path / "ours.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "random.pth")
    (tmp_path / "page.pth").write_text("<html>")
    text = complaint("convert", *(a.replace("DIR", str(tmp_path)) for a in arguments))
    assert message.replace("DIR", str(tmp_path)) in text
    assert not (tmp_path / "x.safetensors").exists()


def test_a_converted_official_file_gives_the_official_files_numbers(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    method = create_method("panet", create_backbone("vgg16_panet", weights="none", seed=3))
    layout = layouts()["panet"]
    state = {f"module.{layout.published(k)}": v for k, v in method.state_dict().items()}
    torch.save(state, tmp_path / "official.pth")
    fss_bench("convert", tmp_path / "official.pth", tmp_path / "ours.safetensors")
    own = [*own_arguments(make_folder()), "--fold", 0, "--output", tmp_path / "results"]
    for name in ("official.pth", "ours.safetensors"):
        fss_bench("evaluate", "panet", *own, "--checkpoint", tmp_path / name)
    first, second = records(tmp_path / "results")
    assert first["metrics"] == second["metrics"]
    assert first["weights"] == second["weights"]
    assert {first["backbone"], second["backbone"]} == {"vgg16_panet"}
    assert {first["checkpoint"]["layout"], second["checkpoint"]["layout"]} == {"panet", "fss_bench"}
    for folder in tmp_path.rglob("run.json"):
        assert pd.read_parquet(folder.parent / "episodes.parquet")["inter_fg"].sum() > 0
