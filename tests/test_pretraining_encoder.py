import pytest
import torch
from pretraining_ranks import MEAN, STD, images, trunk
from torch import Tensor, nn

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.encoder import (
    Encoder,
    feature_size,
    has_batch_norm,
    momentum_copy,
    synchronise_batch_norm,
)


def encoder(name: str = "test_resnet", **options: object) -> Encoder:
    network = trunk(name, **options)
    return Encoder(network, nn.Linear(feature_size(network), 8), MEAN, STD)


def test_features_are_the_trunks_of_normalised_images() -> None:
    model = encoder().eval()
    batch = images(2)
    normalised = torch.stack(
        [(batch[:, c] - m) / s for c, (m, s) in enumerate(zip(MEAN, STD, strict=True))], dim=1
    )
    expected = model.trunk(normalised)
    assert expected.shape == (2, 96)
    torch.testing.assert_close(model.features(batch), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model(batch), model.head(expected), atol=1e-6, rtol=1e-5)


def test_trunk_and_images_are_channels_last() -> None:
    model = encoder()
    seen: list[Tensor] = []
    model.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images(4))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    weight = model.trunk.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "test_mambaout"])
def test_feature_size_counts_layers_after_the_pooling(name: str) -> None:
    model = encoder(name).eval()
    assert model.features(images(1, size=64)).shape == (1, feature_size(model.trunk))


def test_each_group_has_batch_statistics_of_its_own() -> None:
    model = encoder()
    batch = images(12)
    with torch.no_grad():
        apart = torch.cat([model(part) for part in batch.split(4)])
        grouped, together = model(batch, 3), model(batch)
    torch.testing.assert_close(grouped, apart, atol=1e-6, rtol=1e-5)
    assert (grouped - together).abs().max() > 1e-2


def test_groups_must_be_equal() -> None:
    with pytest.raises(FssBenchError, match="10 images cannot be split into bn_groups=4"):
        encoder()(images(10), 4)


def test_batch_norm_is_found_in_trunks_that_have_it() -> None:
    assert has_batch_norm(trunk("test_resnet"))
    assert has_batch_norm(trunk("test_efficientnet"))  # timm's batch norm with an activation
    assert not has_batch_norm(trunk("test_vit"))
    assert not has_batch_norm(trunk("test_efficientnet_gn"))


def test_a_momentum_copy_shares_nothing() -> None:
    model = encoder()
    copy = momentum_copy(model)
    own = {t.data_ptr() for t in model.state_dict().values()}
    assert not own & {t.data_ptr() for t in copy.state_dict().values()}
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_batch_norm_is_shared_by_ranks_on_gpus_alone(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, answer in {
        "is_initialized": True,
        "get_world_size": 2,
        "get_backend": backend,
    }.items():
        monkeypatch.setattr(torch.distributed, name, lambda answer=answer: answer)
    model = encoder("test_efficientnet").eval()
    batch = images(2)
    before, names = model(batch), list(model.state_dict())
    synchronise_batch_norm(model)
    kinds = {isinstance(m, nn.SyncBatchNorm) for m in model.modules() if "Norm" in type(m).__name__}
    assert kinds == {backend == "nccl"}
    assert list(model.state_dict()) == names
    assert torch.equal(model(batch), before)  # the activations inside timm's layers are still there


def test_batch_norm_of_one_process_stays() -> None:
    model = encoder()
    synchronise_batch_norm(model)
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in model.modules())
