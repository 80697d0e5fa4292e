"""Published weights from the command line: evaluate, convert, inspect."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from test_cli import complaint, fss_bench
from torch import Tensor, nn

from fss_bench import create_backbone
from fss_bench.errors import WeightsError
from fss_bench.weight_files import METADATA
from fss_bench.weight_reading import get_weight_layout, weight_layout_names

SMALL = ("--episodes", 2, "--fold", 0, "--option", "input_size=64", "--workers", 0, "--json")


def moco_file(path: Path, name: str = "resnet18") -> Path:
    """MoCo v2's layout: two encoders with heads, and a queue."""
    state: dict[str, Tensor] = {}
    for seed, encoder in enumerate(("encoder_q", "encoder_k")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk = timm.create_model(name, num_classes=0).state_dict()
        state |= {f"module.{encoder}.{k}": v for k, v in trunk.items()}
        for layer in (0, 2):
            state[f"module.{encoder}.fc.{layer}.weight"] = torch.zeros(8, 8)
            state[f"module.{encoder}.fc.{layer}.bias"] = torch.zeros(8)
    state |= {"module.queue": torch.zeros(8, 16), "module.queue_ptr": torch.zeros(1)}
    torch.save({"epoch": 800, "arch": name, "state_dict": state, "optimizer": {}}, path)
    return path


def evaluate(tmp_path: Path, weights: Path, *more: object, backbone: str = "resnet18") -> Any:
    words = ("evaluate", "panet", "--backbone", backbone, "--weights", weights)
    done = fss_bench(*words, *SMALL, "--output", tmp_path / "results", *more)
    (run,) = json.loads(done.stdout)["runs"]
    return run, done.stderr


def test_a_moco_checkpoint_evaluates(tmp_path: Path) -> None:
    file = moco_file(tmp_path / "moco_v2_800ep_pretrain.pth.tar", "resnet50")
    run, shown = evaluate(tmp_path, file, backbone="resnet50")
    assert run["weights"]["source"] == file.name
    assert (run["weights"]["layout"], run["weights"]["encoder"]) == ("moco", "query")
    assert "was read as MoCo v1 or v2, query encoder" in shown


def test_the_other_encoder_is_another_row(tmp_path: Path) -> None:
    file = moco_file(tmp_path / "moco.pth.tar")
    query, _ = evaluate(tmp_path, file)
    key, _ = evaluate(tmp_path, file, "--backbone-option", "encoder=momentum")
    assert query["run_id"] != key["run_id"]
    assert key["weights"]["encoder"] == "momentum"
    board = (tmp_path / "results" / "leaderboard.csv").read_text()
    assert "resnet18(encoder=momentum)" in board
    assert len(board.splitlines()) == 3
    for default in ("encoder=online", "layout=moco"):
        again, _ = evaluate(tmp_path, file, "--backbone-option", default)
        assert again["run_id"] == query["run_id"]


def test_inspect_says_what_a_file_is(tmp_path: Path) -> None:
    file = moco_file(tmp_path / "moco.pth.tar")
    text = fss_bench("convert", "--inspect", file).stdout
    assert "layout moco: MoCo v1 or v2, query encoder, or momentum by" in text
    assert "network resnet18" in text
    assert "left out 2: the queue of keys" in text
    assert "images: mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225" in text
    assert f"use: --backbone resnet18 --weights {file}" in text


def test_a_converted_file_gives_the_same_numbers(tmp_path: Path) -> None:
    file, ours = moco_file(tmp_path / "moco.pth.tar"), tmp_path / "moco.safetensors"
    assert str(ours) in fss_bench("convert", file, ours).stdout
    for more in ((), ("--backbone-option", "encoder=key")):
        first, _ = evaluate(tmp_path / "a", file, *more)
        second, _ = evaluate(tmp_path / "b", ours, *more)
        assert first["metrics"] == second["metrics"]
        assert second["weights"]["layout"] == "moco"
    again = tmp_path / "again.safetensors"
    fss_bench("convert", ours, again)
    first, second = load_file(ours), load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_backbone_has_no_fold(tmp_path: Path) -> None:
    file = moco_file(tmp_path / "moco.pth.tar")
    target = tmp_path / "x.safetensors"
    text = complaint("convert", file, target, "--dataset", "pascal5i", "--fold", 1)
    assert "belong to no fold" in text
    assert not target.exists()


def test_a_file_with_objects_takes_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("lib_of_others")
    memory = type("Memory", (nn.Module,), {"__module__": "lib_of_others"})
    vars(module)["Memory"] = memory
    monkeypatch.setitem(sys.modules, "lib_of_others", module)
    trunk = timm.create_model("resnet18", num_classes=0).state_dict()
    state = {f"module.{k}": v for k, v in trunk.items()} | {"module.fc.weight": torch.zeros(8, 8)}
    file, ours = tmp_path / "lemniscate_resnet18.pth.tar", tmp_path / "npid.safetensors"
    torch.save({"state_dict": state, "lemniscate": memory()}, file)
    for words in (("convert", file, ours), ("convert", "--inspect", file)):
        assert "--old-pickle" in complaint(*words)
    assert not ours.exists()
    fss_bench("convert", file, ours, "--old-pickle")
    assert "NPID" in fss_bench("convert", "--inspect", ours).stdout
    run, _ = evaluate(tmp_path, ours)
    assert run["weights"]["layout"] == "npid"


def pretrained_file(path: Path, layout: str) -> Path:
    """What `pretrain` writes of a ViT-S that it started from a file of a layout."""
    trunk = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    about = {"method": "moco", "version": 2, "layout": layout, "mean": [0.1] * 3, "std": [1.0] * 3}
    path.parent.mkdir(exist_ok=True)
    save_file({f"query.{k}": v for k, v in trunk.items()}, path, {METADATA: json.dumps(about)})
    return path


def test_a_pretrained_network_stays_what_it_started_as(tmp_path: Path) -> None:
    for layout, heads in (("moco_v3", 12), ("timm", 6)):
        file = pretrained_file(tmp_path / layout / "weights.safetensors", layout)
        again = tmp_path / layout / "again.safetensors"
        fss_bench("convert", file, again)
        for path in (file, again):
            backbone: Any = create_backbone("vit_small_patch16_224", path)
            assert backbone.model.blocks[0].attn.num_heads == heads
            assert backbone.weights.source == f"{layout}/{path.name}"
            assert backbone.weights.layout == "fss_bench"
            assert backbone.mean.flatten().tolist() == pytest.approx([0.1] * 3)
        text = fss_bench("convert", "--inspect", again).stdout
        assert "layout fss_bench: moco v2 of fss-bench pretrain, query encoder" in text


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (("--backbone", "resnet34"), "does not fit resnet34"),
        (("--backbone", "resnet34"), "made for, resnet18"),
        (("--backbone-option", "encoder=teachr"), "did you mean"),
        (("--backbone-option", "layout=dino"), "does not look like DINO"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, more: tuple[str, ...], wanted: str) -> None:
    file = moco_file(tmp_path / "moco.pth.tar")
    words = ("evaluate", "panet", "--backbone", "resnet18", "--weights", file, *SMALL[:-1])
    assert wanted in complaint(*words, "--output", tmp_path / "results", *more)


def test_an_encoder_without_a_file(tmp_path: Path) -> None:
    text = complaint(
        *("evaluate", "panet", "--backbone", "resnet18", "--weights", "none"),
        *("--backbone-option", "encoder=query", "--output", tmp_path),
    )
    assert "--weights none is no file: drop the option encoder" in text


def test_the_page_lists_every_layout() -> None:
    page = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    expected = []
    for name in weight_layout_names():
        rules = get_weight_layout(name)
        roles = ", ".join(dict.fromkeys(encoder.role for encoder in rules.encoders))
        where = urlparse(rules.source).path.strip("/")
        link = f"[{where}]({rules.source})" if urlparse(rules.source).scheme else "this package"
        expected.append(f"| `{name}` | {rules.title} | {link} | {roles} |")
    assert rows == expected


class Built:
    """Pickled as a call of `call` with `arguments`, and a state to set."""

    def __init__(self, call: Any, arguments: Any, *state: Any) -> None:
        self.parts = (call, arguments, *state)

    def __reduce_ex__(self, _: Any) -> Any:
        return self.parts

    def __call__(self) -> None:
        """Only what can be called is pickled as a call."""


def test_forged_numpy_types_are_not_built(tmp_path: Path) -> None:
    """A type of eight bytes that NumPy would take for the address of an object."""
    scalar = np.float64(0).__reduce__()[0]
    field = Built(np.dtype, ("O",)), 0
    forged = Built(np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": field}, 8, 8, 1))
    value = Built(scalar, (Built(np.dtype, ([("a", forged)],)), b"\x41" * 8))
    file = tmp_path / "forged.pth"
    torch.save({"state_dict": {"w": torch.ones(1)}, "best": Built(value, ())}, file)
    words = (sys.executable, "-m", "fss_bench", "convert", "--inspect", str(file))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "not a readable checkpoint" in line or "no known layout" in line


def test_scores_beside_the_weights_are_dropped(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    file = tmp_path / "scored.pth"
    torch.save({"state_dict": state, "best": np.float64(0.5), "args": Namespace(lr=0.1)}, file)
    assert create_backbone("resnet18", file).weights.layout == "timm"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 cut", bytes(100)])
def test_bad_files_are_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"bad.{suffix}"
    file.write_bytes(content)
    assert "fetch it again" in complaint("convert", "--inspect", file)
    assert "fetch it again" in complaint("convert", file, tmp_path / "out.safetensors")


def test_ours_without_metadata_are_refused(tmp_path: Path) -> None:
    file = pretrained_file(tmp_path / "a" / "weights.safetensors", "timm")
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(file), bare)
    with pytest.raises(WeightsError, match="not its metadata"):
        create_backbone("vit_small_patch16_224", bare)


@pytest.mark.parametrize(
    "about",
    ['{"mean": [0, 0, 0, 0, 0, 0]}', '{"std": [0, 1, 1]}', '{"mean": [NaN, 0, 0]}', "[" * 9999],
)
def test_bad_metadata_is_one_line(tmp_path: Path, about: str) -> None:
    file = tmp_path / "bad.safetensors"
    save_file({"query.conv1.weight": torch.zeros(1)}, file, {METADATA: about})
    with pytest.raises(WeightsError, match="metadata that cannot be read"):
        create_backbone("resnet18", file)


def test_encoder_beside_a_checkpoint(tmp_path: Path) -> None:
    text = complaint(
        *("evaluate", "panet", "--checkpoint", "x.pth", "--backbone-option", "encoder=query"),
        *("--output", tmp_path),
    )
    assert "--checkpoint holds the backbone's weights: leave it out" in text


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_weights_that_are_no_fractions_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    file = tmp_path / "typed.pth"
    torch.save({k: v.to(dtype) for k, v in state.items()}, file)
    with pytest.raises(WeightsError, match=r"of another type .*conv1\.weight"):
        create_backbone("resnet18", file)
