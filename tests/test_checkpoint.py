"""Checkpoints of whole methods: recognised, loaded as a whole or not at all, converted."""

import io
import json
import os
import pickle
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from parity import read_keys
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fss_bench
from fss_bench import checkpoint as reading
from fss_bench import checkpoint_loading as loading
from fss_bench import create_backbone, create_dataset, create_method, load_checkpoint, registry
from fss_bench.checkpoint import (
    METADATA,
    Checkpoint,
    TrainedOn,
    UnknownLayoutError,
    check_use,
    layouts,
    read_checkpoint,
)
from fss_bench.checkpoint_loading import build_for, create_from_checkpoint
from fss_bench.conversion import convert_checkpoint, describe, save_checkpoint, trained_on
from fss_bench.errors import FssBenchError, UnknownNameError, WeightsError
from fss_bench.layout import Layout, State, Variant
from fss_bench.protocols import PROTOCOLS
from fss_bench.setting import Setting
from fss_bench.weight_files import file_sha256, known_file, tensors_sha256, unwrap_state

SMALL = "tf_efficientnet_lite0"


def know_only(monkeypatch: pytest.MonkeyPatch, known: dict[str, Layout]) -> None:
    for module in (reading, loading):
        monkeypatch.setattr(module, "layouts", lambda: known)


def guided(width: int) -> Variant:
    return Variant("vgg16_fcn32s", {"width": width}, "fine-tuned")


def cofcn(fusion: str, width: int = 256) -> Variant:
    return Variant("vgg16_fcn32s", {"fusion": fusion, "width": width}, "fine-tuned")


def msanet(backbone: str, shots: int, base: int = 15) -> Variant:
    return Variant(backbone, {"shots": shots, "base_classes": base}, "base-finetuned", (shots,))


SWIN = "swin_base_patch4_window12_384"
PUBLISHED_FILES: dict[str, dict[str, Variant]] = {
    "dcama_resnet50": {"dcama": Variant("resnet50", weights="a1h")},
    "dcama_resnet101": {"dcama": Variant("resnet101", weights="a1h")},
    "dcama_swin": {"dcama": Variant(SWIN, weights="ms_in22k_ft_in1k")},
    "hsnet_vgg16": {"hsnet": Variant("vgg16", weights="tv_in1k")},
    "hsnet_resnet50": {"hsnet": Variant("resnet50", weights="tv_in1k")},
    "hsnet_resnet101": {"hsnet": Variant("resnet101", weights="tv_in1k")},
    "msanet_resnet50_1shot": {"msanet": msanet("resnet50_deepstem", 1)},
    "msanet_resnet50_5shot": {"msanet": msanet("resnet50_deepstem", 5)},
    "msanet_vgg_1shot": {"msanet_vgg": msanet("vgg16_bn_msanet", 1)},
    "msanet_vgg_5shot": {"msanet_vgg": msanet("vgg16_bn_msanet", 5)},
    "panet_vgg16": {"panet": Variant("vgg16_panet", weights="fine-tuned")},
    "sgone_vgg16": {"sgone": Variant("vgg16_sgone", weights="fine-tuned")},
    "revolver_cofeat-early": {"cofcn": cofcn("early")},
    "revolver_cofeat-late-lite-unshared": {"cofcn_late": cofcn("late")},
    "revolver_cofeat-late-lite": {"guided": guided(256)},
    "revolver_cofeat-late": {"guided": guided(4096)},
    "revolver_interactive-early-lite": {},
}
OUR_VARIANTS = [
    *((name, v) for found in PUBLISHED_FILES.values() for name, v in found.items()),
    *(
        (layout, msanet(backbone, shots, 60))
        for layout, backbone in (
            ("msanet", "resnet50_deepstem"),
            ("msanet", "resnet101_deepstem"),
            ("msanet_vgg", "vgg16_bn_msanet"),
        )
        for shots in (1, 5)
    ),
    ("cofcn", cofcn("early", 4096)),
]


def detected(state: State) -> dict[str, Variant]:
    found = {name: layout.detect(state) for name, layout in layouts().items()}
    return {name: variant for name, variant in found.items() if variant is not None}


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_a_published_file_is_of_one_layout_alone(shared: Path, name: str) -> None:
    shapes = read_keys(shared / f"golden/keys/{name}_keys.txt")
    state = {k: torch.empty(shape, device="meta") for k, shape in shapes.items()}
    assert detected(state) == PUBLISHED_FILES[name]


def test_every_key_list_of_the_shared_material_is_tried(shared: Path) -> None:
    found = {f.name.removesuffix("_keys.txt") for f in (shared / "golden/keys").glob("*.txt")}
    assert found == set(PUBLISHED_FILES)


@pytest.mark.parametrize(
    ("layout", "variant"), OUR_VARIANTS, ids=lambda v: str(getattr(v, "backbone", v))
)
def test_a_method_under_published_names_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, layout: str, variant: Variant
) -> None:
    monkeypatch.setattr("fss_bench.weights.state_sha256", lambda _: "")  # meta has no bytes
    with torch.device("meta"):
        method = create_method(
            layouts()[layout].method,
            create_backbone(variant.backbone, weights="none"),
            **variant.options,
        )
    own = method.state_dict()
    theirs = {layouts()[layout].published(k): v for k, v in own.items()}
    assert len(theirs) == len(own)
    assert not theirs.keys() & own.keys() or theirs.keys() != own.keys()
    assert [layouts()[layout].rename(k) for k in theirs] == list(own)
    if layout == "guided":  # a guide is no part of our state, but of theirs
        theirs["z"] = torch.zeros(())
    assert detected(theirs) == {layout: variant}
    assert detected(own) == {}


def test_tensors_of_fewer_dimensions_break_no_detection(shared: Path) -> None:
    for name in PUBLISHED_FILES:
        names = read_keys(shared / f"golden/keys/{name}_keys.txt")
        try:
            found = read_checkpoint({k: torch.zeros(()) for k in names})
        except UnknownLayoutError:
            continue
        assert found.layout in PUBLISHED_FILES[name]


def test_layouts_name_methods_protocols_and_sources() -> None:
    protocols = {*PROTOCOLS, "bam", "oslsm", "panet", "revolver"}
    for layout in layouts().values():
        assert layout.method in registry.methods.names()
        assert layout.protocol in protocols
        assert layout.source.startswith("https://github.com/")


# A layout as small as can be: the machinery is the same for all.


def tiny_detect(state: State) -> Variant | None:
    if "net.conv_stem.weight" not in state:
        return None
    shots = (len(state["shots"]),) if "shots" in state else None
    return Variant(SMALL, {"scale": 10.0}, "tuned", shots)


TINY = Layout(
    "panet",
    "https://github.com/none/none",
    "hsnet",
    tiny_detect,
    renames={"net.": "backbone.model."},
    drops={r"net\.classifier\..*": "the classifier is not used", "shots": "a mark"},
    fixed={"ramp": lambda shape: torch.arange(1, shape[0] + 1) / 3},
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Layout:
    know_only(monkeypatch, {"tiny": TINY})
    return TINY


def new(seed: int = 0, **options: Any) -> nn.Module:
    return create_method("panet", create_backbone(SMALL, weights="none", seed=seed), **options)


@pytest.fixture(scope="module")
def source() -> nn.Module:
    method = new(seed=7, scale=10.0)
    for buffer in (b for n, b in method.named_buffers() if n.endswith("running_mean")):
        buffer.normal_(generator=torch.Generator().manual_seed(len(buffer)))
    return method


@pytest.fixture
def state(source: nn.Module) -> dict[str, Tensor]:
    return {TINY.published(k): v.clone().contiguous() for k, v in source.state_dict().items()}


def assert_same(method: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = method.state_dict()
    assert set(own) == set(state)
    assert all(torch.equal(own[k], v.to(own[k].dtype)) for k, v in state.items())


@pytest.fixture
def refused() -> Callable[..., str]:
    """Loads what must be refused with one line, which it returns; nothing may have changed."""

    def load(source: Any, method: nn.Module | None = None) -> str:
        method = method or new()
        before = {k: v.clone() for k, v in method.state_dict().items()}
        weights = method.backbone.weights
        with pytest.raises(WeightsError) as error:
            load_checkpoint(method, source)
        assert_same(method, before)
        assert not hasattr(method, "checkpoint")
        assert method.backbone.weights is weights
        assert "\n" not in str(error.value)
        return str(error.value)

    return load


def prefixed(state: State) -> dict[str, Tensor]:
    return {f"module.{k}": v for k, v in state.items()}


def with_optimizer(state: State) -> dict[str, Any]:
    optimizer = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"epoch": 3, "state_dict": state, "optimizer": optimizer}


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": dict,
    "module": prefixed,
    "optimizer": with_optimizer,
    "module in state_dict": lambda s: with_optimizer(prefixed(s)),
    "model": lambda s: {"model": s, "lr_scheduler": {"last_epoch": 4}},
    "state_dict in model": lambda s: {"state_dict": {"model": s}},
}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=list(WRAPPINGS))
@pytest.mark.parametrize("form", ["file", "legacy file", "state dict"])
def test_wrappers_and_prefixes_are_taken_off(
    tmp_path: Path,
    source: nn.Module,
    state: dict[str, Tensor],
    wrap: Callable[[Any], Any],
    form: str,
) -> None:
    given: Any = wrap(state)
    if form != "state dict":
        zipped = form == "file"
        torch.save(given, tmp_path / "best.pth", _use_new_zipfile_serialization=zipped)
        given = tmp_path / "best.pth"
    method = new()
    report = load_checkpoint(method, given)
    assert_same(method, source.state_dict())
    assert (report.loaded, report.by_order) == (len(state), False)
    assert report.checkpoint.variant == Variant(SMALL, {"scale": 10.0}, "tuned")


@pytest.mark.usefixtures("tiny")
def test_the_report_says_what_was_loaded_and_what_was_left_out(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    state |= {"net.classifier.weight": torch.zeros(9), "net.classifier.bias": torch.ones(1)}
    state |= {"ramp": torch.arange(1, 8) / 3}
    folder = tmp_path / "fold0"
    folder.mkdir()
    torch.save(state, folder / "best.pth")
    method = new()
    report = load_checkpoint(method, folder / "best.pth")
    assert report.lines() == [
        f"{tmp_path.name}/fold0/best.pth: panet on {SMALL}, layout tiny, protocol hsnet",
        f"loaded {len(method.state_dict())} tensors",
        "left out 2: the classifier is not used",
        "left out 1: a constant of the method, equal to ours",
    ]
    assert report.loaded + sum(report.dropped.values()) == len(state)
    assert report.checkpoint.sha256 == file_sha256(folder / "best.pth")


@pytest.mark.usefixtures("tiny")
def test_a_method_knows_what_it_was_loaded_with(state: dict[str, Tensor]) -> None:
    method = new()
    before = method.backbone.weights
    load_checkpoint(method, state)
    assert isinstance(method.checkpoint, Checkpoint)
    assert method.checkpoint.sha256 == tensors_sha256(state)
    assert method.checkpoint.state == {}  # not held twice
    assert method.backbone.weights.source == "tuned"
    assert method.backbone.weights.sha256 not in (None, before.sha256)


@pytest.mark.usefixtures("tiny")
def test_the_source_is_not_written_to(state: dict[str, Tensor]) -> None:
    before = {k: v.clone() for k, v in state.items()}
    method = create_from_checkpoint(read_checkpoint(state))
    with torch.no_grad():
        for tensor in method.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(state[k], v) for k, v in before.items())


def test_the_methods_own_names_are_taken(
    tmp_path: Path, source: nn.Module, refused: Callable[..., str]
) -> None:
    own = {k: v.contiguous() for k, v in source.state_dict().items()}
    torch.save(own, tmp_path / "mine.pth")
    save_file(own, tmp_path / "mine.safetensors")
    parallel = nn.DataParallel(source).state_dict()
    assert next(iter(parallel)).startswith("module.")
    for given in (own, parallel, tmp_path / "mine.pth", tmp_path / "mine.safetensors"):
        method = new()
        report = load_checkpoint(method, given)
        assert_same(method, own)
        assert (report.by_order, report.checkpoint.variant.backbone) == (False, SMALL)
    name = next(k for k in own if k.endswith("conv_stem.weight"))
    text = refused({**own, name: torch.zeros(2)})
    assert f"1 of another shape ({name} (2,) instead of (32, 3, 3, 3))" in text


def test_a_module_of_ones_own_takes_its_own_names() -> None:
    module = nn.Linear(2, 3)
    wanted = {k: torch.rand_like(v) for k, v in module.state_dict().items()}
    report = load_checkpoint(module, wanted)
    assert_same(module, wanted)
    assert report.checkpoint.method == "Linear"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("missing", "1 missing (net.conv_stem.weight2)"),
        ("left", "2 left over (net.extra, head.weight)"),
        ("shape", "1 of another shape (net.bn1.weight (5,) instead of (32,))"),
        ("all", "1 missing"),
    ],
)
def test_keys_that_do_not_fit_are_named_under_published_names(
    state: dict[str, Tensor], refused: Callable[..., str], change: str, complaint: str
) -> None:
    gone = list(state)[1]
    if change in ("missing", "all"):
        del state[gone]
        complaint = complaint.replace("net.conv_stem.weight2", gone)
    if change in ("left", "all"):
        state |= {"net.extra": torch.zeros(1), "head.weight": torch.zeros(1)}
    if change in ("shape", "all"):
        if gone != "net.bn1.weight":
            state["net.bn1.weight"] = torch.zeros(5)
        else:
            state["net.bn1.bias"], complaint = torch.zeros(5), complaint.replace("weight", "bias")
    text = refused(state)
    assert complaint in text
    assert text.startswith(f"state dict does not fit panet on {SMALL}: tensors ")
    assert text.endswith(f"it is for --backbone {SMALL} --option scale=10.0")
    if change == "all":
        assert "2 left over" in text
        assert "1 of another shape" in text


@pytest.mark.usefixtures("tiny")
def test_a_file_for_another_backbone_names_it(
    state: dict[str, Tensor], refused: Callable[..., str]
) -> None:
    method = create_method("panet", create_backbone("resnet18", weights="none"))
    text = refused(state, method)
    assert "does not fit panet on resnet18" in text
    assert f"it is for --backbone {SMALL} " in text
    assert len(text) < 500


@pytest.mark.usefixtures("tiny")
def test_a_file_of_another_method_names_it(
    state: dict[str, Tensor], refused: Callable[..., str]
) -> None:
    method = create_method("sgone", create_backbone(SMALL, weights="none"))
    text = refused(state, method)
    assert text == ("state dict is a panet checkpoint, not one of sgone: evaluate panet with it")


@pytest.mark.usefixtures("tiny")
def test_counters_of_batches_may_be_missing(state: dict[str, Tensor]) -> None:
    fewer = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(fewer) < len(state)
    assert load_checkpoint(new(), fewer).loaded == len(fewer)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("ramp", [torch.arange(2, 9) / 3, torch.ones(7, 1), torch.arange(1, 8)])
def test_a_constant_of_other_values_is_refused(
    state: dict[str, Tensor], refused: Callable[..., str], ramp: Tensor
) -> None:
    assert "ramp is a constant of panet and has other values" in refused({**state, "ramp": ramp})


@pytest.mark.usefixtures("tiny")
def test_a_tensor_under_two_names_is_refused(
    state: dict[str, Tensor], refused: Callable[..., str]
) -> None:
    twice = {**state, "backbone.model.bn1.weight": state["net.bn1.weight"] + 1}
    assert "holds net.bn1.weight twice, once as backbone.model.bn1.weight" in refused(twice)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinite_values_are_refused(
    tmp_path: Path, state: dict[str, Tensor], refused: Callable[..., str], value: float
) -> None:
    state["net.bn1.running_var"][3] = value
    torch.save(state, tmp_path / "bad.pth")
    text = refused(tmp_path / "bad.pth")
    assert "bad.pth: tensor net.bn1.running_var holds NaN or infinite values: the file is" in text


@pytest.mark.usefixtures("tiny")
def test_nan_in_what_is_left_out_does_not_matter(state: dict[str, Tensor]) -> None:
    state["net.classifier.weight"] = torch.full((2,), float("nan"))
    load_checkpoint(new(), state)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(state: dict[str, Tensor], dtype: torch.dtype) -> None:
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    cast["ramp"] = (torch.arange(1, 8) / 3).to(dtype)
    method = new()
    load_checkpoint(method, cast)
    assert {v.dtype for v in method.state_dict().values()} == {torch.float32, torch.int64}
    stem = method.state_dict()["backbone.model.conv_stem.weight"]
    assert torch.equal(stem, cast["net.conv_stem.weight"].float())


def test_half_precision_kernels_of_revolver_are_constants_still() -> None:
    for name, shape in (("decoder.weight", (2, 2, 64, 64)), ("anno_enc.weight", (1, 1, 64, 64))):
        layout = layouts()["cofcn"]
        kernel = layout.fixed[name](shape)
        loading._check_fixed("f", name, kernel.half(), layout)
        with pytest.raises(WeightsError, match="has other values"):
            loading._check_fixed("f", name, (1.01 * kernel).half(), layout)


@pytest.mark.parametrize(
    ("foreign", "complaint"),
    [
        (timm.create_model("resnet10t").state_dict(), "weights of a backbone go to --weights"),
        ({"a": torch.zeros(1), "b": torch.zeros(2)}, "(its names begin a, b)"),
        ({"epoch": 3, "args": [1, 2]}, "holds no state dict: it must map names to tensors"),
        ({"state_dict": {"a": 1}}, "holds no state dict: it must map names to tensors"),
        ({}, "holds no state dict: it must map names to tensors"),
        ({"state_dict": {}}, "holds no state dict: it must map names to tensors"),
    ],
    ids=["resnet", "random", "no tensors", "wrapped", "empty", "wrapped empty"],
)
def test_foreign_content_is_refused(
    tmp_path: Path, refused: Callable[..., str], foreign: Any, complaint: str
) -> None:
    torch.save(foreign, tmp_path / "foreign.pth")
    assert complaint in refused(tmp_path / "foreign.pth")
    assert complaint in refused(foreign)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], "text"])
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, refused: Callable[..., str], content: Any
) -> None:
    torch.save(content, tmp_path / "foreign.pth")
    assert "foreign.pth holds no state dict" in refused(tmp_path / "foreign.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty: fetch it again"),
        (b"<!DOCTYPE html>\n<html>\nSign in\n</html>", "is a web page, not a checkpoint"),
        (b"  \n <html></html>", "is a web page, not a checkpoint"),
        (b"PK\x03\x04 and no more", "is truncated: fetch it again"),
        (bytes(range(256)) * 20, "is not a readable checkpoint"),
    ],
    ids=["empty", "page", "indented page", "zip", "noise"],
)
def test_damaged_files_say_so(
    tmp_path: Path, refused: Callable[..., str], suffix: str, content: bytes, complaint: str
) -> None:
    file = tmp_path / f"damaged.{suffix}"
    file.write_bytes(content)
    text = refused(file)
    assert text.startswith(str(file))
    assert complaint in text


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_truncated_files_are_refused(
    tmp_path: Path, state: dict[str, Tensor], refused: Callable[..., str], form: str, part: float
) -> None:
    file = tmp_path / ("cut.safetensors" if form == "safetensors" else "cut.pth")
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    assert "fetch it again" in refused(file)


def test_what_is_no_file_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert refused(tmp_path / "absent.pth") == f"checkpoint {tmp_path}/absent.pth: no such file"
    assert refused(tmp_path) == f"checkpoint {tmp_path}: is a folder, give a file in it"


def test_a_file_without_permission_is_named(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "mine.pth"
    file.write_bytes(b"content")
    monkeypatch.setattr(torch, "load", forbidden)
    text = refused(file)
    assert "mine.pth cannot be read (PermissionError: [Errno 13] Permission denied)" in text


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_runs_no_code(
    tmp_path: Path, refused: Callable[..., str], zipped: bool
) -> None:
    file, marker = tmp_path / "evil.pth", tmp_path / "marker"
    content = {"state_dict": {"a": torch.zeros(1)}, "args": Evil(marker)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    assert "holds Python objects beside tensors" in refused(file)
    with file.with_name("plain.pth").open("wb") as plain:
        pickle.dump(Evil(marker), plain)
    refused(file.with_name("plain.pth"))
    assert not marker.exists()
    torch.load(file, weights_only=False)  # it would have
    assert marker.exists()


# Files of Python 2


def as_python_2(path: Path) -> None:
    """Rewrite the strings in a legacy file's five pickles as Python 2 wrote them."""
    raw = path.read_bytes()
    stream = io.BytesIO(raw)
    written = b""
    for _ in range(5):
        start = stream.tell()
        operations = list(pickletools.genops(stream))
        ends = [at for _, _, at in operations[1:]] + [stream.tell()]
        for (operation, argument, at), end in zip(operations, ends, strict=True):
            if operation.name == "BINUNICODE":
                text = str(argument).encode()
                assert len(text) < 256
                written += b"U" + bytes([len(text)]) + text
            else:
                written += raw[at:end]
        assert start < stream.tell()
    path.write_bytes(written + raw[stream.tell() :])


@pytest.fixture(scope="module")
def sgone() -> nn.Module:
    return create_method("sgone", create_backbone("vgg16_sgone", weights="none"))


@pytest.fixture(scope="module")
def python_2_file(tmp_path_factory: pytest.TempPathFactory, sgone: nn.Module) -> Path:
    layout = layouts()["sgone"]
    state = OrderedDict((layout.published(k), v) for k, v in sgone.state_dict().items())
    momentum = {0: {"momentum_buffer": torch.zeros(3)}}
    content = {
        "global_counter": 9000,
        "state_dict": state,
        "optimizer": {"state": momentum, "param_groups": [{"lr": 1e-5, "nesterov": False}]},
    }
    file = tmp_path_factory.mktemp("python2") / "step_9000.pth.tar"
    torch.save(content, file, _use_new_zipfile_serialization=False)
    as_python_2(file)
    return file


def test_a_published_file_of_python_2_is_loaded(python_2_file: Path, sgone: nn.Module) -> None:
    names = {op.name for op, _, _ in pickletools.genops(python_2_file.read_bytes()[21:])}
    assert "SHORT_BINSTRING" in names
    assert "BINUNICODE" not in names
    checkpoint = read_checkpoint(python_2_file)
    assert (checkpoint.layout, checkpoint.protocol) == ("sgone", "oslsm")
    method = build_for(checkpoint, create_backbone("vgg16_sgone", weights="none", seed=5))
    report = load_checkpoint(method, python_2_file)
    assert_same(method, sgone.state_dict())
    assert report.loaded == len(sgone.state_dict())
    assert checkpoint.sha256 == file_sha256(python_2_file)


# By position


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout = replace(TINY, ordered=True)
    know_only(monkeypatch, {"tiny": layout})
    return layout


def strange(state: State) -> dict[str, Tensor]:
    return {f"tensor{i}": v for i, v in enumerate(state.values())}


@pytest.mark.usefixtures("ordered")
def test_strange_names_go_by_position_where_all_shapes_agree(
    tmp_path: Path, source: nn.Module, state: dict[str, Tensor]
) -> None:
    given = strange(state)
    items = list(given.items())
    between = [
        ("fc.weight", torch.zeros(1000, 1280)),
        ("fc.bias", torch.zeros(1000)),
        ("pe", torch.zeros(1, 10000, 8)),
        ("index", torch.zeros(4, 4, dtype=torch.int64)),
    ]
    torch.save(dict([*items[:9], *between, *items[9:]]), tmp_path / "old.pt")
    method = new()
    report = load_checkpoint(method, tmp_path / "old.pt")
    floating = {k: v for k, v in source.state_dict().items() if v.is_floating_point()}
    assert all(torch.equal(method.state_dict()[k], v) for k, v in floating.items())
    assert report.by_order
    assert report.loaded == len(floating)
    assert report.loaded + sum(report.dropped.values()) == len(state) + len(between)
    lines = report.lines()
    assert f"layout tiny, protocol {TINY.protocol}" in lines[0]
    assert lines[1].endswith("by position, since its names are not the published ones")
    assert method.checkpoint.layout == "tiny"


@pytest.mark.usefixtures("ordered")
def test_positions_that_do_not_agree_are_refused(
    state: dict[str, Tensor], refused: Callable[..., str]
) -> None:
    items = list(strange(state).items())
    floating = [i for i, (_, v) in enumerate(items) if v.is_floating_point()]
    first, last = floating[0], floating[-1]
    swapped = list(items)
    swapped[first], swapped[last] = swapped[last], swapped[first]
    for wrong in (swapped, items[:first] + items[first + 1 :], [*items, ("x", torch.zeros(3))]):
        assert "is of no known layout" in refused(dict(wrong))
    items[first][1].view(-1)[0] = float("nan")
    assert "tensor tensor0 holds NaN" in refused(dict(items))


@pytest.mark.usefixtures("tiny")
def test_strange_names_of_other_layouts_are_refused(
    state: dict[str, Tensor], refused: Callable[..., str]
) -> None:
    assert "is of no known layout" in refused(strange(state))


@pytest.mark.usefixtures("ordered")
def test_positions_are_no_way_into_another_method(
    sgone: nn.Module, refused: Callable[..., str]
) -> None:
    method = create_method("sgone", create_backbone(SMALL, weights="none"))
    assert "is of no known layout" in refused(strange(method.state_dict()), method)


def test_the_published_layouts_that_go_by_position() -> None:
    assert {name for name, layout in layouts().items() if layout.ordered} == {"panet", "dcama"}


def test_a_legacy_panet_file_goes_by_position() -> None:
    method = create_method("panet", create_backbone("vgg16_panet", weights="none"))
    wanted = {k: v + 1 for k, v in method.state_dict().items()}
    report = load_checkpoint(method, strange(wanted))
    assert report.by_order
    assert report.checkpoint.layout == "panet"
    assert_same(method, wanted)


def test_a_legacy_dcama_file_goes_by_position_past_its_head_and_constants() -> None:
    method = create_method("dcama", create_backbone("resnet50", weights="none"))
    wanted = {k: v + 1 for k, v in method.state_dict().items()}
    given = strange({k: v for k, v in wanted.items() if v.is_floating_point()})
    own = [k for k in wanted if wanted[k].is_floating_point()]
    after = next(i for i, name in enumerate(own) if not name.startswith("backbone."))
    items = list(given.items())
    head = [("h1", torch.zeros(1000, 2048)), ("h2", torch.zeros(1000))]
    codes = [(f"pe{width}", torch.zeros(1, 10000, width)) for width in (512, 1024, 2048)]
    report = load_checkpoint(method, dict([*items[:after], *head, *items[after:], *codes]))
    assert (report.by_order, report.loaded, sum(report.dropped.values())) == (True, len(own), 5)
    loaded = method.state_dict()
    assert all(torch.equal(loaded[k], wanted[k]) for k in own)


# Written and read again


@pytest.fixture
def published(tmp_path: Path, tiny: Layout, state: dict[str, Tensor]) -> Path:
    torch.save(with_optimizer(prefixed(state)), tmp_path / "official.pth")
    return tmp_path / "official.pth"


def metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return dict(json.loads(file.metadata()[METADATA]))


@pytest.mark.usefixtures("tiny")
def test_a_converted_file_holds_the_same_bits_and_its_origin(
    published: Path, source: nn.Module, tmp_path: Path
) -> None:
    known = TrainedOn("pascal5i", 2, ("aeroplane", "cat"))
    report = convert_checkpoint(published, tmp_path / "ours.safetensors", known)
    assert report.loaded == len(source.state_dict())
    assert set(load_file(tmp_path / "ours.safetensors")) == set(source.state_dict())
    ours = read_checkpoint(tmp_path / "ours.safetensors")
    assert ours.sha256 == file_sha256(tmp_path / "ours.safetensors")
    assert (ours.layout, ours.method, ours.protocol) == ("fss_bench", "panet", "hsnet")
    assert ours.variant == Variant(SMALL, {"scale": 10.0}, "tuned")
    assert ours.trained_on == known
    assert ours.origin == {
        "path": f"{tmp_path.parts[-2]}/{tmp_path.name}/official.pth",
        "sha256": file_sha256(published),
        "layout": "tiny",
    }
    method = create_from_checkpoint(ours)
    assert_same(method, source.state_dict())
    assert method.scale == 10.0
    assert method.checkpoint.trained_on == known


@pytest.mark.usefixtures("tiny")
def test_ours_converted_again_keeps_its_first_origin_and_training(
    published: Path, tmp_path: Path
) -> None:
    known = TrainedOn("pascal5i", 2, ("aeroplane",))
    first, second, third = (tmp_path / f"{i}.safetensors" for i in range(3))
    convert_checkpoint(published, first, known)
    convert_checkpoint(first, second)
    assert metadata(second) == metadata(first)
    assert metadata(second)["origin"]["sha256"] == file_sha256(published)
    assert second.read_bytes() == first.read_bytes()
    with pytest.raises(WeightsError, match="trained on pascal5i fold 2, not on coco20i fold 1"):
        convert_checkpoint(first, third, TrainedOn("coco20i", 1, ("cat",)))
    assert not third.exists()
    convert_checkpoint(first, third, known)
    assert metadata(third) == metadata(first)


@pytest.mark.usefixtures("tiny")
def test_shots_of_a_variant_survive(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**state, "shots": torch.zeros(5)}, tmp_path / "five.pth")
    convert_checkpoint(tmp_path / "five.pth", tmp_path / "five.safetensors")
    assert read_checkpoint(tmp_path / "five.safetensors").variant.shots == (5,)


def test_a_published_file_of_python_2_converts(
    python_2_file: Path, sgone: nn.Module, tmp_path: Path
) -> None:
    target = tmp_path / "sgone.safetensors"
    convert_checkpoint(python_2_file, target)
    assert_same(sgone, load_file(target))
    ours = read_checkpoint(target)
    assert (ours.method, ours.variant.backbone) == ("sgone", "vgg16_sgone")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("ours.pth", "ours.pth: write to another file, whose name ends in .safetensors"),
        ("none/ours.safetensors", "none: no such folder to write into"),
        ("official.pth/ours.safetensors", "official.pth: no such folder to write into"),
        ("folder.safetensors", "cannot write"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    published: Path, tmp_path: Path, target: str, complaint: str
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WeightsError) as error:
        convert_checkpoint(published, tmp_path / target)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("tiny")
def test_a_file_is_not_converted_onto_itself(published: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours.safetensors"
    convert_checkpoint(published, ours)
    before = ours.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(ours)
    for target in (ours, tmp_path / "x" / ".." / "ours.safetensors", tmp_path / "link.safetensors"):
        with pytest.raises(WeightsError, match="write to another file"):
            convert_checkpoint(ours, target)
    assert ours.read_bytes() == before


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "ours.safetensors"
    target.write_bytes(b"what was there")

    def half(number: int) -> None:
        os.ftruncate(number, 100)
        raise error

    monkeypatch.setattr(os, "fsync", half)
    wanted = WeightsError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        convert_checkpoint(published, target)
    monkeypatch.undo()
    assert target.read_bytes() == b"what was there"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["official.pth", "ours.safetensors"]


def test_ours_with_metadata_that_cannot_be_read_is_refused(
    tmp_path: Path, source: nn.Module, refused: Callable[..., str]
) -> None:
    good = {
        "method": "panet",
        "variant": {"backbone": SMALL, "options": {}, "weights": "w", "shots": None},
        "protocol": "standard",
        "origin": None,
        "trained_on": None,
    }
    file = tmp_path / "ours.safetensors"
    tensors = {k: v.contiguous() for k, v in source.state_dict().items()}
    save_file(tensors, file, {METADATA: json.dumps(good)})
    load_checkpoint(new(), file)
    method = new()
    wrong: list[Any] = [
        "no json",
        *(json.dumps({k: v for k, v in good.items() if k != left}) for left in good),
        *(json.dumps({**good, "variant": v}) for v in ({}, [], "x", {"backbone": SMALL, "a": 1})),
        *(json.dumps({**good, "trained_on": v}) for v in ([1], "x", {"dataset": "a"})),
        json.dumps({**good, "variant": {**good["variant"], "options": None}}),
        json.dumps({**good, "origin": {"sha256": "0"}}),
        json.dumps([good]),
        json.dumps(None),
    ]
    for text in wrong:
        save_file(tensors, file, {METADATA: text})
        assert "has metadata that cannot be read" in refused(file, method), text
    save_file(tensors, file, {METADATA: json.dumps({**good, "method": "pannet"})})
    with pytest.raises(UnknownNameError, match="did you mean 'panet'"):
        create_from_checkpoint(read_checkpoint(file))


# What a file is


@pytest.mark.usefixtures("tiny")
def test_an_official_file_and_ours_are_described(published: Path, tmp_path: Path) -> None:
    numbers = sum(v.numel() for v in unwrap_state(torch.load(published), "").values())
    count = len(new().state_dict())
    assert describe(published) == [
        f"official.pth: sha256 {file_sha256(published)}",
        f"layout tiny: method panet on {SMALL}, options scale=10.0, shots any",
        "backbone weights: tuned; protocol of its paper: hsnet",
        f"{count} tensors, {numbers:,} numbers",
    ]
    target = tmp_path / "ours.safetensors"
    convert_checkpoint(published, target, TrainedOn("pascal5i", 2, ("cat",)))
    lines = describe(target)
    assert lines[1].startswith("layout fss_bench: method panet")
    origin = f"{tmp_path.parts[-2]}/{tmp_path.name}/official.pth"
    assert lines[-2:] == [
        f"converted from {origin} (sha256 {file_sha256(published)})",
        "trained on pascal5i fold 2",
    ]


def test_a_known_backbone_file_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, file)
    assert known_file(file) is None
    with pytest.raises(WeightsError, match=r"resnet.pth is of no known layout"):
        describe(file)
    monkeypatch.setattr(
        "fss_bench.weight_files.KNOWN_FILES", {file_sha256(file)[:8]: "a resnet of 2017"}
    )
    digest = file_sha256(file)
    assert describe(file) == [f"resnet.pth: sha256 {digest}", "known as a resnet of 2017"]
    backbone = timm.create_model("resnet18").state_dict()
    torch.save(backbone, file)
    monkeypatch.setattr(
        "fss_bench.weight_files.KNOWN_FILES", {file_sha256(file)[:8]: "resnet18 V1"}
    )
    assert create_backbone("resnet18", weights=str(file)).weights.source == "resnet18 V1"


def test_what_cannot_be_described_says_why(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    for name, why in (
        ("absent.pth", "no such file"),
        ("", "is a folder"),
        ("page.pth", "web page"),
    ):
        with pytest.raises(WeightsError, match=why):
            describe(tmp_path / name)


def test_sums_are_over_names_and_bytes_in_any_order() -> None:
    a, b = torch.arange(6.0).reshape(2, 3), torch.tensor(3)
    assert tensors_sha256({"a": a, "b": b}) == tensors_sha256({"b": b, "a": a})
    assert tensors_sha256({"a": a}) == tensors_sha256({"a": a.T.contiguous().T})
    others = [{"c": a}, {"a": a + 1}, {"a": a, "b": b}, {"a": a.double()}, {"a": a.bool()}]
    assert len({tensors_sha256(s) for s in [{"a": a}, *others]}) == 6
    assert tensors_sha256({"a": a.bfloat16(), "e": torch.zeros(0)})


# What a file must not be used for


def setting(names: str, fold: int = 0, shots: int = 1) -> Setting:
    """Two folds of the named classes; no image is looked at."""
    every = dict(enumerate(names.split(","), start=1))
    half = len(every) // 2
    folds = [list(every)[:half], list(every)[half:]]
    dataset: Any = SimpleNamespace(class_names=every, folds=folds)
    protocol = PROTOCOLS["standard"]
    return Setting(dataset, protocol, fold, 1, shots, 0, [], folds[fold])


@pytest.fixture
def trained() -> Checkpoint:
    known = TrainedOn("pascal5i", 1, ("cat", "tvmonitor", "pottedplant"))
    return Checkpoint("ours.pt", "0", "tiny", "panet", Variant(SMALL), "hsnet", trained_on=known)


def test_a_fold_whose_classes_were_seen_is_refused(trained: Checkpoint) -> None:
    check_use(trained, setting("cat,tvmonitor,dog,bus", fold=1))
    with pytest.raises(FssBenchError) as error:
        check_use(trained, setting("cat,tvmonitor,dog,bus", fold=0))
    assert str(error.value) == (
        "ours.pt was trained on pascal5i fold 1, whose base classes include cat, tvmonitor of test "
        "fold 0: evaluate it on fold 1"
    )


@pytest.mark.parametrize("name", ["cat", "Cat", "tv", "potted plant", "potted_plant"])
def test_classes_of_another_dataset_that_were_seen_are_refused(
    trained: Checkpoint, name: str
) -> None:
    check_use(trained, setting("dog,cattle"))
    with pytest.raises(FssBenchError, match=f"whose base classes include {name} of test fold 0"):
        check_use(trained, setting(f"{name},dog"))


@pytest.mark.parametrize("pascal", range(4))
@pytest.mark.parametrize("coco", range(4))
def test_coco_folds_and_pascal_folds_always_share_classes(pascal: int, coco: int) -> None:
    of_pascal = registry.datasets.get("pascal5i")
    of_coco = Checkpoint("f", "0", "l", "panet", Variant(SMALL), "standard")
    of_coco = replace(of_coco, trained_on=trained_on("coco20i", coco))
    dataset: Any = SimpleNamespace(class_names=of_pascal.class_names)
    test = of_pascal.folds[pascal]
    with pytest.raises(FssBenchError, match="was trained on coco20i"):
        check_use(of_coco, Setting(dataset, PROTOCOLS["standard"], pascal, 1, 1, 0, [], test))


def test_another_number_of_shots_is_refused(trained: Checkpoint) -> None:
    five = replace(trained, method="msanet", variant=Variant(SMALL, shots=(5,)))
    check_use(five, setting("dog,bus", shots=5))
    with pytest.raises(FssBenchError) as error:
        check_use(five, setting("dog,bus", shots=1))
    assert str(error.value) == (
        "ours.pt is a 5-shot msanet checkpoint: it cannot be evaluated with --shots 1; use the "
        "file for that number of shots"
    )


def test_training_that_is_not_known_refuses_nothing(trained: Checkpoint) -> None:
    check_use(replace(trained, trained_on=None), setting("cat,dog"))


@pytest.mark.parametrize(("dataset", "base"), [("pascal5i", 15), ("coco20i", 60), ("shapes", 15)])
def test_base_classes_are_all_but_those_of_the_fold(dataset: str, base: int) -> None:
    cls = registry.datasets.get(dataset)
    for fold in range(4):
        known = trained_on(dataset, fold)
        novel = {cls.class_names[c] for c in cls.folds[fold]}
        assert (known.dataset, known.fold, len(known.base_classes)) == (dataset, fold, base)
        assert {*known.base_classes, *novel} == set(cls.class_names.values())
        assert not novel & set(known.base_classes)


def test_coco_folds_are_interleaved() -> None:
    assert "person" not in trained_on("coco20i", 0).base_classes
    assert "bicycle" in trained_on("coco20i", 0).base_classes


@pytest.mark.parametrize(
    ("dataset", "fold", "complaint"),
    [
        ("pascal5i", 4, "--fold 4: pascal5i has folds 0 to 3"),
        ("pascal5i", -1, "--fold -1: pascal5i has folds 0 to 3"),
        ("folder", 0, "the classes of folder are not known without its files: leave out --data"),
        ("pascal51", 0, "did you mean 'pascal5i'"),
    ],
)
def test_training_data_that_does_not_exist_is_named(
    dataset: str, fold: int, complaint: str
) -> None:
    with pytest.raises(FssBenchError, match=complaint):
        trained_on(dataset, fold)


@pytest.fixture
def on_own_data(
    make_folder: Callable[..., Path], source: nn.Module, tmp_path: Path
) -> Callable[..., Any]:
    """Evaluates a checkpoint trained for fold 0 of a small dataset."""
    dataset = create_dataset("folder", make_folder(per_class=4))
    base = tuple(dataset.class_names[c] for c in dataset.base_classes(0))
    made = Checkpoint("made", "0", "tiny", "panet", Variant(SMALL, shots=(1, 2)), "hsnet")
    file = tmp_path / "fold0.safetensors"
    save_checkpoint(source, file, made, TrainedOn("folder", 0, base))

    def run(**changes: Any) -> Any:
        method = new(input_size=64)
        load_checkpoint(method, file)
        rules = {"min_pixels": 1}
        return fss_bench.evaluate(method, dataset, episodes=2, rules=rules, **changes)

    return run


def test_a_run_tells_its_checkpoint(on_own_data: Callable[..., Any], tmp_path: Path) -> None:
    record = on_own_data(fold=0).record
    file = tmp_path / "fold0.safetensors"
    path = f"{tmp_path.parts[-2]}/{tmp_path.name}/fold0.safetensors"
    assert record["checkpoint"] == {
        "path": path,
        "sha256": file_sha256(file),
        "layout": "fss_bench",
        "series": f"{tmp_path.as_posix()}/fold{{fold}}.safetensors",
        "origin": {"path": "made", "sha256": "0", "layout": "tiny"},
        "trained_on": {"dataset": "folder", "fold": 0, "base_classes": ("class3", "class4")},
        "training": None,
    }
    assert json.loads(json.dumps(record["checkpoint"]))["trained_on"]["fold"] == 0
    assert record["weights"]["source"] == "checkpoint"


def test_evaluate_refuses_what_must_not_be(on_own_data: Callable[..., Any]) -> None:
    with pytest.raises(FssBenchError, match="base classes include class3, class4 of test fold 1"):
        on_own_data(fold=1)
    on_own_data(fold=0, shots=2)
    with pytest.raises(FssBenchError, match="it cannot be evaluated with --shots 3"):
        on_own_data(fold=0, shots=3)


@pytest.mark.parametrize(
    ("name", "fold", "series"),
    [
        ("a/b/fold0.pth", 0, "a/b/fold{fold}.pth"),
        ("a/split3/best.pth", 3, "a/split{fold}/best.pth"),
        ("pas_Fold-2_x.pth", 2, "pas_Fold-{fold}_x.pth"),
        ("split_1/fold1.pth", 1, "split_{fold}/fold{fold}.pth"),
        ("fold1.pth", 0, "fold1.pth"),
        ("fold10.pth", 1, "fold10.pth"),
        ("best.pth", 0, "best.pth"),
    ],
)
def test_files_of_folds_have_one_series_name(
    trained: Checkpoint, name: str, fold: int, series: str
) -> None:
    assert replace(trained, name=name).record(fold)["series"] == series
    assert replace(trained, name=name, series="mine").record(fold)["series"] == "mine"


def test_loading_warns_of_nothing(python_2_file: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_checkpoint(python_2_file)
    assert not caught


def test_the_python_names_are_at_the_top() -> None:
    assert fss_bench.load_checkpoint is load_checkpoint
    assert set(fss_bench.__all__) == set(fss_bench._HOMES)
    assert all(getattr(fss_bench, name) for name in fss_bench.__all__)


def test_names_twice_sparse_and_whole_number_tensors_are_refused(tmp_path: Path) -> None:
    state = dict(new().state_dict())
    name = next(k for k, v in state.items() if v.is_floating_point())
    with pytest.raises(WeightsError, match="names twice or sparse"):
        load_checkpoint(new(), {**state, f"module.{name}": state[name]})
    with pytest.raises(WeightsError, match="names twice or sparse"):
        load_checkpoint(new(), {**state, name: state[name].to_sparse()})
    with pytest.raises(WeightsError, match="of another type"):
        load_checkpoint(new(), {**state, name: state[name].int()})


def test_scores_of_numpy_beside_the_state_are_read(tmp_path: Path) -> None:
    wanted = new(seed=3)
    content = {"model_state_dict": wanted.state_dict(), "best": np.float64(0.3), "n": np.int64(2)}
    torch.save(content, tmp_path / "best.pth")
    method = new()
    load_checkpoint(method, tmp_path / "best.pth")
    assert_same(method, wanted.state_dict())


def test_a_bare_backbone_is_no_checkpoint_by_position() -> None:
    method = create_method("panet", create_backbone("vgg16_panet", weights="none"))
    trunk = {k.removeprefix("backbone.model."): v for k, v in method.state_dict().items()}
    with pytest.raises(UnknownLayoutError, match="weights of a backbone go to --weights"):
        load_checkpoint(method, trunk)


def test_a_file_with_some_strange_names_goes_by_position() -> None:
    method = create_method("panet", create_backbone("vgg16_panet", weights="none"))
    layout = layouts()["panet"]
    state = {layout.published(k): v + 1 for k, v in method.state_dict().items()}
    renamed = {k.replace("features.0.", "first."): v for k, v in state.items()}
    report = load_checkpoint(method, renamed)
    assert report.by_order
    assert torch.equal(next(iter(method.state_dict().values())), next(iter(state.values())))


def test_a_strangers_attribute_of_that_name_is_left_alone(on_own_data: Any) -> None:
    class Own(nn.Module):
        checkpoint = "a path of its own"
        input_size = 64

        def forward(self, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
            return torch.zeros(len(query), 2, 4, 4)

    run = fss_bench.evaluate(Own(), create_dataset("shapes"), episodes=1)
    assert run.record["checkpoint"] is None
