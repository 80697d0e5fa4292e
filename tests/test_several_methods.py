"""Several methods in one command: the numbers of each alone, and one pass of the backbone."""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fss_bench import create_backbone, create_method
from fss_bench.backbone import Backbone
from fss_bench.cli import main
from fss_bench.errors import FssBenchError
from fss_bench.options import options_for

TINY = "--backbone test_resnet --weights none --fold 0,1 --episodes 6 --workers 0 --quiet"


def fss(words: str, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["fss-bench", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status


def counts(output: Path) -> dict[tuple[Any, ...], list[Any]]:
    """Integer counts of every run by method, shots and fold."""
    import pandas as pd

    found = {}
    for file in output.glob("runs/**/run.json"):
        record = json.loads(file.read_text())
        table = pd.read_parquet(file.with_name("episodes.parquet"))
        columns = [c for c in table if c.startswith(("inter", "union"))]
        key = (record["method"], record["shots"], record["fold"])
        found[key] = table[columns].map(lambda v: v.tolist() if hasattr(v, "tolist") else v)
        found[key] = found[key].to_dict("records")
    return found


@pytest.fixture
def runs_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> Counter[float]:
    """How often each image went through a backbone, by its sum."""
    seen: Counter[float] = Counter()
    extract = type(create_backbone("test_resnet", "none")).extract

    def counted(self: Any, images: Tensor, levels: Any) -> Any:
        for image in images:
            seen[float(image.double().sum())] += 1
        return extract(self, images, levels)

    monkeypatch.setattr("fss_bench.timm_backbone.TimmBackbone.extract", counted)
    monkeypatch.setattr("fss_bench.cost.gflops", lambda module, inputs: 0.0)
    return seen


def test_they_share_the_backbone_and_no_number_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_of_the_backbone: Counter[float]
) -> None:
    words = f"{TINY} --option input_size=64 --shots 1,2"
    fss(f"evaluate panet,sgone {words} --output {tmp_path / 'both'}", monkeypatch)
    assert set(runs_of_the_backbone.values()) == {1}
    distinct = len(runs_of_the_backbone)
    runs_of_the_backbone.clear()
    for method in ("panet", "sgone"):
        fss(f"evaluate {method} {words} --output {tmp_path / 'alone'}", monkeypatch)
    assert sum(runs_of_the_backbone.values()) == 2 * distinct
    together, alone = counts(tmp_path / "both"), counts(tmp_path / "alone")
    assert len(together) == 2 * 2 * 2
    assert together == alone


def test_methods_of_other_input_sides_are_encoded_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"{TINY} --option panet.input_size=64 --option sgone.input_size=96"
    fss(f"evaluate sgone,panet {words} --output {tmp_path}", monkeypatch)
    sizes = {
        record["method"]: record["input_size"]
        for file in tmp_path.glob("runs/**/run.json")
        if (record := json.loads(file.read_text()))
    }
    assert sizes == {"panet": 64, "sgone": 96}


def test_an_option_is_for_all_or_for_one() -> None:
    pairs = ["input_size=64", "panet.level=c3", "sgone.kshot=or"]
    both = ("panet", "sgone")
    assert options_for("panet", both, pairs) == {"input_size": 64, "level": "c3"}
    assert options_for("sgone", both, pairs) == {"input_size": 64, "kshot": "or"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("panet,pnet", "pnet"),
        ("panet,sgone --checkpoint some.pth", "--checkpoint some.pth is for one method"),
        ("panet,sgone --option hsnet.official=false", "hsnet.official"),
        ("panet,sgone --option level=c3", "level"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = "" if "checkpoint" in words else TINY
    fss(f"evaluate {words} {more} --output {tmp_path}", monkeypatch, status=2)
    shown = capsys.readouterr().err.strip().splitlines()
    assert message in shown[-1]


def test_a_shared_backbone_gives_what_it_gives_alone() -> None:
    backbone: Backbone = create_backbone("test_resnet", "none")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = {level: backbone(images, (level,))[level] for level in ("c3", "c5")}
        with backbone.shared(("c3", "c5", "c3")):
            found: Mapping[str, Tensor] = backbone(images, ("c3",))
            assert set(found) == {"c3"}
            assert torch.equal(found["c3"], alone["c3"])
            assert torch.equal(backbone(images, ("c5",))["c5"], alone["c5"])
            other = backbone(images + 0.1, ("c5",))["c5"]
            assert not torch.equal(other, alone["c5"])
            assert torch.equal(backbone(images, ("c4",))["c4"], backbone(images)["c4"])
            with pytest.raises(FssBenchError):
                backbone(images, ("c9",))
    assert backbone._shared is None


def test_methods_in_one_store_get_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of one kind, with different options, are kept apart."""
    from fss_bench import create_dataset
    from fss_bench.compute import Compute
    from fss_bench.evaluation import Coming, Evaluation, image_store
    from fss_bench.setting import create_setting

    monkeypatch.setattr("fss_bench.cost.gflops", lambda module, inputs: 0.0)
    backbone = create_backbone("test_resnet", "none")
    methods = [
        create_method("panet", backbone, input_size=64, level=level) for level in ("c3", "c5")
    ]
    setting = create_setting(create_dataset("shapes"), episodes=4)
    compute = Compute("cpu")
    images = image_store(methods, compute)
    both = [
        Evaluation(methods[0], [setting], compute, None, images, 0, [Coming(setting, 1)]).run(),
        Evaluation(methods[1], [setting], compute, None, images, 1).run(),
    ]
    assert images.encoded == len({image for spec in setting.specs for image in spec.images})
    for method, (run,) in zip(methods, both, strict=True):
        (alone,) = Evaluation(method, [setting], compute).run()
        assert run.episodes["inter_fg"].tolist() == alone.episodes["inter_fg"].tolist()
    assert both[0][0].episodes["inter_fg"].tolist() != both[1][0].episodes["inter_fg"].tolist()


def test_each_is_charged_for_its_own_work_and_the_backbones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow method beside a fast one; a slow backbone, which both would have had to wait for."""
    from fss_bench import create_dataset
    from fss_bench.compute import Compute
    from fss_bench.evaluation import Coming, Evaluation, image_store
    from fss_bench.setting import create_setting

    monkeypatch.setattr("fss_bench.cost.gflops", lambda module, inputs: 0.0)
    backbone = create_backbone("test_resnet", "none")
    fast, slow = (create_method("panet", backbone, input_size=64) for _ in range(2))

    def late(function: Any, seconds: float) -> Any:
        return lambda *given: (time.sleep(seconds), function(*given))[1]

    monkeypatch.setattr(backbone, "extract", late(backbone.extract, 0.05))
    monkeypatch.setattr(slow, "query_part", late(slow.query_part, 0.5))
    setting = create_setting(create_dataset("shapes"), episodes=4)
    images = image_store([fast, slow], Compute("cpu"))
    coming = Coming(setting, 1)
    first = Evaluation(fast, [setting], Compute("cpu"), None, images, 0, [coming]).run()[0]
    second = Evaluation(slow, [setting], Compute("cpu"), None, images, 1).run()[0]
    encoded = len({image for spec in setting.specs for image in spec.images})
    queries = len({spec.query for spec in setting.specs})
    spent = [float(run.episodes["ms"].sum()) for run in (first, second)]
    assert spent[0] >= 50 * encoded
    assert spent[1] >= 50 * encoded + 500 * queries
    assert spent[0] < spent[1] - 250 * queries
