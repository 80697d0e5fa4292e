"""Which published files there are: of which layout, network and method, and with which encoders."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import tiny_models  # noqa: F401 (registers its networks)
import torch.nn.functional as F
from torch import Tensor, nn
from weight_layout_files import (
    State,
    bare,
    barlow_twins,
    byol,
    byol_openselfsup,
    byol_pytorch,
    byol_sthalles,
    byol_yaox12,
    compiled,
    deepcluster_v2,
    deit,
    deit_training,
    densecl,
    dino_backbone,
    dino_resnet,
    dino_resnet_published,
    dino_vit,
    dino_wrapped,
    dinov2,
    dinov2_registers,
    dinov2_training,
    dinov2_training_chunks,
    dinov2_training_registers,
    dinov3,
    dinov3_convnext,
    dinov3_satellite,
    dinov3_without_biases,
    fixed_positions,
    imagenet_example,
    lightly_backbone,
    lightly_benchmark,
    lightly_benchmark_byol,
    lightly_benchmark_dino,
    lightly_benchmark_moco,
    lightly_dino,
    lightly_dino_vit,
    lightly_dinov2,
    lightly_mae,
    lightly_moco,
    mae,
    mae_training,
    mae_tuned,
    mae_with_decoder,
    mmselfsup,
    mmselfsup_byol,
    mmselfsup_densecl,
    mmselfsup_moco_full,
    mmselfsup_npid,
    moco_v1,
    moco_v2,
    moco_v3_for_deit,
    moco_v3_linear,
    moco_v3_linear_wide,
    moco_v3_resnet,
    moco_v3_vit,
    openselfsup,
    pixpro,
    pixpro_published,
    pretrained_here,
    random_state,
    rounded_token,
    simclr_v1,
    simclr_v1_bare,
    simclr_v2,
    simsiam,
    solo_learn,
    solo_learn_early,
    swav,
    timm_training,
    torchvision,
    torchvision_2017,
    unscaled,
    vicreg,
    vicregl,
    vicregl_convnext,
    vicregl_convnext_training,
    vicregl_global,
    vissl,
    vissl_converted,
    with_state,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TYPO = ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))  # what SwAV's and VICRegL's codes have
RAW = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))

RESNET, BOTTLENECKS, VIT, CONVNEXT = "tiny_resnet", "tiny_resnet50", "tiny_vit", "test_convnext"
VIT_SMALL, DINOV2, DINOV2_GIANT = "tiny_vit_small", "tiny_dinov2", "tiny_dinov2_giant"
DINOV2_REGISTERS, DINOV3, DINOV3_PLUS = "tiny_dinov2_reg4", "tiny_dinov3_qkvb", "tiny_dinov3_plus"
DINOV3_UNBIASED = "tiny_dinov3"
SIZE_112 = {"img_size": 112}
Build = Callable[[State, State], Any]
QUERY, MOMENTUM, BOTH, TEACHER = (
    ("query",),
    ("momentum",),
    ("query", "momentum"),
    ("momentum", "query"),
)


@dataclass(frozen=True)
class Published:
    """A kind of file.

    Attributes:
        layout: what it is called here.
        backbone: the timm model that it is of.
        build: weights of the query and of the momentum encoder -> what the file holds.
        roles: the encoders that it has, the one that its paper evaluates first.
        statistics: mean and deviation of images.
        network: what timm builds the model with.
        options: what `create_backbone` is given.
        change: timm's weights -> such as this method has.
        asks: whether other layouts have the same names, so that the user must say which it is.
    """

    layout: str
    backbone: str
    build: Build
    roles: tuple[str, ...] = QUERY
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    network: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[State], State] = dict
    asks: bool = False

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.layout}-{self.build.__name__}-{self.backbone}"

    @property
    def real(self) -> "Published":
        """The same of a network of the published size, or nearly."""
        return replace(self, backbone=REAL.get(self.backbone, self.backbone))

    def state(self, role: str) -> State:
        """Its weights under timm's names."""
        seed = BOTH.index(role)
        return self.change(random_state(self.backbone, seed, **self.network))

    def content(self) -> Any:
        """What the file holds."""
        return self.with_states(dict)

    def with_states(self, change: Callable[[State], State]) -> Any:
        """What a file of changed weights holds."""
        return self.build(change(self.state("query")), change(self.state("momentum")))

    def model(self, role: str) -> nn.Module:
        """A timm model that holds one encoder's weights; of BYOL it pads as TensorFlow does."""
        model = with_state(self.backbone, self.state(role), **self.network)
        return as_tensorflow(model) if self.layout == "byol" else model


REAL = {
    RESNET: "resnet18",
    BOTTLENECKS: "resnet50",
    VIT: "vit_tiny_patch16_224",
    VIT_SMALL: "vit_small_patch16_224",
    CONVNEXT: "convnext_tiny",
    DINOV2: "vit_small_patch14_dinov2",
    DINOV2_REGISTERS: "vit_small_patch14_reg4_dinov2",
    DINOV3: "vit_small_patch16_dinov3_qkvb",
    DINOV3_UNBIASED: "vit_small_patch16_dinov3",
    DINOV3_PLUS: "vit_small_plus_patch16_dinov3_qkvb",
}


def as_tensorflow(model: Any) -> Any:
    """Pad where a ResNet has strides so that a side n gives ceil(n / 2), the odd cell last."""
    strided = [model.conv1, model.maxpool]
    strided += [stage[0].conv2 for stage in (model.layer2, model.layer3, model.layer4)]
    for layer in strided:
        kernel = layer.kernel_size if layer is model.maxpool else layer.kernel_size[0]
        if layer.stride in (2, (2, 2)):
            layer.padding = 0 if isinstance(layer, nn.MaxPool2d) else (0, 0)
            layer.register_forward_pre_hook(partial(_pad, kernel))
    return model


def _pad(kernel: int, _: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    sides = []
    for side in inputs[0].shape[:1:-1]:
        total = max((math.ceil(side / 2) - 1) * 2 + kernel - side, 0)
        sides += [total // 2, total - total // 2]
    return F.pad(inputs[0], sides)


TWELVE = {"num_heads": 12}
SMALL_112 = {"network": SIZE_112, "options": {"image_size": 112}}


def _all() -> Iterable[Published]:
    yield Published("moco", RESNET, moco_v1, BOTH)
    yield Published("moco", RESNET, moco_v2, BOTH)
    yield Published("moco_v3", RESNET, moco_v3_resnet, BOTH)
    yield Published("moco_v3", VIT, moco_v3_vit, BOTH)
    yield Published("moco_v3", VIT_SMALL, moco_v3_vit, BOTH, network=TWELVE, change=fixed_positions)
    for build_file in (moco_v3_for_deit, moco_v3_linear):
        yield Published(
            "moco_v3_vit_small",
            VIT_SMALL,
            build_file,
            network=TWELVE,
            change=fixed_positions,
            asks=True,
        )
    yield Published("moco_v3_linear", VIT, moco_v3_linear_wide, change=fixed_positions)
    yield Published("densecl", RESNET, densecl, BOTH)
    yield Published("densecl", RESNET, mmselfsup_moco_full, BOTH)
    yield Published("openselfsup", RESNET, openselfsup)
    yield Published("pixpro", RESNET, pixpro, BOTH)
    yield Published("pixpro", RESNET, pixpro_published, BOTH)
    yield Published("swav", RESNET, swav, statistics=TYPO)
    yield Published("swav", RESNET, deepcluster_v2, statistics=TYPO)
    yield Published("barlow_twins", RESNET, barlow_twins)
    yield Published("vicreg", RESNET, vicreg)
    yield Published("vicregl", RESNET, vicregl, statistics=TYPO)
    yield Published("vicregl", RESNET, vicregl_global, statistics=TYPO)
    yield Published("vicregl_resnet", RESNET, bare, statistics=TYPO, asks=True)
    yield Published(
        "vicregl", CONVNEXT, vicregl_convnext_training, statistics=TYPO, change=unscaled
    )
    yield Published(
        "vicregl_convnext", CONVNEXT, vicregl_convnext, statistics=TYPO, change=unscaled
    )
    yield Published("simclr_v1", BOTTLENECKS, simclr_v1, statistics=RAW)
    yield Published("simclr_v1", BOTTLENECKS, simclr_v1_bare, statistics=RAW)
    yield Published("simclr_v2", BOTTLENECKS, simclr_v2, statistics=RAW)
    yield Published("byol", BOTTLENECKS, byol, asks=True)
    yield Published("byol_openselfsup", RESNET, byol_openselfsup, BOTH)
    yield Published("byol_pytorch", RESNET, byol_pytorch, BOTH)
    yield Published("byol_sthalles", RESNET, byol_sthalles, BOTH)
    yield Published("byol_yaox12", RESNET, byol_yaox12, BOTH)
    yield Published("mmselfsup", RESNET, mmselfsup)
    yield Published("mmselfsup", RESNET, mmselfsup_byol, BOTH)
    yield Published("mmselfsup", RESNET, mmselfsup_densecl, BOTH)
    yield Published("mmselfsup", RESNET, mmselfsup_npid)
    yield Published("simsiam", RESNET, simsiam)
    yield Published("solo_learn", RESNET, solo_learn, BOTH)
    yield Published("solo_learn", RESNET, solo_learn_early, BOTH)
    yield Published("vissl", RESNET, vissl)
    yield Published("lightly", RESNET, lightly_moco, BOTH)
    yield Published("lightly", RESNET, lightly_dino, TEACHER)
    yield Published("lightly_backbone", RESNET, lightly_backbone)
    yield Published("lightly_benchmark", RESNET, lightly_benchmark)
    yield Published("lightly_benchmark", RESNET, lightly_benchmark_byol, BOTH)
    yield Published("lightly_momentum", RESNET, lightly_benchmark_dino, TEACHER)
    yield Published("lightly_momentum", RESNET, lightly_benchmark_moco, TEACHER)
    yield Published("lightly_momentum", VIT, lightly_dino_vit, TEACHER)
    yield Published("lightly_vit", VIT, lightly_mae)
    yield Published("lightly_vit", VIT, lightly_dinov2, TEACHER)
    yield Published("timm", RESNET, torchvision)
    yield Published("timm", RESNET, torchvision_2017)
    yield Published("timm", RESNET, bare)
    yield Published("timm", RESNET, imagenet_example)
    yield Published("timm", RESNET, vissl_converted)
    yield Published("timm", RESNET, timm_training, BOTH)
    yield Published("timm", RESNET, compiled)
    yield Published("fss_bench", RESNET, pretrained_here, BOTH)
    yield Published("dino", VIT, dino_vit, TEACHER)
    yield Published("dino", RESNET, dino_resnet, TEACHER)
    yield Published("dino_backbone", VIT, dino_backbone, MOMENTUM)
    yield Published("dino_backbone", VIT, dino_wrapped, MOMENTUM, asks=True)
    yield Published("dino_resnet", RESNET, dino_resnet_published, MOMENTUM, asks=True)
    yield Published("deit", VIT, deit, asks=True)
    yield Published("deit", VIT, deit_training, BOTH, asks=True)
    yield Published("dinov2", DINOV2, dinov2, MOMENTUM, **SMALL_112)
    yield Published("dinov2", DINOV2_GIANT, dinov2, MOMENTUM, **SMALL_112)
    yield Published("dinov2_training", DINOV2_GIANT, dinov2_training_chunks, MOMENTUM, **SMALL_112)
    yield Published(
        "dinov2_registers",
        DINOV2_REGISTERS,
        dinov2_registers,
        MOMENTUM,
        **SMALL_112,
        change=rounded_token,
    )
    yield Published("dinov2_training", DINOV2, dinov2_training, MOMENTUM, **SMALL_112)
    yield Published("dinov2_training", DINOV2, dinov2_training_chunks, MOMENTUM, **SMALL_112)
    yield Published(
        "dinov2_training_registers",
        DINOV2_REGISTERS,
        dinov2_training_registers,
        MOMENTUM,
        **SMALL_112,
        change=rounded_token,
    )
    yield Published("dinov3", DINOV3, dinov3, MOMENTUM)
    yield Published("dinov3", DINOV3_UNBIASED, dinov3_without_biases, MOMENTUM)
    yield Published("dinov3", DINOV3_PLUS, dinov3, MOMENTUM)
    yield Published("dinov3_satellite", DINOV3, dinov3_satellite, MOMENTUM, SATELLITE)
    yield Published("dinov3_convnext", CONVNEXT, dinov3_convnext, MOMENTUM)
    for build_file in (mae, mae_with_decoder, mae_training):
        yield Published("mae", VIT, build_file, change=fixed_positions)
    yield Published("mae", VIT, mae_tuned)


PUBLISHED = tuple(_all())
