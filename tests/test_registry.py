"""Names without imports, one class a name, and plug-ins that fail loudly when used."""

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from fss_bench import registry
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.options import construct
from fss_bench.registry import Entry, Registry, load_plugin_file

PACKAGE = Path(registry.__file__).parent
PLUGIN = '''
from fss_bench.registry import methods

@methods.register("nearest")
class Nearest:
    """Takes the nearest pixel."""
'''


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of methods with a built-in alone, as it was again afterwards."""
    found = registry.methods
    monkeypatch.setattr(found, "_classes", {"panet": found.get("panet")})
    return found


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that packages with these entry points are installed."""

    def pretend(*points: tuple[str, str]) -> None:
        found = [EntryPoint(name, value, "fss_bench.methods") for name, value in points]
        monkeypatch.setattr(
            registry, "entry_points", lambda group: [p for p in found if p.group == group]
        )

    return pretend


@pytest.fixture
def strange_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("strange")
    module.Nearest = type("Nearest", (), {"__module__": "strange"})  # type: ignore[attr-defined]
    module.Other = type("Other", (), {"__module__": "strange"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "strange", module)
    return module


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_names_are_listed_without_importing_a_plugin_or_torch() -> None:
    output = run_python(
        "import sys; from fss_bench.registry import *\n"
        "for r in (methods, datasets, backbones): r.names(), r.entries()\n"
        "print(methods.names(), datasets.names(), backbones.names())\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'timm', 'pandas')"
        " or m.startswith(('fss_bench.methods', 'fss_bench.datasets', 'fss_bench.backbones'))])"
    )
    names, imported = output.splitlines()
    assert "panet" in names
    assert "pascal5i" in names
    assert "resnet50" in names
    assert imported == "[]"


@pytest.mark.parametrize("what", ["methods", "datasets", "backbones", "protocols"])
def test_the_list_command_needs_no_torch(what: str) -> None:
    output = run_python(
        "import sys; from fss_bench import cli\n"
        f"sys.argv = ['fss-bench', 'list', '{what}']\n"
        "try: cli.main()\n"
        "except SystemExit as end: print('status', end.code)\n"
        "print('torch' in sys.modules, 'timm' in sys.modules)"
    )
    lines = output.splitlines()
    assert lines[-1] == "False False"
    assert "status 0" in lines
    assert len(lines) >= 3


@pytest.mark.parametrize("kind", ["methods", "datasets", "backbones"])
def test_every_builtin_is_registered_under_its_files_name(kind: str) -> None:
    found: Registry = getattr(registry, kind)
    files = {f.stem for f in (PACKAGE / kind).glob("*.py")} - {"__init__"}
    assert files
    assert files <= set(found.names())
    for name in files:
        assert found.get(name).__module__ == f"fss_bench.{kind}.{name}"
    builtins = [e for e in found.entries() if e.origin == "built-in"]
    assert {e.name for e in builtins} == files
    assert all(e.summary.strip() for e in builtins)


def test_an_entry_shows_the_first_line_of_the_file() -> None:
    (panet,) = [e for e in registry.methods.entries() if e.name == "panet"]
    assert panet.summary.startswith("PANet: one prototype per class")
    assert "\n" not in panet.summary


def test_a_second_class_of_a_name_raises() -> None:
    fresh = Registry("method", "fss_bench.methods")
    first = fresh.register("mine")(type("First", (), {}))
    assert fresh.register("mine")(first) is first
    with pytest.raises(
        FssBenchError, match=r"method 'mine' is registered twice: .*First and .*Second"
    ):
        fresh.register("mine")(type("Second", (), {}))
    assert fresh.get("mine") is first


def test_registries_are_apart() -> None:
    a, b = Registry("method", "fss_bench.methods"), Registry("backbone", "fss_bench.backbones")
    a.register("same")(int)
    b.register("same")(str)
    assert (a.get("same"), b.get("same")) == (int, str)


@pytest.mark.parametrize(("typed", "near"), [("pannet", "panet"), ("anet", "panet")])
def test_an_unknown_name_suggests_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown method '{typed}': did you mean '{near}'"):
        registry.methods.get(typed)


def test_a_name_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset 'zzzz': known: coco20i, folder"):
        registry.datasets.get("zzzz")


@pytest.mark.parametrize("name", ["__init__", "../cli", "", "panet.py"])
def test_a_file_name_is_no_name(name: str) -> None:
    with pytest.raises(UnknownNameError):
        registry.methods.get(name)


def test_a_plugin_file_registers(methods: Registry, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    load_plugin_file(file)
    assert methods.get("nearest").__name__ == "Nearest"
    assert Entry("nearest", "Takes the nearest pixel.", "plug-in file") in methods.entries()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "import no_such_module_here",
            "ModuleNotFoundError: No module named 'no_such_module_here'",
        ),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit('told to stop')", "SystemExit: told to stop"),
        (
            PLUGIN[: PLUGIN.index("class")] + "def nearest(): ...",
            "method 'nearest' is no class but of type function: register a class",
        ),
        (PLUGIN.replace('"nearest"', '"panet"'), "method 'panet' is a built-in"),
        (PLUGIN + PLUGIN, "method 'nearest' is registered twice"),
    ],
)
def test_a_broken_plugin_file_names_itself(
    methods: Registry, tmp_path: Path, content: str, reason: str
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(content)
    with pytest.raises(FssBenchError, match=re.escape(reason)) as error:
        load_plugin_file(file)
    assert str(error.value).startswith(f"plug-in {file}")
    assert methods.get("panet").__module__ == "fss_bench.methods.panet"


def test_a_missing_plugin_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FssBenchError, match=r"plug-in file not found: .*absent\.py"):
        load_plugin_file(tmp_path / "absent.py")


def test_a_plugin_that_is_no_python_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "plugin.txt"
    file.write_text(PLUGIN)
    with pytest.raises(FssBenchError, match=r"plugin.txt is not a Python file"):
        load_plugin_file(file)


def test_an_installed_plugin_is_listed_unopened_and_loaded_when_used(
    methods: Registry, install: Callable[..., None], strange_module: ModuleType
) -> None:
    install(("nearest", "strange:Nearest"))
    assert "nearest" in methods.names()
    assert Entry("nearest", "strange:Nearest", "plug-in") in methods.entries()
    assert "nearest" not in methods._classes
    assert methods.get("nearest") is strange_module.Nearest
    assert methods.get("nearest") is strange_module.Nearest


@pytest.mark.parametrize("value", ["no_such_package:Thing", "strange:Absent"])
def test_a_broken_installed_plugin_fails_when_used_not_when_listed(
    methods: Registry, install: Callable[..., None], strange_module: ModuleType, value: str
) -> None:
    install(("nearest", value), ("fine", "strange:Nearest"))
    assert {"nearest", "fine", "panet"} <= set(methods.names())
    assert "nearest" in [e.name for e in methods.entries()]
    assert methods.get("fine") is strange_module.Nearest
    with pytest.raises(
        FssBenchError, match=re.escape(f"method plug-in 'nearest' ({value}) failed:")
    ):
        methods.get("nearest")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import sys\nsys.exit(3)", "failed: SystemExit: 3"),
        ("class Nearest(", "failed: SyntaxError: '(' was never closed"),
        ("Nearest = 3", "is no class but of type int: its pyproject.toml must name one"),
        ("import no_such_package", "failed: ModuleNotFoundError: No module named"),
    ],
)
def test_a_broken_module_of_a_plugin_is_listed_and_named_when_used(
    methods: Registry,
    install: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    reason: str,
) -> None:
    (tmp_path / "broken_plugin.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    install(("nearest", "broken_plugin:Nearest"))
    assert "nearest" in [e.name for e in methods.entries()]
    with pytest.raises(FssBenchError, match=re.escape(reason)) as error:
        methods.get("nearest")
    assert str(error.value).startswith("method plug-in 'nearest' (broken_plugin:Nearest) ")
    assert "\n" not in str(error.value)


def test_an_installed_plugin_is_described_by_its_source(
    methods: Registry,
    install: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = tmp_path / "described_plugin" / "parts"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (inner / "__init__.py").write_text('"""Parts."""')
    (inner / "nearest.py").write_text('"""Nearest: looks around.\n\nMore."""\nCARD = {"year": 1}')
    (tmp_path / "silent_plugin.py").write_text("CARD = {'year': 2}")
    monkeypatch.syspath_prepend(tmp_path)
    install(
        ("deep", "described_plugin.parts.nearest:Nearest"),
        ("folder", "described_plugin.parts:Nearest"),
        ("silent", "silent_plugin:Nearest"),
        ("absent", "described_plugin.absent:Nearest"),
    )
    found = {e.name: e for e in methods.entries() if e.origin == "plug-in"}
    assert found == {
        "deep": Entry("deep", "Nearest: looks around.", "plug-in", {"year": 1}),
        "folder": Entry("folder", "Parts.", "plug-in"),
        "silent": Entry("silent", "silent_plugin:Nearest", "plug-in", {"year": 2}),
        "absent": Entry("absent", "described_plugin.absent:Nearest", "plug-in"),
    }


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("method", "torch.nn.modules.module.Module"),
        ("dataset", "fss_bench.dataset.SegDataset"),
        ("backbone", "fss_bench.backbone.Backbone"),
    ],
)
def test_a_plugin_of_the_wrong_kind_is_told_its_base_class(
    monkeypatch: pytest.MonkeyPatch, kind: str, base: str
) -> None:
    from fss_bench import create_backbone, create_dataset, create_method

    own: Registry = getattr(registry, f"{kind}s")
    monkeypatch.setattr(own, "_classes", {})
    own.register("alien")(type("Alien", (), {"__module__": "strange"}))
    create = {"method": create_method, "dataset": create_dataset, "backbone": create_backbone}[kind]
    arguments = ["alien", None] if kind == "method" else ["alien"]
    with pytest.raises(
        FssBenchError,
        match=re.escape(f"{kind} 'alien' (strange.Alien) does not derive from {base}"),
    ):
        create(*arguments)


def test_a_module_without_a_constructor_is_told_to_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch import nn

    from fss_bench import create_method

    monkeypatch.setattr(registry.methods, "_classes", {})
    registry.methods.register("bare")(type("Bare", (nn.Module,), {}))
    with pytest.raises(FssBenchError, match="method 'bare' has no constructor: write __init__"):
        create_method("bare", None)  # type: ignore[arg-type]


def test_an_installed_plugin_cannot_take_a_builtins_name(
    methods: Registry, install: Callable[..., None], strange_module: ModuleType
) -> None:
    install(("panet", "strange:Nearest"))
    assert methods.names().count("panet") == 1
    with pytest.raises(FssBenchError, match=r"'panet' is a built-in and also a plug-in \(strange:"):
        methods.get("panet")


def test_two_installed_plugins_cannot_share_a_name(
    methods: Registry, install: Callable[..., None], strange_module: ModuleType
) -> None:
    install(("nearest", "strange:Nearest"), ("nearest", "strange:Other"))
    assert methods.names().count("nearest") == 1
    with pytest.raises(FssBenchError, match=r"several plug-ins .*strange:Nearest, strange:Other"):
        methods.get("nearest")
    install(("nearest", "strange:Nearest"), ("nearest", "strange:Nearest"))
    assert methods.get("nearest") is strange_module.Nearest  # one package seen twice


def test_a_plugin_file_cannot_take_an_installed_plugins_name(
    methods: Registry, install: Callable[..., None], strange_module: ModuleType, tmp_path: Path
) -> None:
    install(("nearest", "strange:Nearest"))
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    load_plugin_file(file)
    said = f"method 'nearest' is registered twice: {file}:Nearest and strange.Nearest; rename one"
    with pytest.raises(FssBenchError, match=re.escape(said)):
        methods.get("nearest")


def test_entry_points_of_other_kinds_are_not_methods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    for found in (registry.methods, registry.datasets, registry.backbones):
        found.names()
    assert asked == ["fss_bench.methods", "fss_bench.datasets", "fss_bench.backbones"]


def test_options_of_an_open_ended_plugin_cannot_replace_what_is_fixed() -> None:
    def build(backbone: str, **options: int) -> tuple[str, dict[str, int]]:
        return backbone, options

    assert construct(build, "method 'm'", {"backbone": "b"}, {"any": 1}) == ("b", {"any": 1})
    with pytest.raises(UnknownNameError, match="unknown option of method 'm' 'backbone'"):
        construct(build, "method 'm'", {"backbone": "b"}, {"backbone": 1})


def test_a_constructor_that_does_not_go_with_its_arguments_is_named() -> None:
    def build(backbone: str, size: int, depth: int = 2) -> tuple[str, int, int]:
        return backbone, size, depth

    assert construct(build, "method 'm'", {"backbone": "b"}, {"size": 1}) == ("b", 1, 2)
    with pytest.raises(FssBenchError, match="method 'm' needs option 'size': give size=value"):
        construct(build, "method 'm'", {"backbone": "b"}, {})
    with pytest.raises(FssBenchError, match="method 'm' takes no argument 'network'"):
        construct(build, "method 'm'", {"network": "b"}, {"size": 1})


def test_a_builtins_card_is_read_without_importing_it() -> None:
    output = run_python(
        "import sys; from fss_bench.registry import methods\n"
        "print([e.card['year'] for e in methods.entries() if e.name == 'panet'])\n"
        "print('fss_bench.methods.panet' in sys.modules, 'torch' in sys.modules)"
    )
    assert output.splitlines() == ["[2019]", "False False"]


def test_an_entry_without_a_card_has_an_empty_one() -> None:
    entries = [*registry.datasets.entries(), *registry.backbones.entries()]
    assert entries
    assert all(entry.card == {} for entry in entries if entry.origin == "built-in")


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        ("", {}),
        ("CARD = {'year': 2020}", {"year": 2020}),
        ("CARD = {'year': 2000 + 20}", {"year": 2020}),
        ("CARD = [2020]", {}),
        ("CARD = None", {}),
    ],
)
def test_a_plugin_files_card_is_its_modules(
    methods: Registry, tmp_path: Path, card: str, wanted: dict[str, int]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{card}\n{PLUGIN}")
    load_plugin_file(file)
    (entry,) = [e for e in methods.entries() if e.name == "nearest"]
    assert entry.card == wanted


@pytest.mark.parametrize(
    ("content", "card"),
    [
        ("CARD = {'year': 2020}", {"year": 2020}),
        ("CARD: dict[str, int] = {'year': 2020}", {"year": 2020}),
        ("CARD = {'year': 2000 + 20}", {}),
        ("CARD = dict(year=2020)", {}),
        ("CARD = 3", {}),
        ("CARD: dict[str, int]", {}),
        ("def f():\n    CARD = {'year': 2020}", {}),
        ("OTHER = {'year': 2020}", {}),
    ],
)
def test_a_builtin_in_the_making_breaks_no_listing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, card: dict[str, int]
) -> None:
    fresh = Registry("method", "fss_bench.methods")
    (tmp_path / "mine.py").write_text(f'"""Mine."""\n\n{content}\n')
    monkeypatch.setattr(fresh, "_builtin_files", lambda: {"mine": tmp_path / "mine.py"})
    assert fresh.entries() == [Entry("mine", "Mine.", "built-in", card)]
