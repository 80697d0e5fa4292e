"""`fss-bench new-method`: a package that works as it is, or one line and nothing written."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_cli import complaint, fss_bench

from fss_bench import registry
from fss_bench.registry import methods
from fss_bench.scaffold import class_name, write_package


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_package_has_a_method_its_test_and_its_entry_point(here: Path) -> None:
    lines = fss_bench("new-method", "my_method").stdout.splitlines()
    written = {str(file.relative_to(here)) for file in here.rglob("*") if file.is_file()}
    assert written == {
        "my_method/README.md",
        "my_method/my_method.py",
        "my_method/pyproject.toml",
        "my_method/test_my_method.py",
    }
    assert set(lines[:-1]) == written
    assert lines[-1] == "next: pip install -e my_method && fss-bench check-method my_method"
    project = tomllib.loads(Path("my_method/pyproject.toml").read_text())
    assert project["project"]["name"] == "my-method"
    assert project["project"]["entry-points"] == {
        "fss_bench.methods": {"my_method": "my_method:MyMethod"}
    }
    text = Path("my_method/my_method.py").read_text()
    assert [n.name for n in ast.parse(text).body if isinstance(n, ast.ClassDef)] == ["MyMethod"]
    assert len(text.splitlines()) < 40
    assert "$" not in "".join(file.read_text() for file in here.rglob("*.*") if file.is_file())


def test_what_is_written_is_clean(here: Path) -> None:
    files = [str(file) for file in write_package("my_method", here) if file.suffix == ".py"]
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select", "E,F,W,I,B,UP,SIM,N,D1,ANN"], ["format", "--check"]):
        options = ["--isolated", "--line-length", "100", "--no-cache"]
        ignored = ["--ignore", "D102,D103,D107"] if command[0] == "check" else []
        subprocess.run([*ruff, *command, *options, *ignored, *files], check=True)


def test_the_method_keeps_the_contract_uninstalled(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.methods, "_classes", {})
    fss_bench("new-method", "brand_new")
    done = fss_bench("check-method", "brand_new", "--plugin", "brand_new/brand_new.py")
    lines = done.stdout.splitlines()
    assert lines[-1] == "brand_new on test_resnet: 20 passed, 1 not applicable"
    assert [line for line in lines if line.startswith("n/a")] == [
        "n/a     gradients: The loss gives finite gradients to all that is trained: there is "
        "nothing to train."
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-method", "'my-method' is no name of a Python module: use letters, digits and _"),
        ("2fast", "'2fast' is no name of a Python module"),
        ("_mine", "'_mine' is no name of a Python module"),
        ("", "'' is no name of a Python module"),
        ("méthode", "'méthode' is no name of a Python module"),
        ("a/b", "'a/b' is no name of a Python module"),
        ("lambda", "'lambda' is a word of Python: choose another"),
        ("panet", "method 'panet' is registered already: choose another name"),
        ("torch", "'torch' would hide the installed Python module of that name"),
        ("json", "'json' would hide the installed Python module of that name"),
        ("fss_bench", "'fss_bench' would hide"),
        ("there", "there is there already: choose another name, or move it away"),
    ],
)
def test_a_name_that_would_not_work_is_refused(here: Path, name: str, message: str) -> None:
    Path("there").mkdir()
    assert message in complaint("new-method", name)
    assert [file.name for file in here.iterdir()] == ["there"]
    assert not list(Path("there").iterdir())


def test_a_file_of_that_name_is_left_alone(here: Path) -> None:
    Path("there").symlink_to("nowhere")
    assert "there is there already" in complaint("new-method", "there")
    assert Path("there").is_symlink()


def test_a_failure_leaves_nothing_behind(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = Path.write_text

    def fail(file: Path, *args: object, **options: object) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(file)
        return write(file, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", fail)
    message = complaint("new-method", "my_method")
    assert message.startswith("error: cannot write my_method (OSError: [Errno 28]")
    assert written
    assert not list(here.iterdir())


def test_class_names() -> None:
    names = {"my_method": "MyMethod", "x2": "X2", "FSSNet": "FSSNet", "method": "MethodMethod"}
    names |= {"none": "NoneMethod", "tensor": "TensorMethod", "a__b": "AB"}
    assert {name: class_name(name) for name in names} == names
    assert not set(names) & set(methods.names())
