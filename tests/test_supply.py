"""What is installed is locked and audited."""

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
AUDIT = ROOT / ".ci" / "audit"
UNREACHABLE = """\
error: Request failed after 3 retries
  cause: error sending request for url (https://api.osv.dev/v1/querybatch)
  cause: client error (Connect)"""


@pytest.fixture(scope="module")
def packages() -> list[dict[str, Any]]:
    if not (ROOT / "uv.lock").is_file():
        pytest.skip("needs uv.lock, which is in the repository only")
    locked: list[dict[str, Any]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return locked


def test_all_is_locked_by_hash_and_from_the_registry(packages: list[dict[str, Any]]) -> None:
    others = [package for package in packages if package["name"] != "fss-bench"]
    assert {package["source"]["registry"] for package in others} == {"https://pypi.org/simple"}
    for package in others:
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]


def test_every_vulnerability_that_is_ignored_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = text.partition("[tool.uv.audit]\n")[2].partition("ignore = [")[2].partition("]\n")[0]
    ids = tomllib.loads(text)["tool"]["uv"]["audit"]["ignore"]
    reasons = [line for line in known.splitlines() if '",  # ' in line]
    assert len(reasons) == len(ids), known


@pytest.mark.parametrize(
    ("report", "found", "status", "said"),
    [
        ("Found no known vulnerabilities", 0, 0, "Found no known vulnerabilities"),
        ("jinja2 3.1.6 has 1 known vulnerability", 1, 1, "jinja2 3.1.6 has 1 known vulnerability"),
        ("error: The lockfile needs to be updated", 2, 2, "error: The lockfile needs"),
        (UNREACHABLE, 2, 0, "audit not done: api.osv.dev unreachable\n"),
    ],
)
def test_the_audit_fails_on_anything_but_no_answer(
    tmp_path: Path, report: str, found: int, status: int, said: str
) -> None:
    if not AUDIT.is_file():
        pytest.skip("needs .ci/audit, which is in the repository only")
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{report}\nEND\nexit {found}\n")
    uv.chmod(0o755)
    done = subprocess.run(
        ["bash", AUDIT], env=os.environ | {"UV": str(uv)}, capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stdout.startswith(said)
