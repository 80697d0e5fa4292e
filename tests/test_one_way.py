import torch

from fss_bench.one_way import merge_ways


def test_one_way_is_left_as_it_is() -> None:
    logits = torch.randn(1, 2, 3, 4)
    assert torch.equal(merge_ways(logits), logits[0])


def test_a_pixel_is_of_the_surest_way_or_of_none() -> None:
    background = torch.tensor([[1.0, 5.0, 0.0, 3.0], [1.0, 9.0, 2.0, 0.0]])
    foreground = torch.tensor([[0.0, 7.0, 1.0, 2.0], [0.5, 10.0, 6.0, 1.0]])
    logits = torch.stack([background, foreground], dim=1)[:, :, None]  # [2, 2, 1, 4]
    merged = merge_ways(logits)
    assert merged.shape == (3, 1, 4)
    # odds of way 1: -1, 2, 1, -1; of way 2: -0.5, 1, 4, 1
    assert merged.argmax(dim=0).tolist() == [[0, 1, 2, 2]]
