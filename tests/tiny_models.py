"""Networks of timm's classes with few channels and blocks, registered with timm under own names.

Their tensors have the names of published networks, so that files of these can be made quickly.
"""

from functools import partial
from typing import Any

from timm.layers import LayerNorm, SwiGLUPacked
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.eva import Eva
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # what timm's own ViTs want


def _config(side: int, classifier: str, **rest: Any) -> dict[str, Any]:
    size = {"input_size": (3, side, side), "classifier": classifier}
    return {"url": "", "num_classes": 1000, **size, **IMAGENET, **rest}


def _vit(side: int, **rest: Any) -> dict[str, Any]:
    return _config(side, "head", fixed_input_size=True, first_conv="patch_embed.proj", **rest)


default_cfgs = generate_default_cfgs(
    {
        "tiny_resnet.none": _config(64, "fc", first_conv="conv1"),
        "tiny_resnet50.none": _config(64, "fc", first_conv="conv1"),
        "tiny_vit.none": _vit(64, **HALVES),
        "tiny_vit_small.none": _vit(64, **HALVES),
        "tiny_dinov2.none": _vit(70),
        "tiny_dinov2_giant.none": _vit(70),
        "tiny_dinov2_reg4.none": _vit(70),
        "tiny_dinov3.none": _vit(64),
        "tiny_dinov3_qkvb.none": _vit(64),
        "tiny_dinov3_plus.none": _vit(64),
    }
)


@register_model
def tiny_resnet(pretrained: bool = False, **options: Any) -> Any:
    """Of two 3x3 convolutions a block, as ResNet-18."""
    network = {"block": BasicBlock, "layers": (2, 1, 1, 1), "channels": (64, 16, 24, 32)}
    return build_model_with_cfg(ResNet, "tiny_resnet", pretrained, **(network | options))


@register_model
def tiny_resnet50(pretrained: bool = False, **options: Any) -> Any:
    """Of bottlenecks, with as many blocks as ResNet-50."""
    network = {"block": Bottleneck, "layers": (3, 4, 6, 3), "channels": (8, 12, 16, 24)}
    return build_model_with_cfg(ResNet, "tiny_resnet50", pretrained, **(network | options))


def _transformer(name: str, pretrained: bool, network: dict[str, Any]) -> Any:
    return build_model_with_cfg(
        VisionTransformer,
        name,
        pretrained,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **network,
    )


@register_model
def tiny_vit(pretrained: bool = False, **options: Any) -> Any:
    network = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return _transformer("tiny_vit", pretrained, network | options)


@register_model
def tiny_vit_small(pretrained: bool = False, **options: Any) -> Any:
    """As wide as ViT-S, whose heads are in doubt."""
    network = {"img_size": 64, "patch_size": 16, "embed_dim": 384, "depth": 2, "num_heads": 6}
    return _transformer("tiny_vit_small", pretrained, network | options)


DINOV2: dict[str, Any] = {
    "img_size": 70,
    "patch_size": 14,
    "embed_dim": 48,
    "depth": 4,
    "num_heads": 3,
    "init_values": 1e-5,
}


@register_model
def tiny_dinov2(pretrained: bool = False, **options: Any) -> Any:
    return _transformer("tiny_dinov2", pretrained, DINOV2 | options)


@register_model
def tiny_dinov2_giant(pretrained: bool = False, **options: Any) -> Any:
    """With gated units, as ViT-g."""
    gated = {"mlp_ratio": 2.66667 * 2, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    return _transformer("tiny_dinov2_giant", pretrained, DINOV2 | gated | options)


@register_model
def tiny_dinov2_reg4(pretrained: bool = False, **options: Any) -> Any:
    registers = {"reg_tokens": 4, "no_embed_class": True}
    return _transformer("tiny_dinov2_reg4", pretrained, DINOV2 | registers | options)


DINOV3: dict[str, Any] = {
    "img_size": 64,
    "patch_size": 16,
    "dynamic_img_size": True,
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 1,
    "init_values": 1e-5,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
    "norm_layer": partial(LayerNorm, eps=1e-5),
}


def _dinov3(name: str, pretrained: bool, **options: Any) -> Any:
    return build_model_with_cfg(
        Eva,
        name,
        pretrained,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(DINOV3 | options),
    )


@register_model
def tiny_dinov3(pretrained: bool = False, **options: Any) -> Any:
    return _dinov3("tiny_dinov3", pretrained, qkv_bias=False, **options)


@register_model
def tiny_dinov3_qkvb(pretrained: bool = False, **options: Any) -> Any:
    return _dinov3("tiny_dinov3_qkvb", pretrained, qkv_bias=True, **options)


@register_model
def tiny_dinov3_plus(pretrained: bool = False, **options: Any) -> Any:
    gated = {"swiglu_mlp": True, "swiglu_align_to": 8}
    return _dinov3("tiny_dinov3_plus", pretrained, qkv_bias=True, **gated, **options)
