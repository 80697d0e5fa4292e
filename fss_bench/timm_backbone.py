"""Any timm model as a backbone, through timm's `forward_intermediates`; `create_backbone`."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from fss_bench.architectures import other_backbone
from fss_bench.backbone import Backbone, BuiltFor, Features, Level, backbones
from fss_bench.errors import FssBenchError, UnknownNameError, WeightsError, one_line
from fss_bench.options import construct
from fss_bench.timm_blocks import Tap, block_taps, feature_info, tapped
from fss_bench.weight_reading import AUTO
from fss_bench.weights import Source, Weights, WeightsFile, load_weights, open_weights


@lru_cache
def timm_names() -> frozenset[str]:
    """Architectures that timm has."""
    return frozenset(timm.list_models())


class TimmBackbone(Backbone):
    """A timm model.

    Args:
        name: timm's name, perhaps with a pretrained tag.
        weights: see `create_backbone`.
        seed: seed of random weights.
        output_stride: 8 or 16 dilates the later stages of convolutional networks; levels keep
            their names.
        frozen: no gradients, always in eval mode.
        taps: further levels, by name.
        default_size, default_level: see `Backbone`.
        build: makes the network, where timm's own of that name is not what is wanted.
        image_size: the only input side, where the network has one and it shall be another;
            position embeddings are resampled.

    Raises:
        FssBenchError: the model has no feature maps, or does not take `output_stride`.
        WeightsError: see `load_weights`.
    """

    def __init__(
        self,
        name: str,
        weights: Weights = "imagenet",
        seed: int = 0,
        output_stride: int | None = None,
        frozen: bool = True,
        taps: Mapping[str, Tap] | None = None,
        default_size: int | None = None,
        default_level: str = "c4",
        build: Callable[..., Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        source = open_weights(weights)
        build = partial(build or partial(timm_model, name, output_stride), **source.options)
        if image_size is not None and image_size < 1:
            raise FssBenchError(f"option image_size={image_size}: it must be 1 or more")
        if image_size is not None:
            build = partial(build, img_size=image_size)
        model = _build_for(source, build, name, seed, image_size)
        _check_image_size(model, name, image_size)
        tail = set(model.state_dict())
        model.prune_intermediate_layers(len(feature_info(model)), prune_norm=True, prune_head=True)
        info = load_weights(model, name, source, tail - set(model.state_dict()))
        config = model.pretrained_cfg
        mean, std = source.statistics(config)
        fixed = config["input_size"][-1] if config.get("fixed_input_size") else None
        found = _levels(model, dilated=output_stride is not None)
        levels = {level: size for level, (_, size) in found.items()}
        for n, tap in (taps or {}).items():
            levels[n] = Level(tap.channels, levels[tap.level].stride)
        positions = {level: position for level, (position, _) in found.items()}
        blocks = block_taps(model, levels, positions)
        super().__init__(
            name,
            levels,
            mean,
            std,
            info,
            fixed_size=image_size or fixed,
            default_size=default_size,
            default_level=default_level,
            frozen=frozen,
            blocks={
                level: {n: Level(t.channels, levels[t.level].stride) for n, t in maps.items()}
                for level, maps in blocks.items()
            },
        )
        self._taps = dict(taps or {})
        for maps in blocks.values():
            self._taps |= maps
        self._positions = positions
        self.memory_format = torch.channels_last
        self.model = model.to(memory_format=self.memory_format)
        self.freeze()

    def extract(self, images: Tensor, levels: Sequence[str]) -> Features:
        """Feature maps of normalised images [B, 3, H, W], up to the deepest level asked."""
        taps = {level: self._taps[level] for level in levels if level in self._taps}
        runners = {taps[level].level if level in taps else level for level in levels}
        positions = sorted({self._positions[runner] for runner in runners})
        with tapped(self.model, taps) as found:
            maps = self.model.forward_intermediates(
                images.contiguous(memory_format=self.memory_format),
                indices=positions,
                stop_early=True,
                intermediates_only=True,
                output_fmt="NCHW",
            )
        by_position = dict(zip(positions, maps, strict=True))
        return {
            level: found[level] if level in taps else by_position[self._positions[level]]
            for level in levels
        }


def create_backbone(
    name: str,
    weights: str | Path | BuiltFor = "imagenet",
    encoder: str = AUTO,
    layout: str = AUTO,
    **options: Any,
) -> Backbone:
    """A registered backbone, or any other timm model by its timm name.

    Args:
        name: such as `"resnet50"`, or with timm's tag, `"resnet50.tv_in1k"`.
        weights: `imagenet` (timm's own download), `packaged` (installed with this package, for
            `tf_efficientnet_lite0`; a package of its own for `tf_efficientnet_lite2`), `none`
            (random, seeded), a checkpoint file, supervised or self-supervised; or what such a file
            asked of its network, for tensors that come later.
        encoder: of a file with two: `query` (also `online`, `student`), `momentum` (also `target`,
            `teacher`), or `auto`: the one its paper evaluates.
        layout: of a file: its published layout, or `auto`: recognised by the tensors' names.
        **options: `seed` (of random weights), `output_stride` (dilated stages), `frozen`,
            `image_size` (the side of transformers that take only one).

    Raises:
        UnknownNameError: neither registered nor known to timm, or an unknown option.
        WeightsError: weights that cannot be had, read, or do not fit.
    """
    how = {k: v for k, v in (("encoder", encoder), ("layout", layout)) if v != AUTO}
    if how and str(weights) in ("none", "imagenet", "packaged"):
        raise WeightsError(f"--weights {weights} is no file: drop the option {next(iter(how))}")
    source: Weights = weights if isinstance(weights, BuiltFor) else str(weights)
    if how and not isinstance(weights, BuiltFor):
        source = WeightsFile(str(weights), **how)
    if name in backbones.names():
        cls: Callable[..., Backbone] = backbones.get_derived(name, Backbone)
        found = construct(cls, f"backbone {name!r}", {"weights": source}, options)
    elif name.partition(".")[0] in timm_names():
        fixed = {"name": name, "weights": source}
        found = construct(TimmBackbone, f"backbone {name!r}", fixed, options)
    else:
        raise UnknownNameError("backbone", name, [*backbones.names(), *timm_names()])
    if isinstance(source, WeightsFile) and source.source.reading is not None:
        how = dict(source.source.reading.needed)  # what says nothing new makes no other run
    found.options = {**options, **how}
    found.built_for = open_weights(source).built_for
    return found


def _check_image_size(model: Any, name: str, size: int | None) -> None:
    """Refuse a side that patches do not fill: the rest would be cut off unseen."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if size is not None and patch is not None and size % patch[0]:
        raise FssBenchError(
            f"option image_size={size}: {name} has patches of {patch[0]} px: choose a multiple"
        )


def build_model(build: Callable[[], Any], name: str, seed: int) -> Any:
    """A timm model with seeded random weights.

    Raises:
        FssBenchError: timm cannot build it, or it has no feature maps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = build()
        except (TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
            raise FssBenchError(f"timm cannot build {name!r}: {one_line(error)}") from error
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise FssBenchError(f"timm's {name!r} gives no intermediate feature maps: choose another")
    return model


def _build_for(
    source: Source, build: Callable[[], Any], name: str, seed: int, image_size: int | None
) -> Any:
    """A timm model as a weights file wants it, if it does."""
    try:
        return build_model(build, name, seed)
    except FssBenchError as error:
        if image_size is not None and "img_size" in str(error):
            raise FssBenchError(
                f"option image_size={image_size}: {name} takes images of every size: leave it out, "
                f"and say --option input_size={image_size}"
            ) from error
        if source.reading is None or not source.options:
            raise
        raise WeightsError(
            f"{source.name} ({source.reading.rules.title}) does not fit {name} ({error}): "
            f"{other_backbone(source.reading.state, source.reading.layout)}"
        ) from error


def timm_model(name: str, output_stride: int | None = None, **options: Any) -> Any:
    """Timm's model of a name without its classifier; stages beyond `output_stride` are dilated."""
    if output_stride:
        options["output_stride"] = output_stride
    return timm.create_model(name, pretrained=False, num_classes=0, **options)


def _levels(model: Any, dilated: bool) -> dict[str, tuple[int, Level]]:
    """Level name -> position in timm's list and size; of equal strides the deepest has the name."""
    levels: dict[str, tuple[int, Level]] = {}
    nominal = 0
    for position, feature in enumerate(feature_info(model)):
        stride = int(feature["reduction"])
        nominal = max(stride, 2 * nominal) if dilated else stride
        name = f"c{nominal.bit_length() - 1}"
        levels[name] = (position, Level(int(feature["num_chs"]), stride))
    return levels
