import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench import create_backbone, create_method
from fss_bench.methods.panet import PANet


def panet(level: str = "c3", **options: float) -> PANet:
    method = create_method(
        "panet", create_backbone("tf_efficientnet_lite0", weights="none"), level=level, **options
    )
    assert isinstance(method, PANet)
    return method


def slow_scores(method: PANet, level: str, support: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Section 3.2 and 3.3 of the paper, one episode, by upsampling and loops: [1 + N, h, w]."""
    ways, shots, side = support.shape[0], support.shape[1], support.shape[-1]
    foreground, background = [], []
    for way in range(ways):
        for shot in range(shots):
            features = method.backbone(support[way, shot][None], [level])[level]
            large = F.interpolate(features, (side, side), mode="bilinear", align_corners=False)[0]
            pools = []
            for value in (1, 0):
                inside = masks[way, shot] == value
                pools.append(large[:, inside].sum(dim=1) / (inside.sum() + 1e-5))
            foreground.append(pools[0])
            background.append(pools[1])
    prototypes = [torch.stack(background).mean(dim=0)]
    for way in range(ways):
        prototypes.append(torch.stack(foreground[way * shots : (way + 1) * shots]).mean(dim=0))
    cells = method.backbone(query[None], [level])[level][0]
    return torch.stack([F.cosine_similarity(cells, p[:, None, None], dim=0) for p in prototypes])


def episode(ways: int, shots: int, size: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    support = torch.rand(ways, shots, 3, size, size, generator=generator)
    masks = torch.randint(0, 2, (ways, shots, size // 8, size // 8), generator=generator)
    masks = masks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).to(torch.uint8)
    masks[..., :3, :] = 255
    return support, masks, torch.rand(3, size, size, generator=generator)


def test_scores_equal_the_slow_formula() -> None:
    method = panet("c3")
    support, masks, query = episode(ways=2, shots=2)
    logits = method(support[None], masks[None], query[None])[0]
    wanted = 20 * slow_scores(method, "c3", support, masks, query)
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


def test_several_levels_average_their_scores_at_the_finest() -> None:
    method = panet("c3+c4", scale=1.0)
    support, masks, query = episode(ways=1, shots=1)
    fine = slow_scores(method, "c3", support, masks, query)
    coarse = slow_scores(method, "c4", support, masks, query)[None]
    coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)[0]
    logits = method(support[None], masks[None], query[None])[0]
    torch.testing.assert_close(logits, (fine + coarse) / 2, atol=1e-4, rtol=0)


def test_default_level_and_size_come_from_the_backbone() -> None:
    method = create_method("panet", create_backbone("tf_efficientnet_lite0", weights="none"))
    assert (method.levels, method.input_size) == (("c5_0",), 384)
    method = create_method("panet", create_backbone("resnet50", weights="none"))
    assert (method.levels, method.input_size) == (("c4",), 417)
    method = create_method("panet", create_backbone("resnet50", weights="none"), input_size=321)
    assert method.input_size == 321
