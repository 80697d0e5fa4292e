"""Tab: commands, and registered names, without torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import complaint

from fss_bench.completion import backbone_names, method_names, protocol_names
from fss_bench.registry import backbones, datasets, methods

SCRIPT = shutil.which("fss-bench", path=str(Path(sys.executable).parent))


def tab(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    line = ["fss-bench", *words]
    environment = {
        **os.environ,
        "_FSS_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(line),
        "COMP_CWORD": str(len(line) - 1),
    }
    code = (
        "import sys; from fss_bench.cli import main\n"
        "sys.argv = ['fss-bench']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'timm'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_registered_names_are_offered() -> None:
    assert tab("evaluate", "pan") == ["panet"]
    assert tab("check-method", "pan") == ["panet"]
    assert tab("evaluate", "panet", "--dataset", "pas") == ["pascal5i"]
    assert tab("evaluate", "panet", "--protocol", "hsn") == ["hsnet", "hsnet-orig"]
    assert tab("train", "panet", "--backbone", "resnet50_") == ["resnet50_deepstem"]
    assert tab("list", "m") == ["methods"]
    assert tab("check") == ["check-method"]


def test_names_are_offered_behind_a_comma() -> None:
    assert method_names("panet,fin") == ["panet,finetune"]
    assert protocol_names("standard,hsnet-") == ["standard,hsnet-orig"]
    assert method_names("") == methods.names()
    assert backbone_names("") == backbones.names()
    assert method_names("zzz") == []
    assert datasets.names()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_shell_is_given_a_script() -> None:
    command = f"'{SCRIPT}' --show-completion; true"  # `true` keeps bash as the parent
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert "complete -o default -F _fss_bench_completion fss-bench" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute", "panet"], "error: unknown command 'evalute': did you mean 'evaluate'?"),
        (["newmethod"], "error: unknown command 'newmethod': did you mean 'new-method'?"),
        (["protocols", "dif"], "error: unknown protocols command 'dif': did you mean 'diff'?"),
        (["data", "indx"], "error: unknown data command 'indx': did you mean 'index'?"),
        (["zzzzzz"], "error: unknown command 'zzzzzz': known: check-method, compare, "),
    ],
)
def test_a_mistyped_command_gets_the_nearest(words: list[str], message: str) -> None:
    assert complaint(*words).startswith(message)
