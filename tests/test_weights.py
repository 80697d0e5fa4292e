from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fss_bench import create_backbone, create_dataset
from fss_bench.errors import WeightsError
from fss_bench.loading import load_square, to_float
from fss_bench.weight_files import file_sha256, read_state_dict
from fss_bench.weights import _load_by_order, _packaged_file

SMALL = "tf_efficientnet_lite0"
PHOTOGRAPHS = {
    "2007_001568": {404},  # aeroplane: airliner
    "2007_002565": {820},  # train: steam locomotive
    "2007_003137": {779},  # bus: school bus
    "2007_005149": {258},  # dog: Samoyed
    "2007_005696": {155},  # dog: Shih-Tzu
}


def full_state(name: str = SMALL) -> dict[str, torch.Tensor]:
    return timm.create_model(name, pretrained=False).state_dict()


def assert_loaded(path: Path, state: dict[str, torch.Tensor], name: str = SMALL) -> None:
    backbone = create_backbone(name, weights=str(path))
    own = backbone.model.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert backbone.weights.source == path.name
    assert backbone.weights.sha256 == file_sha256(path)


def test_packaged_weights_recognise_photographs(shared: Path) -> None:
    model = timm.create_model(SMALL, pretrained=False).eval()
    path = _packaged_file(SMALL)
    _load_by_order(model, read_state_dict(path), path)
    dataset = create_dataset("pascal5i", shared / "data" / "voc_mini")
    images = [load_square(dataset, image, 224) for image in PHOTOGRAPHS]
    with torch.no_grad():
        top1 = model((to_float(torch.stack(images)) - 0.5) / 0.5).argmax(dim=1).tolist()
    assert all(guess in wanted for guess, wanted in zip(top1, PHOTOGRAPHS.values(), strict=True))


def test_packaged_weights_are_recorded() -> None:
    backbone = create_backbone(SMALL, weights="packaged")
    assert backbone.weights.source == "packaged"
    assert str(backbone.weights.sha256).startswith("57934424")


def test_file_in_timm_names_with_wrapper_and_prefix(tmp_path: Path) -> None:
    state = full_state()
    path = tmp_path / "weights.pth"
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    torch.save(wrapped, path)
    assert_loaded(path, state)


def test_safetensors_file(tmp_path: Path) -> None:
    state = full_state()
    save_file(state, tmp_path / "weights.safetensors")
    assert_loaded(tmp_path / "weights.safetensors", state)


def test_torchvision_layout_of_resnet_with_its_classifier(tmp_path: Path) -> None:
    state = full_state("resnet18")
    torch.save(state, tmp_path / "resnet18.pth")
    assert "fc.weight" in state
    assert_loaded(tmp_path / "resnet18.pth", state, "resnet18")


def test_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(full_state(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"weights.pth is truncated: fetch it again"):
        create_backbone(SMALL, weights=str(path))


def test_web_page_and_noise_say_so(tmp_path: Path) -> None:
    page, noise = tmp_path / "page.pth", tmp_path / "noise.pth"
    page.write_text("<!DOCTYPE html><html></html>")
    noise.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(WeightsError, match="is a web page"):
        create_backbone(SMALL, weights=str(page))
    with pytest.raises(WeightsError, match=r"noise.pth is not a readable checkpoint"):
        create_backbone(SMALL, weights=str(noise))


def test_other_architecture_names_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(full_state("resnet18"), path)
    with pytest.raises(WeightsError, match=r"missing \(conv_stem.weight.*left over \(conv1.weight"):
        create_backbone(SMALL, weights=str(path))


def test_wrong_shape_names_the_key(tmp_path: Path) -> None:
    state = full_state()
    state["conv_stem.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"conv_stem.weight \(1,\) instead of \(32, 3, 3, 3\)"):
        create_backbone(SMALL, weights=str(tmp_path / "w.pth"))


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


def test_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    torch.save({"state_dict": _Evil(marker)}, path)
    with pytest.raises(WeightsError, match="holds Python objects"):
        create_backbone(SMALL, weights=str(path))
    assert not marker.exists()


def test_missing_file_and_missing_packaged_weights() -> None:
    with pytest.raises(WeightsError, match="no such file, and not one of imagenet"):
        create_backbone(SMALL, weights="nowhere.pth")
    with pytest.raises(WeightsError, match="no packaged weights for 'resnet50'"):
        create_backbone("resnet50", weights="packaged")


def test_offline_download_fails_at_once_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("fss_bench.weights.socket.getaddrinfo", no_network)
    monkeypatch.setattr("fss_bench.weights.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(WeightsError, match=r"cannot be downloaded.*--weights packaged"):
        create_backbone(SMALL, weights="imagenet")


def test_torchvision_layout_of_vgg_without_its_unused_tail(tmp_path: Path) -> None:
    convolutions = timm.create_model("vgg11", pretrained=False).state_dict()
    features = {k: v for k, v in convolutions.items() if k.startswith("features")}
    file = {
        **features,
        "classifier.0.weight": torch.zeros(2, 3),
        "classifier.0.bias": torch.zeros(2),
    }
    torch.save(file, tmp_path / "vgg11.pth")
    assert_loaded(tmp_path / "vgg11.pth", features, "vgg11")
