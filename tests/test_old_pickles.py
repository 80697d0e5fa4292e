"""Files that hold Python objects: read with the flag alone, and nothing in them runs."""

import collections
import contextlib
import importlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION
from weight_features import assert_same, features_of, images
from weight_layout_files import npid, random_state, with_state

from fss_bench import create_backbone
from fss_bench.errors import WeightsError
from fss_bench.old_pickles import load_old_pickle
from fss_bench.weight_conversion import save_weights
from fss_bench.weight_files import read_content
from fss_bench.weight_reading import read_weights
from fss_bench.weights import Source, load_weights

NPID = "tiny_resnet"
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(content: Any, path: Path, zipped: bool, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


# NPID ---------------------------------------------------------------------------------------------


MODULE = """
import torch
from torch import nn

from lib.alias_multinomial import AliasMethod


class {name}(nn.Module):
    def __init__(self):
        super().__init__()
        self.nLem = 8
        self.unigrams = torch.ones(8)
        self.multinomial = AliasMethod()
        self.register_buffer("params", torch.tensor([4096.0, 0.07, -1.0, 0.5]))
        self.register_buffer("memory", torch.ones(8, 4))
"""
ALIAS = """
import torch


class AliasMethod(object):
    def __init__(self):
        self.prob = torch.ones(8)
        self.alias = torch.zeros(8, dtype=torch.long)
"""


@pytest.fixture
def save_npid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes a file of NPID where its code was, which is gone when the file is read."""
    library = tmp_path / "code" / "lib"
    library.mkdir(parents=True)
    (library / "__init__.py").touch()
    (library / "alias_multinomial.py").write_text(ALIAS)
    for name in ("NCEAverage", "LinearAverage"):
        (library / f"{name}.py").write_text(MODULE.format(name=name))

    def write(zipped: bool, memory: str = "NCEAverage") -> Path:
        monkeypatch.syspath_prepend(library.parent)
        module = importlib.import_module(f"lib.{memory}")
        content = npid(random_state(NPID), getattr(module, memory)())
        path = save(content, tmp_path / "lemniscate.pth.tar", zipped)
        shutil.rmtree(library)
        for name in [name for name in sys.modules if name.partition(".")[0] == "lib"]:
            del sys.modules[name]
        return path

    yield write
    assert "lib" not in sys.modules


@FORMATS
def test_npid_is_refused_without_the_flag(save_npid: Callable[..., Path], zipped: bool) -> None:
    path = save_npid(zipped)
    with pytest.raises(WeightsError, match=r"holds Python objects beside tensors.*--old-pickle"):
        create_backbone(NPID, path)
    with pytest.raises(WeightsError, match=r"holds Python objects beside tensors.*--old-pickle"):
        read_weights(path)


@FORMATS
@pytest.mark.parametrize("memory", ["NCEAverage", "LinearAverage"])
def test_npid_is_read_with_the_flag(
    save_npid: Callable[..., Path], zipped: bool, memory: str
) -> None:
    path = save_npid(zipped, memory)
    reading = read_weights(path, old_pickle=True)
    assert (reading.layout, reading.role) == ("npid", "query")
    state = random_state(NPID)
    assert reading.state.keys() == state.keys()
    assert all(torch.equal(reading.state[key], state[key]) for key in state)
    assert sum(reading.left.values()) == 2  # the classifier's
    model = with_state(NPID, random_state(NPID, seed=1))
    info = load_weights(model, NPID, Source(str(path), reading))
    assert (info.layout, info.encoder) == ("npid", "query")
    assert_same(features_of(model, images()), features_of(with_state(NPID, state), images()))


@FORMATS
def test_converted_npid_gives_the_features_without_a_flag(
    save_npid: Callable[..., Path], zipped: bool, tmp_path: Path
) -> None:
    path, converted = save_npid(zipped), tmp_path / "npid.safetensors"
    save_weights(path, converted, read_weights(path, old_pickle=True), old_pickle=True)
    backbone = create_backbone(NPID, converted)
    assert backbone.weights.layout == "npid"
    wanted = features_of(with_state(NPID, random_state(NPID)), images())
    assert_same(backbone(images()), wanted)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_is_harmless_is_read_as_it_was(zipped: bool, protocol: int, tmp_path: Path) -> None:
    content = {
        "state_dict": collections.OrderedDict(
            half=torch.ones(2, dtype=torch.float16),
            brain=torch.ones(3, dtype=torch.bfloat16),
            number=torch.tensor(7),
            view=torch.arange(12.0).view(3, 4)[:, 1:],
            parameter=nn.Parameter(torch.ones(2, 2)),
        ),
        "shape": torch.Size([2, 3]),
        "kind": torch.float64,
        "words": ["a", {"b": (1, 2.5, None, True)}],
    }
    path = save(content, tmp_path / "f.pth", zipped, protocol)
    found = load_old_pickle(path)
    assert found.keys() == content.keys()
    for key, value in content["state_dict"].items():
        assert torch.equal(found["state_dict"][key], value)
        assert found["state_dict"][key].dtype == value.dtype
    assert found["shape"] == torch.Size([2, 3])
    assert found["kind"] is torch.float64
    assert found["words"] == content["words"]


# files that would run something -------------------------------------------------------------------


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, *(() if state is None else (state,)))

    def __reduce_ex__(self, _: Any) -> Any:
        return self.reduced

    def __call__(self) -> None:
        """What is called in its place may be a call itself."""


def nested(marker: Path) -> bytes:
    """A file inside the file, which torch's own function would load."""
    buffer = io.BytesIO()
    torch.save(Call(os.system, f"touch {marker}"), buffer)
    return buffer.getvalue()


def payloads(marker: Path) -> dict[str, Any]:
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, command),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "subprocess": Call(subprocess.call, ["touch", str(marker)]),
        "popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "touch": Call(Path.touch, marker),
        "open": Call(open, str(marker), "w"),
        "nested torch.load": Call(torch.storage._load_from_bytes, nested(marker)),
        "nested pickle": Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        "getattr": Call(Call(getattr, Call(__import__, "os"), "system"), command),
        "getattr of torch": Call(
            Call(getattr, Call(__import__, "torch.serialization"), "os"), "system"
        ),
        "map": Call(list, Call(map, os.system, [command])),
        "state": Call(collections.OrderedDict, state={"x": Call(os.system, command)}),
        "state of a call": Call(subprocess.Popen, "true", state={"args": Call(eval, code)}),
        "ordered": collections.OrderedDict(weight=Call(os.system, command)),
        "in a list": [1, [Call(os.system, command)]],
        "key": {Call(str, Call(os.system, command)): 1},
        "hooks": Call(
            torch._utils._rebuild_tensor_v2,
            torch.ones(2)._typed_storage(),
            0,
            (2,),
            (1,),
            True,
            collections.OrderedDict({1: Call(os.system, command)}),
        ),
        "name of torch": Call(torch._utils._import_dotted_name, "os.system"),
        "torch.jit.load": Call(torch.jit.load, str(marker)),
    }


NAMES = sorted(payloads(Path("marker")))


@FORMATS
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("old_pickle", [True, False])
def test_nothing_in_a_file_runs(
    name: str, zipped: bool, old_pickle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    content = npid(random_state(NPID), payloads(marker)[name])
    path = save(content, tmp_path / "evil.pth", zipped)
    marker.unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(WeightsError):
        reading = read_weights(path, old_pickle=old_pickle)
        assert old_pickle
        state = random_state(NPID)
        assert all(torch.equal(reading.state[key], state[key]) for key in state)
    assert [file.name for file in tmp_path.iterdir()] == ["evil.pth"]


@FORMATS
def test_the_payloads_would_run_if_they_could(zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = save({"a": payloads(marker)["os.system"]}, tmp_path / "evil.pth", zipped)
    torch.load(path, weights_only=False)
    assert marker.exists()


def legacy(body: bytes, path: Path, keys: tuple[str, ...] = ()) -> Path:
    """A file of the format before 2020 with a pickle written by hand."""
    with path.open("wb") as file:
        for head in (MAGIC_NUMBER, PROTOCOL_VERSION, {}):
            pickle.dump(head, file, protocol=2)
        file.write(body)
        pickle.dump(list(keys), file, protocol=2)
    return path


def text(word: str) -> bytes:
    """The pickle of a word."""
    return b"X" + len(word.encode()).to_bytes(4, "little") + word.encode()


def attributes(target: bytes, values: dict[str, bytes]) -> bytes:
    """Opcodes that set attributes of what `target` pushes, and leave it as memo 0 on the stack."""
    pairs = b"".join(text(name) + value for name, value in values.items())
    return target + b"q\x00N}(" + pairs + b"u\x86b"


TRUE = b"\x88"
FUNCTION = b"ctorch._utils\n_rebuild_tensor\n"
ORDERED = b"ccollections\nOrderedDict\n"


@pytest.mark.parametrize(
    "target",
    [
        attributes(FUNCTION, {"dump_patches": TRUE, "__name__": text("patched")}),
        attributes(
            ORDERED + b")R",
            {"dump_patches": TRUE, "__name__": text("patched"), "__wrapped__": ORDERED},
        ),
        attributes(b"cevil\nModule\n", {"dump_patches": TRUE, "__name__": text("patched")}),
        ORDERED + b"q\x00",
        FUNCTION + b"q\x00",
    ],
    ids=["function", "instance", "class", "ordered", "untouched function"],
)
def test_source_of_a_module_is_not_compared_nor_written(
    target: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch writes a file `<name>.patch` where a module's source is not what the file says."""
    monkeypatch.chdir(tmp_path)
    module = b"(" + text("module") + b"h\x00" + text("a.py") + text("evil") + b"tQ"
    path = legacy(b"\x80\x02" + target + b"0" + module + b".", tmp_path / "evil.pth")
    with contextlib.suppress(pickle.UnpicklingError, TypeError, AttributeError):
        load_old_pickle(path)
    assert [file.name for file in tmp_path.iterdir()] == ["evil.pth"]


@pytest.mark.parametrize(
    "function", ["_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"]
)
def test_functions_of_torch_are_not_changed(function: str, tmp_path: Path) -> None:
    found = getattr(torch._utils, function)
    before = (found.__name__, found.__defaults__, found.__kwdefaults__, dict(vars(found)))
    target = f"ctorch._utils\n{function}\n".encode()
    changes = {"__name__": text("changed"), "__defaults__": b")", "note": text("here")}
    path = legacy(b"\x80\x02" + attributes(target, changes) + b".", tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError, match="changes torch's functions"):
        load_old_pickle(path)
    with pytest.raises(WeightsError):
        read_content(path, old_pickle=True)
    assert before == (found.__name__, found.__defaults__, found.__kwdefaults__, dict(vars(found)))


@pytest.mark.parametrize("name", ["os\nsystem", "posix\nsystem", "builtins\neval", "nt\nsystem"])
@pytest.mark.parametrize("how", ["reduce", "instance", "object", "new", "stack"])
def test_no_opcode_calls_a_function(name: str, how: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    word = text(f"touch {marker}" if "eval" not in name else f"open({str(marker)!r}, 'w')")
    module, _, attribute = name.partition("\n")
    body = {
        "reduce": b"c" + name.encode() + b"\n" + word + b"\x85R.",
        "instance": b"(" + word + b"i" + name.encode() + b"\n.",
        "object": b"(c" + name.encode() + b"\n" + word + b"o.",
        "new": b"c" + name.encode() + b"\n" + word + b"\x85\x81.",
        "stack": text(module) + text(attribute) + b"\x93" + word + b"\x85R.",
    }[how]
    path = legacy(b"\x80\x04" + body, tmp_path / "evil.pth")
    assert "not loaded" in type(load_old_pickle(path)).__name__
    assert not marker.exists()


@pytest.mark.parametrize("compression", ["", "gz", "xz"])
def test_tar_file_is_refused_before_it_is_unpacked(compression: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    evil = pickle.dumps(Call(os.system, f"touch {marker}"), protocol=2)
    path = tmp_path / "evil.pth"
    with tarfile.open(path, f"w:{compression}") as tar:  # type: ignore[call-overload]
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(evil)
            tar.addfile(member, io.BytesIO(evil))
    for old_pickle in (True, False):
        with pytest.raises(WeightsError, match="fetch it again"):
            read_content(path, old_pickle)
    with pytest.raises(pickle.UnpicklingError, match="tar format"):
        load_old_pickle(path)
    assert not marker.exists()


class _Program(nn.Module):
    """TorchScript runs `__setstate__` on loading, and can write files."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.target = target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        torch.save(state[0], state[1])
        self.weight, self.target, self.training = state


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:.*TorchScript archive")
def test_program_of_torchscript_does_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    torch.jit.script(_Program(str(marker))).save(str(path))
    torch.jit.load(str(path))
    assert marker.exists()  # it would
    marker.unlink()
    for old_pickle in (True, False):
        with pytest.raises(WeightsError, match=r"evil.pth is not a readable checkpoint"):
            read_content(path, old_pickle)
    with pytest.raises(WeightsError):
        create_backbone(NPID, path)
    assert not marker.exists()


@FORMATS
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_damaged_file_is_refused_in_one_line(
    save_npid: Callable[..., Path], zipped: bool, share: float
) -> None:
    path = save_npid(zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match=r"lemniscate.pth.tar is .*fetch it again") as caught:
        read_weights(path, old_pickle=True)
    assert "\n" not in str(caught.value)
