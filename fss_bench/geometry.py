"""Between an image's own pixels and the method's input square, and back: the resize rules.

A method sees squares of side S. Under `warp` an image fills its square; under `pad` and `native` it
lies in the top left, on black, and its masks on 255.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fss_bench.annotations import SPARSE, resize_labelled
from fss_bench.dataset import SegDataset
from fss_bench.ops import resize_corners, resize_logits
from fss_bench.protocols import EvaluationProtocol

Shape = tuple[int, int]
"""Height and width, px."""
PAD_MULTIPLE, NATIVE_MULTIPLE = 8, 32


def square_side(protocol: EvaluationProtocol, dataset: SegDataset, input_size: int) -> int:
    """Side S of the input squares.

    Args:
        protocol: its rule `image_resize`.
        dataset: under `native` the square holds its largest image.
        input_size: the method's own side, for the other rules.
    """
    if protocol.image_resize != "native":
        return input_size
    longest = max(max(shape) for shape in dataset.index.sizes.values())
    return -(-longest // NATIVE_MULTIPLE) * NATIVE_MULTIPLE


def placed_shape(shape: Shape, side: int, image_resize: str) -> Shape:
    """Height and width that an image of a shape has in its square."""
    if image_resize == "warp":
        return side, side
    if image_resize == "native":
        return shape
    longer = 0 if shape[0] >= shape[1] else 1
    scaled = [int(length * (side / shape[longer])) for length in shape]
    scaled[longer] = side  # of a square the height alone: its width is rounded, as published
    height, width = (max(n // PAD_MULTIPLE, 1) * PAD_MULTIPLE for n in scaled)
    return height, width


def place_image(pixels: NDArray[np.uint8], side: int, protocol: EvaluationProtocol) -> Tensor:
    """An image [H, W, 3] in its square: [3, S, S] in 0 … 255.

    Pillow rounds what it interpolates to uint8; OpenCV is given float32, as in the published codes,
    and rounds nothing.
    """
    shape = placed_shape(pixels.shape[:2], side, protocol.image_resize)
    square = torch.from_numpy(_resize_image(pixels, shape, protocol))
    square = square.permute(2, 0, 1)
    if shape == (side, side):
        return square.contiguous()
    canvas = torch.zeros(3, side, side, dtype=square.dtype)
    canvas[:, : shape[0], : shape[1]] = square
    return canvas


def place_mask(mask: NDArray[np.uint8], side: int, protocol: EvaluationProtocol) -> Tensor:
    """A support's mask or annotation [H, W] in its square: [S, S] uint8, 255 around it."""
    shape = placed_shape((mask.shape[0], mask.shape[1]), side, protocol.image_resize)
    if protocol.annotation in SPARSE:
        small = torch.from_numpy(resize_labelled(mask, shape))
    else:
        small = resize_mask(mask, shape, protocol.mask_resize)
    if shape == (side, side):
        return small
    canvas = torch.full((side, side), 255, dtype=torch.uint8)
    canvas[: shape[0], : shape[1]] = small
    return canvas


def place_target(target: NDArray[np.uint8], side: int, protocol: EvaluationProtocol) -> Tensor:
    """The truth of a query [H, W] at the resolution of the IoU, what surrounds it left out."""
    if protocol.iou_at == "original":
        return torch.from_numpy(target)
    shape = placed_shape((target.shape[0], target.shape[1]), side, protocol.image_resize)
    return resize_mask(target, shape, protocol.mask_resize)


def fit_logits(logits: Tensor, shape: Shape, side: int, protocol: EvaluationProtocol) -> Tensor:
    """Logits of a square at the resolution of the IoU.

    Under `pad` they are resized to a square of the query's longer side, as published.

    Args:
        logits: [P, h, w] of the whole square, any size.
        shape: of the truth.
        side: of the square.
        protocol: rules `image_resize`, `iou_at` and `logits_resize`.

    Returns:
        [P, *shape].
    """
    height, width = shape
    square = side, side
    if protocol.iou_at == "original" and protocol.image_resize != "native":
        square = shape if protocol.image_resize == "warp" else (max(shape), max(shape))
    resize = resize_logits if protocol.logits_resize == "bilinear" else resize_corners
    return resize(logits[None], square)[0, :, :height, :width]


def resize_mask(mask: NDArray[np.uint8], shape: Shape, kind: str = "nearest") -> Tensor:
    """A mask [H, W] to another shape; see the rule `mask_resize`."""
    height, width = shape
    if mask.shape == shape:
        return torch.from_numpy(mask)
    if kind == "nearest-opencv":
        return torch.from_numpy(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST))
    if kind == "nearest-pil":
        small = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(small))
    return resize_nearest(torch.from_numpy(mask), shape)


def resize_nearest(mask: Tensor, shape: Shape) -> Tensor:
    """A mask [H, W] to another shape by torch's legacy nearest.

    Its source index is floor(i * in / out) with in / out rounded to float32, as in the published
    codes: where i * in / out is whole it may be one less.
    """
    return F.interpolate(mask[None, None], size=shape, mode="nearest")[0, 0]


def _resize_image(
    pixels: NDArray[np.uint8], shape: Shape, protocol: EvaluationProtocol
) -> NDArray[np.uint8 | np.float32]:
    if protocol.image_resize == "native":
        return pixels.copy()  # an array over Pillow's memory cannot be a tensor
    height, width = shape
    if protocol.image_filter == "opencv-bilinear":
        whole = pixels.astype(np.float32)
        return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR))
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(small)
