"""The random views of an image that each method trains on.

Views are tensors in [0, 1] and not normalised: the encoder owns mean and std. A view depends on
the seed, the epoch and the number of its image alone: neither on workers nor on what came before.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from lightly.transforms.byol_transform import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
)
from lightly.transforms.gaussian_blur import GaussianBlur
from lightly.transforms.moco_transform import MoCoV2Transform
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fss_bench.errors import FssBenchError
from fss_bench.pretraining.pictures import Picture, first_problem, read_picture
from fss_bench.pretraining.recipes import Recipe
from fss_bench.randomness import seeded

ViewMaker = Callable[[Image.Image], list[Tensor]]
"""An RGB picture -> its views, each [3, S, S] in [0, 1]."""


class Batch(NamedTuple):
    """Views of some images.

    Attributes:
        first: [B, 3, S, S] in [0, 1].
        second: likewise, or None for a method of one view.
        indices: [B], the numbers of the images.
        problem: why there is no view, as one line; None where all went well.
    """

    first: Tensor
    second: Tensor | None
    indices: Tensor
    problem: str | None = None


def create_views(recipe: Recipe) -> ViewMaker:
    """The views of a method: two, or one for NPID."""
    size, least = recipe.image_size, recipe.crop_min
    blur = blur_range(size)
    makers: dict[tuple[str, int], Callable[[], Callable[[Any], Any]]] = {
        ("moco", 1): lambda: _Views(_instance_view(size, least), 2),
        ("moco", 2): lambda: MoCoV2Transform(size, min_scale=least, sigmas=blur, normalize=None),
        ("moco", 3): lambda: BYOLTransform(
            BYOLView1Transform(size, min_scale=least, sigmas=blur, normalize=None),
            BYOLView2Transform(size, min_scale=least, sigmas=blur, normalize=None),
        ),
        ("simclr", 1): lambda: _Views(_simclr_view(size, least, blur), 2),
        ("npid", 1): lambda: _Views(_instance_view(size, least), 1),
    }
    return makers[recipe.method, recipe.version]()


def blur_range(size: int) -> tuple[float, float]:
    """Smallest and largest sigma of the blur, in pixels of a view of this size.

    The papers' 0.1 to 2 are for 224 pixels; on smaller views they would leave little to see.
    """
    return 0.1 * size / 224, 2.0 * size / 224


class Views(TorchDataset[Any]):
    """The views of images; an item is asked for by epoch and number.

    Args:
        pictures: the images.
        recipe: says which views.
        seed: another seed, other views.
    """

    def __init__(self, pictures: Sequence[Picture], recipe: Recipe, seed: int) -> None:
        self.pictures, self.seed = pictures, seed
        self.make = create_views(recipe)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, list[Tensor] | str]:
        """Number and views of the image `item[1]` in the epoch `item[0]`, or what went wrong."""
        epoch, index = item
        try:
            picture = read_picture(self.pictures[index].path)
        except FssBenchError as error:
            return index, str(error)
        with seeded(self.seed, epoch, index):
            return index, self.make(picture)


def collate(items: Sequence[tuple[int, list[Tensor] | str]]) -> Batch:
    """Items of `Views` as a batch; the first problem stands for all."""
    indices = torch.tensor([index for index, _ in items])
    problem = first_problem(views for _, views in items)
    if problem is not None:
        return Batch(torch.empty(0), None, indices, problem)
    stacked = [torch.stack(list(some)) for some in zip(*(v for _, v in items), strict=True)]
    return Batch(stacked[0], stacked[1] if len(stacked) > 1 else None, indices)


class _Views:
    """The same random view several times."""

    def __init__(self, view: Callable[[Any], Any], count: int) -> None:
        self.view, self.count = view, count

    def __call__(self, picture: Image.Image) -> list[Tensor]:
        return [self.view(picture) for _ in range(self.count)]


def _instance_view(size: int, least: float) -> v2.Transform:
    """That of NPID and MoCo v1: jitter always, after the greyscale (lightly's is at p 0.8)."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(least, 1.0)),
            v2.RandomGrayscale(0.2),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.4),
            v2.RandomHorizontalFlip(),
            *_to_tensor(),
        ]
    )


class AdditiveJitter:
    """Colour jitter of SimCLR v1, whose brightness adds: lightly's and torchvision's multiplies.

    In a random order, each clipped to 0 … 255.

    Args:
        strength: s of the paper: brightness, contrast and saturation 0.8 s, hue 0.2 s.
    """

    def __init__(self, strength: float = 1.0) -> None:
        self.most, self.hue = 0.8 * strength, 0.2 * strength

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Changes an RGB picture."""
        added, contrast, saturation, turn = (2 * torch.rand(4) - 1).tolist()
        steps: list[Callable[[Any], Any]] = [
            lambda p: p.point(_brighter(255 * self.most * added) * 3),
            lambda p: F.adjust_contrast(p, 1 + self.most * contrast),
            lambda p: F.adjust_saturation(p, 1 + self.most * saturation),
            lambda p: F.adjust_hue(p, self.hue * turn),
        ]
        for i in torch.randperm(4).tolist():
            picture = steps[i](picture)
        return picture


def _brighter(added: float) -> list[int]:
    return [round(min(max(value + added, 0), 255)) for value in range(256)]


def _simclr_view(size: int, least: float, blur: tuple[float, float]) -> v2.Transform:
    """That of SimCLR v1, appendix A: bicubic, strength 1 (lightly's crop is bilinear)."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                size, scale=(least, 1.0), interpolation=v2.InterpolationMode.BICUBIC
            ),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([AdditiveJitter()], 0.8),
            v2.RandomGrayscale(0.2),
            GaussianBlur(prob=0.5, sigmas=blur),
            *_to_tensor(),
        ]
    )


def _to_tensor() -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
