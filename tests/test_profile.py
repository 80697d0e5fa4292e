"""`fss-bench profile`: figures against ones computed here, and what the user reads."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fss_bench import create_backbone, create_dataset, create_method
from fss_bench.cli import main
from fss_bench.compute import Compute
from fss_bench.profiled import Profile
from fss_bench.profiling import machine_gflops, profile
from fss_bench.report.profile import WIDTH, profile_lines, timeline
from fss_bench.setting import create_setting
from fss_bench.stage_clock import STAGES, Span, StageClock

ROOT = Path(__file__).parents[1]
TINY = "--backbone test_resnet --weights none --option input_size=64 --episodes 12 --workers 0"


def measured(**compute: Any) -> Profile:
    backbone = create_backbone("test_resnet", "none")
    setting = create_setting(create_dataset("shapes"), shots=2, episodes=20)
    method = create_method("panet", backbone, input_size=64)
    return profile(method, setting, Compute("cpu", **compute))


def test_figures_are_those_of_the_method() -> None:
    found = measured()
    backbone = create_backbone("test_resnet", "none")
    method = create_method("panet", backbone, input_size=64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.encode(torch.zeros(1, 3, 64, 64))
    assert found.gflops_image == pytest.approx(counter.get_total_flops() / 1e9)
    assert 0 < found.gflops_episode < found.gflops_image
    images = {image for spec in found_specs() for image in spec.images}
    assert found.images == found.encoded == len(images)
    assert found.queries == len({spec.query for spec in found_specs()})
    shown = {(i, s.classes) for s in found_specs() for i in s.supports[0]}
    assert found.supports == len(shown)
    # prototypes are products of masks and features; a query is kept as it is
    assert found.gflops_support > found.gflops_query == 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method(
            torch.zeros(1, 1, 2, 3, 64, 64),
            torch.ones(1, 1, 2, 64, 64, dtype=torch.uint8),
            torch.zeros(1, 3, 64, 64),
        )
    whole = 3 * found.gflops_image + 2 * found.gflops_support + found.gflops_episode
    assert whole == pytest.approx(counter.get_total_flops() / 1e9)
    needed = len(images) * found.gflops_image + 20 * found.gflops_episode
    needed += found.supports * found.gflops_support
    assert found.gflops == pytest.approx(needed)
    assert found.limit == pytest.approx(needed / found.machine_gflops)
    assert found.params_m == found.backbone_m > 0
    assert found.trainable_m == 0
    assert set(found.seconds) == set(STAGES)
    assert 0.8 * found.wall < sum(found.seconds.values()) <= found.wall


def found_specs() -> Any:
    return create_setting(create_dataset("shapes"), shots=2, episodes=20).specs


def test_without_memory_and_disk_images_are_encoded_again() -> None:
    found = measured(cache_gb=0.0, disk_gb=0.0)
    assert found.encoded == 3 * 20
    assert found.images < 60
    found = measured(cache_gb=0.0)
    assert found.encoded == found.images


def test_waiting_and_loading_are_apart() -> None:
    found = measured(workers=1)
    loads = [span for span in found.spans if span.stage == "load"]
    assert len(loads) == 20
    assert all(span.end > span.start > 0 for span in loads)
    assert [span.end for span in found.spans] == sorted(span.end for span in found.spans)


def test_machine_rate_is_that_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 20 ms, a product of 2048 x 2048 matrices is 859 GFLOP/s, a convolution of 512 channels at
    64 x 64 cells 966; sleeping takes longer."""
    monkeypatch.setattr("fss_bench.profiling._wait_for", lambda *_: time.sleep(0.02))
    assert 0.5 * 966 < machine_gflops(Compute("cpu")) < 966.4


def test_clock_keeps_every_span() -> None:
    waited = []
    clock = StageClock(lambda: waited.append(True))
    for stage in ("encode", "segment", "encode"):
        with clock.measure(stage):
            pass
    assert [span.stage for span in clock.spans] == ["encode", "segment", "encode"]
    assert len(waited) == 3
    total = sum(s.end - s.start for s in clock.spans if s.stage == "encode")
    assert clock.seconds()["encode"] == pytest.approx(total)


def test_timeline_shows_who_was_busy_when() -> None:
    """60 s, a character a second: loading for 30 s, waiting for 15, then encoding."""
    spans = [Span("load", 100, 130), Span("wait", 100, 115), Span("encode", 115, 160)]
    head, *rows = timeline(spans)
    assert head.startswith("one character is 1.00 s")
    shown = {row[:9].strip(): row[9:] for row in rows}
    assert shown["load"] == "█" * 30 + " " * 30
    assert shown["wait"] == "█" * 15 + " " * 45
    assert shown["encode"] == " " * 15 + "█" * 45
    assert shown["score"] == " " * WIDTH
    brief = list(timeline([Span("wait", 0.0, 60.0), Span("load", 30.2, 30.3)]))
    assert brief[1][9:] == " " * 30 + "░" + " " * 29


def fss(words: str, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["fss-bench", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status


def test_text_fits_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fss(f"profile panet {TINY} --quiet", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("panet on test_resnet, shapes fold 0")
    assert [line.split()[0] for line in lines if line.startswith(STAGES)] == [*STAGES, *STAGES]
    assert any("of that" in line for line in lines)


def test_json_has_the_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fss(f"profile panet {TINY} --shots 5 --json --quiet", monkeypatch)
    found = json.loads(capsys.readouterr().out)
    assert (found["method"], found["shots"], found["episodes"]) == ("panet", 5, 12)
    assert found["reached"] == pytest.approx(
        found["gflops"] / found["machine_gflops"] / found["wall"]
    )


def test_black_boxes_have_one_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "plain.py"
    file.write_text(
        "import torch\n"
        "from fss_bench.registry import methods\n"
        "@methods.register('plain')\n"
        "class Plain(torch.nn.Module):\n"
        "    input_size = 64\n"
        "    def __init__(self, backbone):\n"
        "        super().__init__()\n"
        "        self.backbone = backbone\n"
        "    def forward(self, support, masks, query):\n"
        "        return self.backbone(query, ('c3',))['c3'][:, :2]\n"
    )
    words = TINY.replace("--option input_size=64", f"--plugin {file}")
    fss(f"profile plain {words} --json --quiet", monkeypatch)
    found = json.loads(capsys.readouterr().out)
    assert found["gflops_image"] == 0
    assert found["gflops_episode"] > 0


def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fss(f"profile panett {TINY}", monkeypatch, status=2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "panet" in told[0]


def test_lines_are_made_of_the_profile() -> None:
    found = measured()
    text = "\n".join(profile_lines(found))
    assert f"{found.params_m:.2f} M" in text
    for count, what, each in (
        (found.images, "images encoded", found.gflops_image),
        (found.supports, "supports reduced", found.gflops_support),
        (found.episodes, "episodes segmented", found.gflops_episode),
    ):
        assert re.search(rf"\n *{count} {what} +x +{each:.3f} = +{count * each:.1f}\n", text), what
