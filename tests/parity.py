"""What parity tests share: published weights by the recipe, golden files, comparisons.

The recipe is a formula over published tensor names (`../shared/golden/README.md`): no pretrained
file is needed to compare with a published implementation.
"""

import hashlib
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

logger = logging.getLogger("parity")
KEPT = ("num_batches_tracked", "relative_position_index", "attn_mask", "pe", "z", "num_z")


def recipe_tensor(name: str, shape: Sequence[int]) -> Tensor:
    """The recipe's float32 tensor for a published name."""
    count = math.prod(shape)
    uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(count)
    spread = (2 * uniform - 1) * math.sqrt(3)
    leaf = name.rpartition(".")[2]
    if leaf == "running_mean":
        values = 0.1 * spread
    elif leaf == "running_var":
        values = 0.8 + 0.4 * uniform
    elif leaf == "relative_position_bias_table":
        values = 0.2 * spread
    elif len(shape) >= 2:
        values = spread * math.sqrt((1 if len(shape) == 2 else 2) / math.prod(shape[1:]))
    elif leaf == "weight":
        values = (1 + 0.1 * spread) * (0.2 if ".bn3." in name else 1)
    else:
        values = 0.05 * spread
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def recipe_state(
    shapes: Mapping[str, Sequence[int]], constants: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A published state dict: the recipe's tensors, and those a constructor makes.

    Args:
        shapes: published name -> shape, without `module.`.
        constants: tensors that the recipe leaves as constructed; counters are zero.
    """
    state = {}
    for name, shape in shapes.items():
        if name in constants:
            state[name] = constants[name]
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(tuple(shape), dtype=torch.int64)
        else:
            assert name.rpartition(".")[2] not in KEPT, f"{name} is not the recipe's to make"
            state[name] = recipe_tensor(name, shape)
    return state


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Digest of a state dict as the golden files have it."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_keys(path: Path) -> dict[str, tuple[int, ...]]:
    """Published names and shapes of a `keys/*.txt` file."""
    shapes = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            name, shape, _ = line.split("\t")
            shapes[name] = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
    return shapes


@dataclass(frozen=True)
class Golden:
    """A golden file: what the published implementation was given and what it answered."""

    name: str
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def image(self, key: str) -> Tensor:
        """An image [3, H, W] in [0, 1]."""
        return self.tensors[key].permute(2, 0, 1).float() / 255

    def numbered(self, prefix: str) -> list[str]:
        """Names that are the prefix and a number, by number."""
        found = [k for k in self.tensors if k.startswith(prefix) and k[len(prefix) :].isdigit()]
        return sorted(found, key=lambda k: int(k[len(prefix) :]))

    def supports(self) -> list[tuple[Tensor, Tensor]]:
        """1-way supports, each of its own size: image [1, 3, H, W], mask [1, H, W]."""
        images, masks = self.numbered("support_img_u8_"), self.numbered("support_mask_")
        return [
            (self.image(i)[None], self.tensors[m][None]) for i, m in zip(images, masks, strict=True)
        ]

    def episode(self, mask: str = "support_mask_") -> tuple[Tensor, Tensor, Tensor]:
        """1-way support images [1, 1, K, 3, H, W] and masks [1, 1, K, H, W], query [1, 3, H, W]."""
        images = torch.stack([self.image(k) for k in self.numbered("support_img_u8_")])
        masks = torch.stack([self.tensors[k] for k in self.numbered(mask)])
        return images[None, None], masks[None, None], self.image("query_img_u8")[None]


def golden_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Golden files of a pattern, by name."""
    yield from sorted(folder.glob(f"{pattern}.safetensors"))


def read_golden(path: Path) -> Golden:
    """A golden file and the facts beside it."""
    facts = json.loads(path.with_suffix(".json").read_text())
    return Golden(path.stem, facts, load_file(path))


def close(
    found: Tensor, wanted: Tensor, atol: float, what: str = "difference", rtol: float = 0.0
) -> float:
    """Assert that two tensors agree within `atol` + `rtol` |wanted|; the largest difference.

    `pytest --log-cli-level=INFO` shows the differences.
    """
    assert found.shape == wanted.shape, (what, found.shape, wanted.shape)
    error = (found.detach().double() - wanted.double()).abs()
    logger.info("%s: %.1e of %.1e allowed", what, float(error.max()), atol)
    assert (error <= atol + rtol * wanted.double().abs()).all(), (what, float(error.max()), atol)
    return float(error.max())


def check_prediction(logits: Tensor, wanted: Tensor, atol: float) -> None:
    """Labels of logits [B, P, H, W] equal those wanted, but where two classes tie within `atol`."""
    best = logits.topk(2, dim=1).values
    tied = (best[:, 0] - best[:, 1]) <= 2 * atol
    differs = logits.argmax(dim=1) != wanted.long()
    assert not (differs & ~tied).any(), int((differs & ~tied).sum())


def gradients(method: nn.Module, loss: Tensor, published: Callable[[str], str]) -> dict[str, float]:
    """L2 norms of the gradients of what a method trains, by published name."""
    method.zero_grad()
    loss.backward()
    return {
        published(name): float(p.grad.double().norm()) if p.grad is not None else 0.0
        for name, p in method.named_parameters()
        if p.requires_grad
    }


def check_statistics(found: Tensor, wanted: Mapping[str, Any], atol: float, what: str) -> None:
    """Shape, mean, spread, extremes, norm and samples of an intermediate tensor."""
    assert list(found.shape) == wanted["shape"], what
    values = found.detach().double()
    for key, value in {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "max": values.max(),
    }.items():
        assert abs(float(value) - wanted[key]) <= atol, (what, key, float(value), wanted[key])
    norm = float(values.norm())
    assert abs(norm - wanted["l2"]) <= 1e-5 * wanted["l2"] + atol, (what, "l2", norm, wanted["l2"])
    flat = values.flatten()
    # in float64: float32 cannot tell positions beyond 16 M apart
    at = torch.linspace(0, len(flat) - 1, len(wanted["sample"]), dtype=torch.float64).long()
    difference = (flat[at] - torch.tensor(wanted["sample"], dtype=torch.float64)).abs().max()
    assert difference <= atol, (what, "sample", float(difference))


def check_gradients(
    found: Mapping[str, float], wanted: Mapping[str, float], rtol: float, floor: float
) -> None:
    """L2 norms of gradients by published name; `floor` is absolute, for analytic zeros."""
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert abs(found[name] - value) <= rtol * abs(value) + floor, (name, found[name], value)
