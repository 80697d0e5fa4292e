"""No command but `data fetch`, and those that fetch weights, asks the network for anything."""

import shlex
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from fss_bench.cli import app

SMALL = "--backbone tf_efficientnet_lite0 --weights packaged --option input_size=96"
COMMANDS = (
    f"evaluate panet {SMALL} --fold 0 --episodes 2 --workers 0 --output r",
    "leaderboard --results r",
    "leaderboard --results r --format html -o page.html",
    "leaderboard --results r --format json",
    f"profile panet {SMALL} --episodes 2 --workers 0",
    "list methods",
    "list backbones",
    "episodes --dataset shapes -o episodes.jsonl",
    "protocols diff hsnet pfenet",
    "data index --dataset shapes",
    "data fetch pascal5i coco20i fss1000 weights --dry-run",
    "data show --dataset shapes --episodes 1 -o sheet.png",
    f"train panet {SMALL} --fold 0 --steps 1 --validation-episodes 1 --workers 0 --output t",
    "new-method my_network_method",
)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach another machine, all of which fail."""
    asked: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        asked.append(repr(arguments[-2:]))
        raise OSError("the network is closed")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return asked


def test_nothing_is_asked(
    closed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        found = CliRunner().invoke(app, shlex.split(command))
        assert found.exit_code == 0, (command, found.exception, found.output)
        assert closed == [], command


def test_the_guard_would_notice(closed: list[str]) -> None:
    import urllib.request

    with pytest.raises(OSError, match="the network is closed"):
        urllib.request.urlopen("http://127.0.0.1:9/")
    assert closed
