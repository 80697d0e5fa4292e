"""Which module is evaluated on which fold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import SMALL, new, own_dataset, write_checkpoint
from torch import nn

from fss_bench import create_backbone, entrants
from fss_bench.checkpoint import short_name
from fss_bench.entrants import Backbones, Entrants
from fss_bench.errors import FssBenchError, UnknownNameError, WeightsError
from fss_bench.setting import Setting, create_setting


@pytest.fixture
def settings(make_folder: Callable[..., Path]) -> Callable[..., list[Setting]]:
    """Settings on a dataset of two folds."""
    dataset = own_dataset(make_folder(per_class=4))

    def make(*folds: int, shots: int = 1) -> list[Setting]:
        given: Any = {"shots": shots, "episodes": 2, "rules": {"min_pixels": 1}}
        return [create_setting(dataset, fold=f, **given) for f in folds]

    return make


def make(checkpoint: object = None, method: str = "panet", **changes: Any) -> Entrants:
    given: dict[str, Any] = {
        "backbone": None,
        "backbones": Backbones({}),
        "weights": None,
        "options": {},
        **changes,
    }
    return Entrants(method, checkpoint=checkpoint and str(checkpoint), **given)


def same(method: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in method.state_dict().items())


def complaint(entrants: Entrants, settings: list[Setting]) -> str:
    with pytest.raises(FssBenchError) as error:
        list(entrants.check(settings))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_fold_gets_its_own_file(tmp_path: Path, settings: Callable[..., list[Setting]]) -> None:
    wanted = [write_checkpoint(tmp_path / f"run/net{f}.safetensors", f, fold=f) for f in (0, 1)]
    pattern = tmp_path / "run" / "net{fold}.safetensors"
    found = make(pattern)
    assert list(found.check(settings(0, 1))) == []
    for fold in (0, 1):
        method = found.method_for(fold)
        assert same(method, wanted[fold])
        assert not same(method, wanted[1 - fold])
        assert method is found.method_for(fold)  # kept while it is asked for
        assert not method.training
        record = method.checkpoint.record(fold)
        assert record["series"] == pattern.as_posix()
        assert record["path"].endswith(f"net{fold}.safetensors")
        assert method.checkpoint.state == {}


def test_a_pattern_may_name_the_fold_twice(tmp_path: Path) -> None:
    wanted = write_checkpoint(tmp_path / "split1/fold1.safetensors")
    assert same(make(tmp_path / "split{fold}/fold{fold}.safetensors").method_for(1), wanted)


def test_a_missing_file_of_one_fold_is_found_before_any_work(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    write_checkpoint(tmp_path / "fold0.safetensors")
    found = make(tmp_path / "fold{fold}.safetensors")
    text = complaint(found, settings(0, 1))
    assert text == f"checkpoint {tmp_path}/fold1.safetensors: no such file"


def test_a_file_of_another_method_is_named_with_the_cure(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    file = tmp_path / "panet.safetensors"
    write_checkpoint(file)
    assert complaint(make(file, method="sgone"), settings(0)) == (
        f"{file} is a panet checkpoint, not one of sgone: fss-bench evaluate panet --checkpoint "
        f"{file}"
    )


def test_weights_beside_a_checkpoint_are_refused() -> None:
    for weights in ("imagenet", "packaged", "file.pth"):
        with pytest.raises(FssBenchError) as error:
            make("x.safetensors", weights=weights)
        assert str(error.value) == (
            f"--weights {weights} and --checkpoint x.safetensors: a checkpoint holds the "
            "backbone's weights too; drop --weights"
        )
    make("x.safetensors", weights="none")


def test_a_file_for_another_backbone_says_which(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    write_checkpoint(tmp_path / "panet.safetensors")
    text = complaint(make(tmp_path / "panet.safetensors", backbone="resnet18"), settings(0))
    assert "does not fit panet on resnet18" in text
    assert text.endswith(f"it is for --backbone {SMALL}")


def test_one_file_for_all_of_them_is_noted(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    file = tmp_path / "panet.safetensors"
    write_checkpoint(file)
    assert list(make(file).check(settings(1))) == []
    (note,) = make(file).check(settings(0, 1))
    assert note.startswith("one checkpoint for folds 0, 1: ")
    assert "{fold}" in note
    found = make(file)
    assert found.method_for(0) is found.method_for(1)
    assert list(make(file).check([])) == []


def test_one_file_that_says_its_fold_is_refused_for_others(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    file = tmp_path / "panet.safetensors"
    write_checkpoint(file, fold=0)
    assert list(make(file).check(settings(0))) == []
    assert "base classes include class3, class4 of test fold 1" in complaint(
        make(file), settings(0, 1)
    )


def test_another_number_of_shots_is_refused(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    file = tmp_path / "panet.safetensors"
    write_checkpoint(file, shots=(1,))
    assert list(make(file).check(settings(0))) == []
    assert "it cannot be evaluated with --shots 2" in complaint(make(file), settings(0, shots=2))


@pytest.mark.parametrize(
    ("protocol", "notes"), [("hsnet", ["hsnet:"]), ("bam", ["bam:"]), ("standard", [])]
)
def test_the_protocol_of_the_paper_is_noted(
    tmp_path: Path, settings: Callable[..., list[Setting]], protocol: str, notes: list[str]
) -> None:
    write_checkpoint(tmp_path / "panet.safetensors", protocol=protocol)
    found = list(make(tmp_path / "panet.safetensors").check(settings(0)))
    assert len(found) == len(notes)
    for text, part in zip(found, notes, strict=True):
        assert text.startswith(f"the paper of panet evaluates under protocol {part}")
        assert "numbers under standard do not compare with it" in text


def test_the_backbone_is_the_checkpoints_or_resnet50(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def create(name: str, weights: str, **options: Any) -> Any:
        asked.append((name, weights, options))
        return create_backbone(SMALL, weights="none")

    monkeypatch.setattr(entrants, "create_backbone", create)
    write_checkpoint(tmp_path / "panet.safetensors")
    make().method_for(0)
    make(weights="packaged", backbone="vgg16", backbones=Backbones({"seed": 3})).method_for(0)
    make(tmp_path / "panet.safetensors").method_for(0)
    make(tmp_path / "panet.safetensors", weights="none", backbone="b").method_for(0)
    assert asked == [
        ("resnet50", "imagenet", {}),
        ("vgg16", "packaged", {"seed": 3}),
        (SMALL, "none", {}),
        ("b", "none", {}),
    ]


def test_without_a_checkpoint_all_folds_share_a_module(
    settings: Callable[..., list[Setting]],
) -> None:
    found = make(backbone=SMALL, weights="none", options={"scale": 5})
    assert list(found.check(settings(0, 1))) == []
    assert found.method_for(0) is found.method_for(1)
    assert not hasattr(found.method_for(0), "checkpoint")
    assert found.method_for(0).scale == 5


def test_given_options_go_before_the_checkpoints(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "panet.safetensors", scale=10.0, align=False)
    method = make(tmp_path / "panet.safetensors").method_for(0)
    assert (method.scale, method.align) == (10.0, False)
    method = make(tmp_path / "panet.safetensors", options={"scale": 3.0}).method_for(0)
    assert (method.scale, method.align) == (3.0, False)
    assert method.options == {"scale": 3.0, "align": False}
    with pytest.raises(UnknownNameError, match="did you mean 'scale'"):
        make(tmp_path / "panet.safetensors", options={"scael": 3.0}).method_for(0)


@pytest.mark.parametrize("with_file", [True, False])
def test_backbone_options_reach_the_backbone(tmp_path: Path, with_file: bool) -> None:
    write_checkpoint(tmp_path / "panet.safetensors")
    where: dict[str, Any] = {"backbone": SMALL, "weights": "none"}
    if with_file:
        where = {"checkpoint": tmp_path / "panet.safetensors"}
    method = make(**where, backbones=Backbones({"output_stride": 8})).method_for(0)
    assert method.backbone.levels["c5"].stride == 8
    assert method.backbone.options == {"output_stride": 8}
    with pytest.raises(UnknownNameError, match="did you mean 'output_stride'"):
        make(**where, backbones=Backbones({"output_strid": 8})).method_for(0)


@pytest.mark.parametrize("form", ["own names", "by position"])
def test_a_file_of_no_layout_is_taken_for_a_backbone_that_is_given(
    tmp_path: Path, settings: Callable[..., list[Setting]], form: str, monkeypatch: Any
) -> None:
    file, wanted = tmp_path / "fold0.pth", new(seed=4)
    names = wanted.state_dict()
    if form == "by position":
        from fss_bench import checkpoint, checkpoint_loading

        panet = checkpoint.layouts()["panet"]
        for module in (checkpoint, checkpoint_loading):
            monkeypatch.setattr(module, "layouts", lambda: {"panet": panet})
        names = {f"t{i}": v for i, v in enumerate(names.values())}
    torch.save(names, file)
    with pytest.raises(WeightsError, match=r"fold0\.pth is of no known layout"):
        make(file).method_for(0)
    found = make(tmp_path / "fold{fold}.pth", backbone=SMALL, options={"scale": 3.0})
    notes = list(found.check(settings(0)))
    method = found.method_for(0)
    assert same(method, wanted)
    assert method.scale == 3.0
    assert method.checkpoint.record(0)["series"].endswith("fold{fold}.pth")
    position = [n for n in notes if "matched by position" in n]
    assert position == (
        [
            f"the tensors of {short_name(file)} were matched by position, since its names are not "
            "the published ones"
        ]
        if form == "by position"
        else []
    )


def test_a_fold_in_the_files_name_is_compared(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    write_checkpoint(tmp_path / "split1.safetensors")
    assert list(make(tmp_path / "split1.safetensors").check(settings(1))) == []
    (note,) = make(tmp_path / "split1.safetensors").check(settings(0))
    assert note.endswith("split1.safetensors says fold 1, and is evaluated on fold 0")


def test_files_of_one_name_in_two_places_are_two_series(
    tmp_path: Path, settings: Callable[..., list[Setting]]
) -> None:
    series = set()
    for place in ("a", "b"):
        for fold in (0, 1):
            write_checkpoint(tmp_path / place / f"x/y/logs/net{fold}.safetensors", fold=fold)
        pattern = tmp_path / place / "x/y/logs/net{fold}.safetensors"
        series.add(make(pattern).method_for(0).checkpoint.record(0)["series"])
    assert len(series) == 2


def test_an_untrained_head_is_noted(settings: Callable[..., list[Setting]]) -> None:
    def notes(method: str) -> list[str]:
        return list(Entrants(method, SMALL, Backbones({}), "none", None, {}).check(settings(0, 1)))

    assert notes("panet") == []
    (note,) = notes("guided")
    assert note.startswith("guided is not trained: without --checkpoint its head is random")
