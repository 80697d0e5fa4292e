"""Every published layout against timm models that hold the same weights, and damaged files.

Weights are random; names and containers are those of the published files.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from published_weights import PUBLISHED, Published
from safetensors.torch import save_file
from torch import Tensor
from weight_features import assert_same, features_of, images, load, reference, write
from weight_layout_files import under, with_state

from fss_bench import create_backbone
from fss_bench.errors import UnknownNameError, WeightsError
from fss_bench.weight_conversion import save_weights
from fss_bench.weight_files import METADATA, file_sha256
from fss_bench.weight_reading import read_weights, weight_layout_names

WITHOUT_ROUND_TRIP = {
    "deepcluster": "has no twin in timm and is refused",
    "npid": "its files pickle modules: see test_old_pickles.py",
}
ALL = [pytest.param(kind, id=kind.name) for kind in PUBLISHED]
ONE_A_LAYOUT = list({kind.layout: case for kind, case in zip(PUBLISHED, ALL, strict=True)}.values())
BY_NAME = {kind.name: kind for kind in PUBLISHED}


def kind_of(layout: str) -> Published:
    return next(kind for kind in PUBLISHED if kind.layout == layout)


def assert_loads(kind: Published, path: Path) -> None:
    if kind.backbone not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {kind.backbone}")
    for role in kind.roles:
        asked = {} if role == kind.roles[0] else {"encoder": role}
        backbone = load(kind, path, **asked)
        pixels = images(backbone.fixed_size or 64)
        assert_same(backbone(pixels), reference(kind, role, pixels))
        assert (backbone.weights.layout, backbone.weights.encoder) == (kind.layout, role)
        # our own files have one name in folders of many
        folder = f"{path.parent.name}/" if kind.layout == "fss_bench" else ""
        assert backbone.weights.source == f"{folder}{path.name}"
        assert backbone.weights.sha256 == file_sha256(path)
        assert backbone.options == {
            **kind.options,
            **({"layout": kind.layout} if kind.asks else {}),
            **asked,
        }


@pytest.mark.parametrize("kind", ALL)
def test_features_are_those_of_timm_with_the_same_weights(kind: Published, tmp_path: Path) -> None:
    assert_loads(kind, write(tmp_path / "file.pth", kind.content()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_features_of_networks_of_published_size(kind: Published, tmp_path: Path) -> None:
    assert_loads(kind.real, write(tmp_path / "file.pth", kind.real.content()))


def test_every_layout_is_tested() -> None:
    tested = {kind.layout for kind in PUBLISHED}
    assert not tested & WITHOUT_ROUND_TRIP.keys()
    assert tested | WITHOUT_ROUND_TRIP.keys() == set(weight_layout_names())


def tensors_in(content: Any) -> int:
    """Tensors of a file's state dicts, whose names are words."""
    if isinstance(content, Tensor):
        return 1
    if isinstance(content, Mapping):
        return sum(tensors_in(value) for key, value in content.items() if isinstance(key, str))
    return 0


@pytest.mark.parametrize("kind", ALL)
def test_every_tensor_of_a_file_is_counted(kind: Published, tmp_path: Path) -> None:
    content = kind.content()
    path = write(tmp_path / "file.pth", content)
    for role in kind.roles:
        reading = read_weights(path, role, kind.layout if kind.asks else "auto")
        added = sum(k.endswith("gamma") for k in reading.state) if "vicregl" in kind.layout else 0
        assert len(reading.state) - added + sum(reading.left.values()) == tensors_in(content)
        assert reading.roles == kind.roles


# converted files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        *("moco", "moco_v3_vit_small", "simclr_v1", "simclr_v2", "byol", "dino", "dinov2", "mae"),
        *("dinov2_registers", "dinov3", "dinov3_satellite", "vicregl_convnext", "lightly"),
    ],
)
def test_converted_file_gives_the_same_features(layout: str, tmp_path: Path) -> None:
    kind = kind_of(layout)
    path = write(tmp_path / "file.pth", kind.content())
    converted = tmp_path / "file.safetensors"
    save_weights(path, converted, read_weights(path, layout=layout))
    for role in kind.roles:
        backbone = create_backbone(kind.backbone, converted, encoder=role, **kind.options)
        pixels = images(backbone.fixed_size or 64)
        assert_same(backbone(pixels), reference(kind, role, pixels))
        assert (backbone.weights.layout, backbone.weights.encoder) == (layout, role)
    default = create_backbone(kind.backbone, converted, **kind.options)
    assert default.weights.encoder == kind.roles[0]


def pretrained_here(path: Path, said: str) -> Path:
    kind = kind_of("fss_bench")
    save_file(kind.content(), path, {METADATA: said})
    return path


def test_our_own_files_say_which_statistics_they_want(tmp_path: Path) -> None:
    kind = kind_of("fss_bench")
    statistics = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    said = json.dumps({"method": "moco", "mean": statistics[0], "std": statistics[1]})
    backbone = load(kind, pretrained_here(tmp_path / "weights.safetensors", said))
    assert_same(backbone(images()), features_of(kind.model("query"), images(), statistics))


@pytest.mark.parametrize("said", ["{", "[]", '{"mean": [0.5]}', '{"mean": "abc", "std": "abc"}'])
def test_our_own_files_with_bad_metadata_are_refused(said: str, tmp_path: Path) -> None:
    path = pretrained_here(tmp_path / "weights.safetensors", said)
    with pytest.raises(WeightsError, match=r"weights.safetensors has metadata that cannot be read"):
        load(kind_of("fss_bench"), path)


# encoders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["moco", "dino"])
@pytest.mark.parametrize(
    ("role", "words"),
    [("query", ["online", "student"]), ("momentum", ["key", "target", "teacher"])],
)
def test_each_encoder_has_its_own_features_under_every_name(
    layout: str, role: str, words: list[str], tmp_path: Path
) -> None:
    kind = kind_of(layout)
    path = write(tmp_path / "file.pth", kind.content())
    for word in (role, *words):
        backbone = load(kind, path, encoder=word)
        pixels = images(backbone.fixed_size or 64)
        assert_same(backbone(pixels), reference(kind, role, pixels))
        assert backbone.weights.encoder == role
    other = next(r for r in kind.roles if r != role)
    found, wanted = backbone(pixels), reference(kind, other, pixels)
    assert not any(torch.equal(found[level], wanted[level]) for level in wanted)


def test_encoder_that_a_file_has_not_is_refused(tmp_path: Path) -> None:
    kind = kind_of("barlow_twins")
    path = write(tmp_path / "file.pth", kind.content())
    with pytest.raises(WeightsError, match=r"\(Barlow Twins\) has no teacher encoder.*has query"):
        load(kind, path, encoder="teacher")


def test_unknown_words_suggest_the_near_one(tmp_path: Path) -> None:
    kind = kind_of("moco")
    path = write(tmp_path / "file.pth", kind.content())
    with pytest.raises(UnknownNameError, match="encoder 'techer': did you mean 'teacher'"):
        load(kind, path, encoder="techer")
    with pytest.raises(UnknownNameError, match="layout of weights 'mocco': did you mean 'moco'"):
        load(kind, path, layout="mocco")


def test_encoder_and_layout_need_a_file() -> None:
    with pytest.raises(WeightsError, match="--weights none is no file: drop the option encoder"):
        create_backbone("tiny_resnet", "none", encoder="query")


# damaged files ------------------------------------------------------------------------------------


def probe(state: Mapping[str, Tensor]) -> str:
    """A weight inside a network."""
    return next(
        key
        for key in state
        if (key.endswith("norm1.weight") and "blocks.1" in key)
        or key in ("layer3.0.bn1.weight", "stages.2.blocks.0.norm.weight")
    )


def refusal(kind: Published, path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        load(kind, path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("kind", ONE_A_LAYOUT)
def test_changed_name_is_refused_with_the_names(kind: Published, tmp_path: Path) -> None:
    key = probe(kind.state("query"))
    changed = kind.with_states(
        lambda state: {k.replace(key, key[:-6] + "wieght"): v for k, v in state.items()}
    )
    message = refusal(kind, write(tmp_path / "file.pth", changed))
    assert f"1 missing ({key})" in message
    leaf = key.removesuffix("weight").split("blocks.")[-1] + "wieght"
    assert "1 left over (" in message
    assert f"{leaf})" in message


def without(content: Any, name: str) -> Any:
    """A file's content without the tensors of a name."""
    if not isinstance(content, Mapping):
        return content
    return {
        key: without(value, name)
        for key, value in content.items()
        if not (str(key) == name or str(key).endswith(f".{name}"))
    }


@pytest.mark.parametrize("kind", ONE_A_LAYOUT)
def test_missing_tensor_is_refused_with_its_name(kind: Published, tmp_path: Path) -> None:
    """Also of tensors that layouts change, not only of those that they rename."""
    if "bn1.weight" in kind.state("query"):
        changed = kind.with_states(lambda s: {k: v for k, v in s.items() if k != "bn1.weight"})
        assert "1 missing (bn1.weight)" in refusal(kind, write(tmp_path / "file.pth", changed))
        return
    for key in ("cls_token", "pos_embed", "patch_embed.proj.bias", "stages.1.0.dwconv.bias"):
        if tensors_in(changed := without(kind.content(), key)) < tensors_in(kind.content()):
            message = refusal(kind, write(tmp_path / "file.pth", changed))
            # nothing more can be said where it is what the layout is known by
            assert re.search(rf"{key.split('.')[0]}|does not look like|no known layout", message)


@pytest.mark.parametrize("layout", ["moco", "simclr_v2", "dino", "lightly", "dinov2", "vissl"])
def test_additional_tensor_of_the_encoder_is_refused(layout: str, tmp_path: Path) -> None:
    kind = kind_of(layout)
    changed = kind.with_states(lambda state: {**state, probe(state) + "_new": torch.ones(3)})
    assert "weight_new)" in refusal(kind, write(tmp_path / "file.pth", changed))


def test_tensor_of_no_known_place_is_refused(tmp_path: Path) -> None:
    content = kind_of("moco").content()
    content["state_dict"]["module.adapter.weight"] = torch.ones(3)
    message = refusal(kind_of("moco"), write(tmp_path / "file.pth", content))
    assert "holds 1 tensors that its layout does not know (state_dict/adapter.weight)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_numbers_are_refused_with_their_name(value: float, tmp_path: Path) -> None:
    kind = kind_of("moco")

    def damaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        one = state["layer2.0.conv1.weight"].clone()
        one[0, 0, 0, 0] = value
        return {**state, "layer2.0.conv1.weight": one}

    message = refusal(kind, write(tmp_path / "file.pth", kind.with_states(damaged)))
    assert "holds NaN or infinite values (layer2.0.conv1.weight)" in message


def test_other_shape_is_refused_with_its_name(tmp_path: Path) -> None:
    kind = kind_of("barlow_twins")
    changed = kind.with_states(lambda state: {**state, "bn1.weight": torch.ones(3)})
    message = refusal(kind, write(tmp_path / "file.pth", changed))
    assert "bn1.weight (3,) instead of (64,)" in message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file_is_refused(share: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save(kind_of("moco").content(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "fetch it again" in refusal(kind_of("moco"), path)


# which network it is of ---------------------------------------------------------------------------


def sketch(name: str, **options: Any) -> dict[str, Tensor]:
    """A network's tensors at their full size, of one number, which take no room in a file."""
    with torch.device("meta"):
        shapes = timm.create_model(name, num_classes=0, **options).state_dict()
    return {
        key: torch.tensor(float(key == "pos_embed")).expand(value.shape)
        for key, value in shapes.items()
    }


@pytest.mark.parametrize(
    ("kind", "network", "asked"),
    [
        ("moco-moco_v2-tiny_resnet", "resnet50", "resnet18"),
        ("moco-moco_v2-tiny_resnet", "resnet101", "vit_tiny_patch16_224"),
        ("simclr_v2-simclr_v2-tiny_resnet50", "resnet152", "resnet50"),
        ("lightly-lightly_dino-tiny_resnet", "resnet34", "resnet18"),
        ("barlow_twins-barlow_twins-tiny_resnet", "wide_resnet50_2", "resnet50"),
        ("timm-torchvision-tiny_resnet", "resnet50", "vit_tiny_patch16_224"),
        ("byol-byol-tiny_resnet50", "resnet50", "vit_tiny_patch16_224"),
        ("byol-byol-tiny_resnet50", "resnet50", "resnet18"),
        ("dino-dino_vit-tiny_vit", "vit_small_patch16_224", "resnet18"),
        ("dino_backbone-dino_backbone-tiny_vit", "vit_base_patch16_224", "vit_tiny_patch16_224"),
        ("dino_backbone-dino_backbone-tiny_vit", "vit_small_patch8_224", "vit_tiny_patch16_224"),
        ("mae-mae-tiny_vit", "vit_large_patch16_224", "vit_tiny_patch16_224"),
        ("moco_v3-moco_v3_vit-tiny_vit", "vit_small_patch16_224", "resnet18"),
        ("moco_v3-moco_v3_vit-tiny_vit", "vit_small_patch16_224", "vit_tiny_patch16_224"),
        ("moco_v3-moco_v3_resnet-tiny_resnet", "resnet50", "vit_tiny_patch16_224"),
        ("dinov2-dinov2-tiny_dinov2", "vit_base_patch14_dinov2", "vit_tiny_patch16_224"),
        ("dinov2-dinov2-tiny_dinov2", "vit_small_patch14_dinov2", "resnet18"),
        (
            "dinov2_registers-dinov2_registers-tiny_dinov2_reg4",
            "vit_small_patch14_reg4_dinov2",
            "vit_small_patch14_dinov2",
        ),
        ("dinov3-dinov3-tiny_dinov3_qkvb", "vit_base_patch16_dinov3_qkvb", "vit_tiny_patch16_224"),
        ("dinov3-dinov3-tiny_dinov3_qkvb", "vit_base_patch16_dinov3_qkvb", "resnet18"),
        ("dinov3_convnext-dinov3_convnext-test_convnext", "convnext_small", "convnext_tiny"),
        ("dinov3_convnext-dinov3_convnext-test_convnext", "convnext_tiny", "resnet18"),
        ("vicregl_convnext-vicregl_convnext-test_convnext", "convnext_base", "convnext_tiny"),
    ],
)
def test_wrong_backbone_is_refused_with_the_right_one(
    kind: str, network: str, asked: str, tmp_path: Path
) -> None:
    found = BY_NAME[kind]
    state = sketch(network)
    path = write(tmp_path / "file.pth", found.build(found.change(state), state))
    with pytest.raises(WeightsError) as caught:
        create_backbone(asked, path, **({"layout": found.layout} if found.asks else {}))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f", {network}")


# which layout it is of ----------------------------------------------------------------------------


def test_ambiguous_file_asks_which_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "file.pth", kind_of("byol").content())
    with pytest.raises(WeightsError) as caught:
        create_backbone("tiny_resnet50", path)
    message = str(caught.value)
    assert "can be read in 2 ways" in message
    assert "layout=byol for BYOL; layout=timm for" in message
    plain = create_backbone("tiny_resnet50", path, layout="timm")
    model = with_state("tiny_resnet50", kind_of("byol").state("query"))
    assert_same(plain(images()), features_of(model, images()))
    assert plain.weights.layout == "timm"


def test_small_transformer_of_fixed_positions_asks_which_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "file.pth", kind_of("moco_v3_vit_small").content())
    with pytest.raises(WeightsError, match=r"layout=moco_v3_vit_small for .*; layout=timm for"):
        create_backbone("tiny_vit_small", path)


def test_largest_dinov3_asks_for_which_images_it_is(tmp_path: Path) -> None:
    state = {key: torch.zeros(()).expand(8) for key in ("local_cls_norm.weight", "norm.weight")}
    state["storage_tokens"] = torch.zeros(()).expand(1, 4, 4096)
    state["blocks.0.attn.qkv.weight"] = torch.zeros(())
    with pytest.raises(WeightsError, match=r"layout=dinov3 for .*; layout=dinov3_satellite for"):
        create_backbone("tiny_dinov3", write(tmp_path / "file.pth", state))


@pytest.mark.parametrize(
    ("layout", "forced"),
    [
        ("moco", "dino"),
        ("moco", "timm"),
        ("dinov2", "dinov2_registers"),
        ("dinov2_registers", "dinov2"),
        ("swav", "byol"),
        ("simclr_v1", "swav"),
        ("timm", "simclr_v1"),
        ("mae", "moco_v3_vit_small"),
        ("vicregl", "vicreg"),
    ],
)
def test_forced_layout_that_is_wrong_is_refused(layout: str, forced: str, tmp_path: Path) -> None:
    kind = kind_of(layout)
    message = refusal(kind, write(tmp_path / "file.pth", kind.content()), layout=forced)
    assert f"leave out layout={forced}" in message or "missing" in message


def test_forced_layout_of_a_converted_file_must_be_its_own(tmp_path: Path) -> None:
    kind = kind_of("moco")
    path, converted = write(tmp_path / "file.pth", kind.content()), tmp_path / "file.safetensors"
    save_weights(path, converted, read_weights(path))
    assert load(kind, converted, layout="moco").weights.layout == "moco"
    assert "leave out layout=dino" in refusal(kind, converted, layout="dino")


def test_file_of_no_known_layout_shows_its_names(tmp_path: Path) -> None:
    content = {"online_backbone": under("module.", kind_of("timm").state("query"))}
    path = write(tmp_path / "file.pth", content)
    with pytest.raises(WeightsError, match=r"no known layout .*online_backbone/conv1.weight"):
        create_backbone("tiny_resnet", path)


# networks that timm has not -----------------------------------------------------------------------


def refused(content: Any, path: Path, name: str) -> str:
    with pytest.raises(WeightsError) as caught:
        create_backbone(name, write(path, content))
    return str(caught.value)


def test_selective_kernels_of_simclr_are_refused(tmp_path: Path) -> None:
    state = {
        "net.0.0.weight": torch.ones(32, 3, 3, 3),
        "net.0.2.weight": torch.ones(32, 32, 3, 3),
        "net.0.4.weight": torch.ones(64, 32, 3, 3),
        "net.1.blocks.0.net.2.main_conv.0.weight": torch.ones(128, 64, 3, 3),
        "net.1.blocks.0.net.2.mixing_conv.0.weight": torch.ones(32, 64, 1, 1),
    }
    content = {"resnet": state, "head": {}}
    assert "selective kernels have no twin" in refused(content, tmp_path / "f.pth", "tiny_resnet50")


def test_convolutional_stem_of_moco_v3_is_refused(tmp_path: Path) -> None:
    state = {f"patch_embed.proj.{i}.weight": torch.ones(4, 4, 3, 3) for i in (0, 3, 6, 9)}
    state |= {"cls_token": torch.ones(1, 1, 384), "pos_embed": torch.zeros(1, 5, 384)}
    content = {"state_dict": under("module.base_encoder.", state), "arch": "vit_conv_small"}
    message = refused(content, tmp_path / "f.pth", "tiny_vit_small")
    assert "convolutional stem has no twin" in message


@pytest.mark.parametrize("first", [(96, 3, 11, 11), (64, 2, 3, 3)])
def test_deepcluster_of_2018_is_refused(first: tuple[int, ...], tmp_path: Path) -> None:
    state = {
        "features.module.0.weight": torch.ones(first),
        "classifier.1.weight": torch.ones(4, 4),
        "top_layer.weight": torch.ones(10, 4),
        "sobel.0.weight": torch.ones(1, 3, 1, 1),
    }
    content = {"epoch": 500, "arch": "alexnet", "state_dict": state, "optimizer": {}}
    message = refused(content, tmp_path / "f.pth", "vgg16_bn")
    assert "Sobel filters have no twin in timm" in message


def test_deep_stem_of_pixpro_is_refused(tmp_path: Path) -> None:
    state = {"conv1.0.0.weight": torch.ones(32, 3, 3, 3), "layer1.0.conv1.weight": torch.ones(4)}
    state = {**under("module.encoder.", state), **under("module.encoder_k.", state)}
    assert "ResNet-D has no twin" in refused({"model": state}, tmp_path / "f.pth", "tiny_resnet")


def test_wider_network_is_refused_with_its_shapes(tmp_path: Path) -> None:
    state = sketch("resnet50", base_width=128)
    state["conv1.weight"] = torch.zeros(()).expand(128, 3, 7, 7)
    path = write(tmp_path / "f.pth", kind_of("simclr_v1").build(state, state))
    with pytest.raises(WeightsError, match=r"conv1.weight \(128, 3, 7, 7\) instead of \(64, 3"):
        create_backbone("resnet50", path)
