"""The kNN monitor: weighted votes of neighbours, leave one out."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_pretraining import make_images
from torch import Tensor, nn

from fss_bench.pretraining.encoder import Encoder
from fss_bench.pretraining.knn import encode, find_labelled, knn_accuracy
from fss_bench.pretraining.pictures import find_pictures


def by_hand(features: Tensor, labels: Sequence[int], k: int = 200, tau: float = 0.07) -> float:
    """The formula of METHODS, an image and a neighbour at a time."""
    right = 0
    rows = [[float(x) for x in row] for row in features]
    for i, query in enumerate(rows):
        similar = []
        for j, other in enumerate(rows):
            if j != i:
                dot = sum(a * b for a, b in zip(query, other, strict=True))
                lengths = math.hypot(*query) * math.hypot(*other)
                similar.append((-dot / lengths, j))
        votes: dict[int, float] = {}
        for minus, j in sorted(similar)[: min(k, len(rows) - 1)]:
            votes[labels[j]] = votes.get(labels[j], 0.0) + math.exp(-minus / tau)
        right += min(votes, key=lambda c: (-votes[c], c)) == labels[i]
    return right / len(rows)


@pytest.mark.parametrize(("count", "classes"), [(2, 2), (30, 3), (150, 5), (230, 4)])
def test_equals_the_formula(count: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(count)
    labels = torch.randint(classes, (count,), generator=generator).tolist()
    centres = torch.randn(classes, 6, generator=generator)
    features = centres[labels] + 1.2 * torch.randn(count, 6, generator=generator)
    accuracy = knn_accuracy(features, labels)
    assert accuracy == by_hand(features, labels)
    if count == 230:  # the number of neighbours, and how they are weighted, show
        assert accuracy != by_hand(features, labels, k=10)
        assert accuracy != by_hand(features, labels, tau=10.0)


def test_known_answers() -> None:
    apart = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    assert knn_accuracy(apart, [0, 0, 1, 1]) == 1.0
    assert knn_accuracy(apart, [0, 1, 0, 1]) == 0.0
    assert knn_accuracy(apart * torch.tensor([[9.0], [1], [0.1], [3]]), [0, 0, 1, 1]) == 1.0
    assert knn_accuracy(apart, [0, 0, 0, 1]) == 0.5  # the last two are each other's nearest


def test_an_image_is_not_its_own_neighbour() -> None:
    assert knn_accuracy(torch.eye(2), [0, 1]) == 0.0


def test_ties_are_settled_by_number() -> None:
    """Four equal vectors: three votes each way of one weight; the lower class wins a tie."""
    same = torch.ones(4, 3)
    assert knn_accuracy(same, [1, 1, 0, 0]) == 0.0  # two of the other class against one
    assert knn_accuracy(torch.ones(3, 3), [0, 1, 2]) == 0.0
    assert knn_accuracy(torch.ones(5, 3), [0, 0, 0, 1, 1]) == 0.6  # for class 0, a tie of 2 and 2


class Spread(nn.Module):
    """Features: means of the colours, batch-normalised, so that the mode shows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.norm.running_mean = torch.tensor([0.5, 0.25, 0.0])
        self.seen: list[torch.Size] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.shape)
        return self.norm(images.mean((2, 3)))


def test_features_are_those_of_eval_mode(tmp_path: Path) -> None:
    for i, colour in enumerate([(255, 0, 0), (0, 51, 0), (0, 0, 102)]):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{i}.png")
    encoder = Encoder(Spread(), nn.Identity(), (0, 0, 0), (1, 1, 1)).train()
    before = encoder.trunk.norm.running_mean.clone()
    found = encode(encoder, find_pictures([tmp_path]), 16, torch.device("cpu"), 0)
    wanted = torch.tensor([[1, 0, 0], [0, 0.2, 0], [0, 0, 0.4]]) - torch.tensor([0.5, 0.25, 0])
    assert torch.allclose(found, wanted, atol=1e-4)
    assert encoder.trunk.seen == [torch.Size([3, 3, 16, 16])]
    assert torch.equal(encoder.trunk.norm.running_mean, before)
    assert encoder.training
    assert encoder.trunk.training


def test_normalisation_is_the_encoders(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (51, 102, 153)).save(tmp_path / "0.png")
    trunk = Spread()
    trunk.norm = nn.Identity()  # type: ignore[assignment]
    encoder = Encoder(trunk, nn.Identity(), (0.2, 0.2, 0.2), (0.5, 0.25, 0.1))
    found = encode(encoder, find_pictures([tmp_path]), 16, torch.device("cpu"), 0)
    assert torch.allclose(found, torch.tensor([[0.0, 0.8, 4.0]]), atol=1e-3)


def test_the_centre_is_taken(tmp_path: Path) -> None:
    """Of a picture with red at both ends, the crop sees the middle alone."""
    picture = Image.new("RGB", (96, 32), (255, 0, 0))
    picture.paste((0, 0, 255), (24, 0, 72, 32))
    picture.save(tmp_path / "0.png")
    trunk = Spread()
    trunk.norm = nn.Identity()  # type: ignore[assignment]
    encoder = Encoder(trunk, nn.Identity(), (0, 0, 0), (1, 1, 1))
    found = encode(encoder, find_pictures([tmp_path]), 28, torch.device("cpu"), 0)
    assert torch.allclose(found, torch.tensor([[0.0, 0, 1]]), atol=1e-3)


def test_a_strip_does_not_fill_the_memory(tmp_path: Path) -> None:
    Image.new("RGB", (1, 60000), (250, 10, 10)).save(tmp_path / "strip.png")
    encoder = Encoder(nn.Flatten(), nn.Identity(), (0, 0, 0), (1, 1, 1))
    found = encode(encoder, find_pictures([tmp_path]), 224, torch.device("cpu"), 0)
    assert found.shape == (1, 3 * 224 * 224)


def test_labelled_folders(tmp_path: Path) -> None:
    for name, count in (("cat", 2), ("ant", 3), ("dog", 1)):
        make_images(tmp_path / name / "deep", count)
    (tmp_path / "ant" / "broken.jpg").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "test.txt").write_text("ant")
    found = find_labelled(tmp_path)
    assert found.classes == ("ant", "cat", "dog")
    assert found.labels == (0, 0, 0, 1, 1, 2)
    assert found.pictures[3].name == "cat/deep/000.jpg"
    assert [name for name, _ in found.checked.skipped] == ["ant/broken.jpg"]


def test_folders_without_classes_are_refused(
    tmp_path: Path, refusal: Callable[[Callable[[], object]], str]
) -> None:
    make_images(tmp_path / "cat", 2)
    assert "one for each of two classes" in refusal(lambda: find_labelled(tmp_path))
    (tmp_path / "dog").mkdir()
    assert "1 subfolders with images" in refusal(lambda: find_labelled(tmp_path))
    (tmp_path / "dog" / "1.jpg").write_text("no image")
    assert "no image of class dog can be read" in refusal(lambda: find_labelled(tmp_path))
    assert "no such folder" in refusal(lambda: find_labelled(tmp_path / "none"))
