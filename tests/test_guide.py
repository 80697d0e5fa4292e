"""docs/add-a-method.md from top to bottom, as a reader does it, in a fresh environment."""

import os
import re
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from fss_bench.method import methods
from fss_bench.scaffold import write_package

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
STEP = re.compile(r"```(bash|python|toml)\n(.*?)```", re.DOTALL)
FILE = "nearest_pixel/nearest_pixel.py"
QUICK = "--episodes 2 --option input_size=96"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A new environment that sees the packages of this one; pip there needs no network."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    script = folder / "bin" / "fss-bench"
    script.write_text(f"#!{folder}/bin/python\nfrom fss_bench.cli import main\nmain()\n")
    script.chmod(0o755)
    tests = folder / "bin" / "pytest"
    tests.write_text(f'#!/bin/sh\nexec {folder}/bin/python -m pytest -p no:cacheprovider "$@"\n')
    tests.chmod(0o755)
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    path = f"{folder}/bin:{os.environ['PATH']}"
    return {**inherited, **offline, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.mark.slow
def test_the_guide_from_top_to_bottom(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    said = {}
    for kind, text in STEP.findall(PAGE):
        if kind == "python":
            assert f"`{FILE}`" in PAGE[: PAGE.index(text)]
            (folder / FILE).write_text(text)
        for line in text.splitlines() if kind == "bash" else ():
            command = f"{line} {QUICK}" if "evaluate" in line else line
            done = subprocess.run(
                command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            said[line] = done.stdout
    assert "nearest_pixel/test_nearest_pixel.py" in said["fss-bench new-method nearest_pixel"]
    assert "[nearest-pixel]" in said["fss-bench list methods"]
    assert "20 passed, 1 not applicable" in said["fss-bench check-method nearest_pixel"]
    assert "20 passed, 1 skipped" in said["pytest nearest_pixel"]
    board = (folder / "results" / "leaderboard.csv").read_text()
    assert ",nearest_pixel(input_size=96)," in board
    assert "nearest_pixel" in said["fss-bench leaderboard"]


def test_the_guide_shows_what_the_command_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "names", list)  # other tests may have loaded the example
    (shown,) = (text for kind, text in STEP.findall(PAGE) if kind == "toml")
    write_package("nearest_pixel", tmp_path)
    written = tomllib.loads((tmp_path / "nearest_pixel" / "pyproject.toml").read_text())
    assert tomllib.loads(shown)["project"]["entry-points"] == written["project"]["entry-points"]
