from pathlib import Path

import pytest
import torch
from torch import nn

from fss_bench import create_backbone
from fss_bench.deep_stem import PSPNET_STEM
from fss_bench.errors import WeightsError

NAMES = ("resnet50_deepstem", "resnet101_deepstem")


@pytest.mark.parametrize(("name", "blocks"), [(NAMES[0], (3, 4, 6, 3)), (NAMES[1], (3, 4, 23, 3))])
def test_stages_are_dilated_from_their_first_block(name: str, blocks: tuple[int, ...]) -> None:
    model = create_backbone(name, weights="none").model
    for stage, count, dilation in zip(range(1, 5), blocks, (1, 1, 2, 4), strict=True):
        layers = getattr(model, f"layer{stage}")
        assert len(layers) == count
        for index, block in enumerate(layers):
            assert block.conv2.dilation == block.conv2.padding == (dilation, dilation)
            stride = 2 if (stage, index) == (2, 0) else 1
            assert block.conv2.stride == (stride, stride)
    stem = [layer.weight.shape[:2] for layer in model.conv1 if isinstance(layer, nn.Conv2d)]
    assert stem == [(64, 3), (64, 64), (128, 64)]


def test_levels_and_blocks_have_the_sizes_they_say() -> None:
    backbone = create_backbone("resnet50_deepstem", weights="none")
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):  # timm's random blocks begin as the identity
            nn.init.normal_(layer.weight)
    assert [backbone.levels[c].stride for c in ("c1", "c2", "c3", "c4", "c5")] == [2, 4, 8, 8, 8]
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 97, 97), ["c1", "c2", "c3", "c4", "c5", "c3.3", "c5.2"])
    sides = {name: found.shape[-1] for name, found in maps.items()}
    assert sides == {"c1": 49, "c2": 25, "c3": 13, "c4": 13, "c5": 13, "c3.3": 13, "c5.2": 13}
    for level, last in (("c3", "c3.3"), ("c5", "c5.2")):
        assert (maps[last] < 0).any()
        torch.testing.assert_close(maps[last].relu(), maps[level], atol=0, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_file_the_cure_is_named(name: str) -> None:
    with pytest.raises(
        WeightsError, match=f"no ImageNet weights for '{name}'.*--weights FILE"
    ) as e:
        create_backbone(name)
    assert "\n" not in str(e.value)


def test_files_with_pspnet_names_load(tmp_path: Path) -> None:
    theirs = create_backbone("resnet50_deepstem", weights="none", seed=3)
    ours = {v: k for k, v in PSPNET_STEM.items()}

    def published(name: str) -> str:
        stem = next((p for p in ours if name.startswith(p)), "")
        return ours.get(stem, "") + name.removeprefix(stem)

    state = {published(k): v for k, v in theirs.model.state_dict().items()}
    assert {"conv2.weight", "bn3.running_mean", "layer1.0.bn3.weight"} <= set(state)
    path = tmp_path / "resnet50_v2.pth"
    torch.save({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    loaded = create_backbone("resnet50_deepstem", weights=str(path)).model.state_dict()
    for name, value in theirs.model.state_dict().items():
        assert torch.equal(loaded[name], value), name
    del state["conv3.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match="does not fit"):
        create_backbone("resnet50_deepstem", weights=str(path))


def test_vgg_pools_round_up_and_maps_are_taken_before_batch_norm() -> None:
    backbone = create_backbone("vgg16_bn_msanet", weights="none")
    wanted = {"c1": 49, "c2": 25, "c3": 13, "c4": 7, "c5": 7, "c4.0": 13, "c4.2": 13, "c5.2": 7}
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 97, 97), list(wanted))
    assert {name: found.shape[-1] for name, found in maps.items()} == wanted
    for level, pool in (("c4", True), ("c5", False)):
        norm = backbone.model.features[{"c4": 31, "c5": 41}[level]]
        assert isinstance(norm, nn.BatchNorm2d)
        after = norm(maps[f"{level}.2"]).relu()
        after = nn.functional.max_pool2d(after, 2, ceil_mode=True) if pool else after
        torch.testing.assert_close(after, maps[level], atol=1e-6, rtol=0)
