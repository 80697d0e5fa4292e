"""`fss-bench check-method`: a readable report, JSON, and exit status 2 for a broken promise."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from test_cli import complaint, fss_bench

from fss_bench import entrants, plugin_commands, registry
from fss_bench.contract import PROMISES, Result
from fss_bench.report.contract import contract_json, result_line, tally

BROKEN = '''
import torch
from fss_bench.method import Method, methods


@methods.register("broken")
class Broken(Method):
    """Answers at random."""

    def __init__(self, backbone, size: int = 64):
        super().__init__(backbone, ["c4"], size)

    def segment(self, support, support_masks, query):
        return torch.rand(len(query["c4"]), 1 + support_masks.shape[1], 4, 4)
'''


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry.methods, "_classes", {})
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    return file


def test_a_report_is_a_line_a_check() -> None:
    lines = fss_bench("check-method", "panet", "--option", "level=c3").stdout.splitlines()
    names = [promise.__name__ for promise in PROMISES]
    assert [line[8:].split(":")[0] for line in lines[:-1]] == names
    assert lines[0] == (
        "passed  defaults: It is made from a backbone alone, every option by its default: "
        "0 parameters beside the backbone's."
    )
    assert lines[-1] == "panet on test_resnet: 20 passed, 1 not applicable"


def test_a_broken_method_fails_with_its_cures(broken: Path) -> None:
    done = fss_bench("check-method", "broken", "--plugin", broken, status=2)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert [line[8:].split(":")[0] for line in failed] == [
        *("batch_of_episodes", "answers_repeat", "way_order", "shot_order"),
        *("no_global_randomness", "composition", "state_dict", "evaluation"),
    ]
    assert failed[4] == (
        "FAILED  no_global_randomness: An answer leaves the generators of torch, NumPy and Python "
        "as they are: the state of torch's global generator changes; to mend it: draw from a "
        "generator made in the call."
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: method 'broken' breaks the contract (batch_of_episodes, ")


def test_json_has_every_check(broken: Path) -> None:
    options = ["--option", "size=32", "--json"]
    done = fss_bench("check-method", "broken", "--plugin", broken, *options, status=2)
    report = json.loads(done.stdout)
    assert (report["method"], report["backbone"]) == ("broken", "test_resnet")
    assert report["options"] == {"size": 32}
    assert report["passed"] is False
    assert [check["check"] for check in report["checks"]] == [p.__name__ for p in PROMISES]
    repeat = next(check for check in report["checks"] if check["check"] == "answers_repeat")
    assert repeat["outcome"] == "failed"
    assert repeat["cure"].startswith("draw nothing at random in eval mode")


def test_mistakes_are_one_line(broken: Path) -> None:
    plugin = ["--plugin", broken]
    assert "did you mean 'panet'?" in complaint("check-method", "pannet")
    assert "plug-in file not found: absent.py" in complaint(
        "check-method", "panet", "--plugin", "absent.py"
    )
    assert "must look like key=value" in complaint("check-method", "panet", "--option", "level")
    for words, said in (
        (["--option", "siez=3"], "unknown option of method 'broken' 'siez': did you mean 'size'?"),
        (["--backbone", "resnet5O"], "unknown backbone 'resnet5O': did you mean 'resnet50'?"),
    ):
        done = fss_bench("check-method", "broken", *plugin, *words, status=2)
        assert said in done.stdout
        assert len(done.stdout.splitlines()) == 2  # told once, and the count


def test_a_broken_package_is_told_before_its_backbone_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a backbone was made")

    (tmp_path / "gone_plugin.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("gone", "gone_plugin:Gone", "fss_bench.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] * (group == point.group))
    monkeypatch.setattr(entrants, "create_backbone", refuse)
    assert "gone" in fss_bench("list", "methods").stdout
    assert complaint("evaluate", "gone", "--output", tmp_path) == (
        "error: method plug-in 'gone' (gone_plugin:Gone) failed: ModuleNotFoundError: No module "
        "named 'no_such_package'"
    )


def test_lines_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_commands, "terminal_width", lambda: 80)
    lines = fss_bench("check-method", "sgone").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line[:8] in ("passed  ", "n/a     ", " " * 8) for line in lines[:-1])


def test_what_a_line_holds() -> None:
    one = Result("logits_shape", "Logits are right.", "failed", "they are [1]", "return more")
    assert result_line(one) == (
        "FAILED  logits_shape: Logits are right: they are [1]; to mend it: return more."
    )
    other = Result("gradients", "They flow.", "not applicable", "nothing to train")
    assert tally([one, other, one]) == "2 failed, 1 not applicable"
    assert list(contract_json([other])) == [
        {
            "check": "gradients",
            "promise": "They flow.",
            "outcome": "not applicable",
            "found": "nothing to train",
            "cure": "",
        }
    ]
