"""Files of published layouts, made from timm models: containers and names as their sources say.

Heads and queues are narrow; names are exact. Each function takes the weights of the query and of
the momentum encoder under timm's names, and gives what the file holds.
"""

import re
from argparse import Namespace
from collections.abc import Mapping
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor

State = dict[str, Tensor]

SEQUENCE = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def build(name: str, **options: Any) -> Any:
    """A timm model without its classifier."""
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(name, pretrained=False, num_classes=0, **options).eval()


def with_state(name: str, state: State, **options: Any) -> Any:
    model = build(name, **options)
    model.load_state_dict(state, strict=True)
    return model


@cache
def _shapes(name: str, options: tuple[tuple[str, Any], ...]) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in build(name, **dict(options)).state_dict().items()}


@cache
def _random(name: str, seed: int, options: tuple[tuple[str, Any], ...]) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in _shapes(name, options).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(100 + seed)
        elif key.endswith(("token", "pos_embed")):
            state[key] = torch.randn(shape, generator=generator) / 2
        elif len(shape) > 1:
            fan_in = shape.numel() // shape[0]
            state[key] = torch.randn(shape, generator=generator) / fan_in**0.5
        elif key.endswith("running_var") or re.search(r"weight$|gamma", key):
            state[key] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[key] = torch.randn(shape, generator=generator) / 10
    return state


def random_state(name: str, seed: int = 0, **options: Any) -> State:
    """Every tensor of a timm model random, statistics of norms and layer scales too."""
    return dict(_random(name, seed, tuple(options.items())))


# parts of files -----------------------------------------------------------------------------------

LINEAR, MATRIX, NORM, PLAIN_NORM, LAYER_NORM = (
    "linear",
    "matrix",
    "norm",
    "plain norm",
    "layer norm",
)
WEIGHT_NORM, POINTWISE = "weight norm", "pointwise"


def layers(prefix: str, kinds: Mapping[str, str]) -> State:
    """A head's tensors: name of a layer in it -> what it is."""
    found = {}
    for name, kind in kinds.items():
        for leaf, value in _layer(kind).items():
            found[f"{prefix}{name}.{leaf}" if name else f"{prefix}{leaf}"] = value
    return found


def _layer(kind: str) -> State:
    statistics = {"running_mean": torch.ones(4), "running_var": torch.ones(4)}
    statistics["num_batches_tracked"] = torch.tensor(3)
    affine = {"weight": torch.ones(4), "bias": torch.ones(4)}
    return {
        LINEAR: {"weight": torch.ones(4, 4), "bias": torch.ones(4)},
        MATRIX: {"weight": torch.ones(4, 4)},
        POINTWISE: {"weight": torch.ones(4, 4, 1, 1), "bias": torch.ones(4)},
        NORM: {**affine, **statistics},
        PLAIN_NORM: statistics,
        LAYER_NORM: affine,
        WEIGHT_NORM: {"weight_g": torch.ones(4, 1), "weight_v": torch.ones(4, 4)},
    }[kind]


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def sgd() -> dict[str, Any]:
    """What torch.optim.SGD's state dict holds."""
    group = {"lr": 0.03, "momentum": 0.9, "weight_decay": 1e-4, "params": [0]}
    return {"state": {0: {"momentum_buffer": torch.ones(4)}}, "param_groups": [group]}


def adamw() -> dict[str, Any]:
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(4), "exp_avg_sq": torch.ones(4)}
    return {"state": {0: moments}, "param_groups": [{"betas": (0.9, 0.999), "params": [0]}]}


SCALER = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "_growth_tracker": 7}
META = {
    "mmcv_version": "1.0.3",
    "time": "Sun Nov  1 2020",
    "config": "model = dict()",
    "epoch": 200,
}


def lightning(state: State) -> dict[str, Any]:
    """A checkpoint of PyTorch Lightning."""
    return {
        "epoch": 99,
        "global_step": 1000,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{}": {"best_model_path": ""}},
        "optimizer_states": [sgd()],
        "lr_schedulers": [{"last_epoch": 99}],
        "hyper_parameters": {"batch_size_per_device": 128},
    }


def in_sequence(state: State) -> State:
    """`nn.Sequential(*resnet.children())`."""
    found = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        found[f"{SEQUENCE[part]}.{rest}"] = value
    return found


def with_classifier(state: State) -> State:
    return {**state, **layers("", {"fc": LINEAR})}


# ResNets ------------------------------------------------------------------------------------------


def moco(query: State, momentum: State, head: Mapping[str, str]) -> Any:
    state = {
        **under("module.encoder_q.", query),
        **layers("module.encoder_q.", head),
        **under("module.encoder_k.", momentum),
        **layers("module.encoder_k.", head),
        "module.queue": torch.ones(4, 64),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": sgd()}


def moco_v1(query: State, momentum: State) -> Any:
    return moco(query, momentum, {"fc": LINEAR})


def moco_v2(query: State, momentum: State) -> Any:
    return moco(query, momentum, {"fc.0": LINEAR, "fc.2": LINEAR})


def moco_v3(query: State, momentum: State, head: Mapping[str, str], arch: str) -> Any:
    state = {
        **under("module.base_encoder.", query),
        **layers("module.base_encoder.", head),
        **under("module.momentum_encoder.", momentum),
        **layers("module.momentum_encoder.", head),
        **layers("module.predictor.", {"0": MATRIX, "1": NORM, "3": MATRIX}),
    }
    rest = {"optimizer": adamw(), "scaler": SCALER}
    return {"epoch": 300, "arch": arch, "state_dict": state, **rest}


def moco_v3_resnet(query: State, momentum: State) -> Any:
    head = {"fc.0": MATRIX, "fc.1": NORM, "fc.3": MATRIX, "fc.4": PLAIN_NORM}
    return moco_v3(query, momentum, head, "resnet50")


def fixed_positions(state: State) -> State:
    """Sines and cosines have no row for the class token."""
    table = state["pos_embed"].clone()
    table[:, 0] = 0
    return {**state, "pos_embed": table}


def moco_v3_vit(query: State, momentum: State) -> Any:
    head = {
        **{"head.0": MATRIX, "head.1": NORM, "head.3": MATRIX, "head.4": NORM},
        **{"head.6": MATRIX, "head.7": PLAIN_NORM},
    }
    return moco_v3(query, momentum, head, "vit_small")


def moco_v3_for_deit(query: State, _: State) -> Any:
    return {"model": query}


def moco_v3_linear(query: State, _: State) -> Any:
    state = under("module.", {**query, **layers("", {"head": LINEAR})})
    rest = {"best_acc1": torch.tensor(73.2), "optimizer": sgd()}
    return {"epoch": 90, "arch": "vit_small", "state_dict": state, **rest}


def npid(query: State, lemniscate: Any) -> Any:
    """`lemniscate` is a pickled module, or None."""
    state = under("module.", with_classifier(query))
    rest = {"lemniscate": lemniscate, "best_prec1": 46.8, "optimizer": sgd()}
    return {"epoch": 200, "arch": "resnet18", "state_dict": state, **rest}


def densecl(query: State, momentum: State) -> Any:
    neck = {"mlp.0": LINEAR, "mlp.2": LINEAR, "mlp2.0": POINTWISE, "mlp2.2": POINTWISE}
    state = {
        "queue": torch.ones(4, 64),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        "queue2": torch.ones(4, 64),
        "queue2_ptr": torch.zeros(1, dtype=torch.long),
        **under("encoder_q.0.", query),
        **layers("encoder_q.1.", neck),
        **under("encoder_k.0.", momentum),
        **layers("encoder_k.1.", neck),
        **under("backbone.", query),
        **layers("head.", {"criterion": LINEAR}),
    }
    return {"meta": META, "state_dict": state, "optimizer": sgd()}


def mmselfsup_moco_full(query: State, momentum: State) -> Any:
    """Of mmselfsup before 1.0, as it publishes: the neck has a second name too."""
    neck = {"mlp.0": LINEAR, "mlp.2": LINEAR}
    state = {
        "queue": torch.ones(4, 64),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        **under("encoder_q.0.", query),
        **layers("encoder_q.1.", neck),
        **under("encoder_k.0.", momentum),
        **layers("encoder_k.1.", neck),
        **under("backbone.", query),
        **layers("neck.", neck),
    }
    return {"meta": META, "state_dict": state}


def openselfsup(query: State, _: State) -> Any:
    return {"state_dict": query, "author": "DenseCL"}


def _pixpro_state(query: State, momentum: State) -> State:
    head = {"linear1": POINTWISE, "bn1": NORM, "linear2": POINTWISE}
    return {
        **under("module.encoder.", query),
        **layers("module.projector.", head),
        **under("module.encoder_k.", momentum),
        **layers("module.projector_k.", head),
        **layers("module.", {"value_transform": POINTWISE}),
        **layers("module.projector_instance.", head),
        **layers("module.projector_instance_k.", head),
        **layers("module.predictor.", head),
    }


def pixpro(query: State, momentum: State) -> Any:
    return {
        "opt": Namespace(model="PixPro", epochs=100, amp_opt_level="O1"),
        "model": _pixpro_state(query, momentum),
        "optimizer": sgd(),
        "scheduler": {"last_epoch": 100},
        "epoch": 100,
        "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 7}},
    }


def pixpro_published(query: State, momentum: State) -> Any:
    return {"model": _pixpro_state(query, momentum), "amp": {}}


SWAV_HEAD = {"projection_head.0": LINEAR, "projection_head.1": NORM, "projection_head.3": LINEAR}


def swav(query: State, _: State) -> Any:
    return under("module.", {**query, **layers("", {**SWAV_HEAD, "prototypes": MATRIX})})


def deepcluster_v2(query: State, _: State) -> Any:
    heads = {f"prototypes.prototypes{i}": MATRIX for i in range(3)}
    state = under("module.", {**query, **layers("", {**SWAV_HEAD, **heads})})
    return {"epoch": 400, "state_dict": state, "optimizer": sgd(), "amp": {"loss_scaler0": {}}}


def barlow_twins(query: State, _: State) -> Any:
    head = {"0": MATRIX, "1": NORM, "3": MATRIX, "4": NORM, "6": MATRIX}
    state = {
        **under("module.backbone.", query),
        **layers("module.projector.", head),
        **layers("module.", {"bn": PLAIN_NORM}),
    }
    return {"epoch": 1000, "model": state, "optimizer": sgd()}


VICREG_HEAD = {"0": LINEAR, "1": NORM, "3": LINEAR, "4": NORM, "6": MATRIX}


def vicreg(query: State, _: State) -> Any:
    state = {**under("module.backbone.", query), **layers("module.projector.", VICREG_HEAD)}
    return {"epoch": 1000, "model": state, "optimizer": sgd()}


def vicregl(query: State, _: State) -> Any:
    state = {
        **under("module.backbone.", query),
        **layers("module.maps_projector.", VICREG_HEAD),
        **layers("module.projector.", VICREG_HEAD),
        **layers("module.", {"classifier": LINEAR}),
    }
    return {"epoch": 300, "model": state, "optimizer": sgd()}


def vicregl_global(query: State, momentum: State) -> Any:
    """Of alpha 1: no projector of maps."""
    content = vicregl(query, momentum)
    state = {k: v for k, v in content["model"].items() if "maps_projector" not in k}
    return {**content, "model": state}


def simclr_v1(query: State, _: State) -> Any:
    """A block's `downsample` is registered before its convolutions."""
    order: dict[str, State] = {}
    for key, value in with_classifier(query).items():
        block = re.match(r"layer\d\.\d+\.", key)
        order.setdefault(block[0] if block else key, {})[key] = value
    state: State = {}
    for block in order.values():
        state |= {k: v for k, v in block.items() if "downsample" in k} | block
    return {"state_dict": state}


SIMCLR_V2 = {
    **{"conv1": "net.0", "bn1": "net.1.0", "conv2": "net.2", "bn2": "net.3.0"},
    **{"conv3": "net.4", "bn3": "net.5.0"},
    **{"downsample.0": "projection.shortcut", "downsample.1": "projection.bn.0"},
}


def simclr_v1_bare(query: State, momentum: State) -> Any:
    return simclr_v1(query, momentum)["state_dict"]


def simclr_v2(query: State, _: State) -> Any:
    state = {}
    for key, value in query.items():
        if block := re.match(r"layer(\d)\.(\d+)\.(downsample\.\d|\w+)\.(\w+)$", key):
            stage, number, part, leaf = block.groups()
            state[f"net.{stage}.blocks.{number}.{SIMCLR_V2[part]}.{leaf}"] = value
        else:
            part, leaf = key.split(".")
            state[f"net.0.{'0' if part == 'conv1' else '1.0'}.{leaf}"] = value
    kinds = {"0": MATRIX, "1": NORM, "3": MATRIX, "4": NORM, "6": MATRIX, "7": NORM}
    return {"resnet": with_classifier(state), "head": layers("layers.", kinds)}


def byol(query: State, _: State) -> Any:
    state = {k: v for k, v in query.items() if not k.endswith("num_batches_tracked")}
    return with_classifier(state)


def byol_openselfsup(query: State, momentum: State) -> Any:
    neck = {"fc0": LINEAR, "bn0": NORM, "fc1": LINEAR}
    state = {
        **under("online_net.0.", query),
        **layers("online_net.1.", neck),
        **under("target_net.0.", momentum),
        **layers("target_net.1.", neck),
        **under("backbone.", query),
        **layers("head.predictor.", neck),
    }
    return {"meta": META, "state_dict": state, "optimizer": sgd()}


BYOL_HEAD = {"0": LINEAR, "1": NORM, "3": LINEAR}


def byol_pytorch(query: State, momentum: State) -> Any:
    return {
        **under("net.", with_classifier(query)),
        **under("online_encoder.net.", with_classifier(query)),
        **layers("online_encoder.projector.", BYOL_HEAD),
        **under("target_encoder.net.", with_classifier(momentum)),
        **layers("target_encoder.projector.", BYOL_HEAD),
        **layers("online_predictor.", BYOL_HEAD),
    }


def moco_v3_linear_wide(query: State, momentum: State) -> Any:
    return {**moco_v3_linear(query, momentum), "arch": "vit_base"}


def simsiam(query: State, _: State) -> Any:
    head = {"0": MATRIX, "1": NORM, "3": MATRIX, "4": NORM, "6": LINEAR, "7": PLAIN_NORM}
    state = {
        **under("module.encoder.", query),
        **layers("module.encoder.fc.", head),
        **layers("module.predictor.", {"0": MATRIX, "1": NORM, "3": LINEAR}),
    }
    return {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": sgd()}


def deit(query: State, _: State) -> Any:
    return {"model": {**query, **layers("", {"head": LINEAR})}}


def deit_training(query: State, momentum: State) -> Any:
    both = {"model": deit(query, query)["model"], "model_ema": deit(momentum, momentum)["model"]}
    return {**both, "epoch": 299, "args": Namespace(model="deit_small_patch16_224")}


def dino_wrapped(_: State, momentum: State) -> Any:
    """DINO's backbone that was saved again elsewhere."""
    return {"state_dict": momentum}


def dino_resnet_published(_: State, momentum: State) -> Any:
    return momentum


def byol_sthalles(query: State, momentum: State) -> Any:
    head = layers("projetion.net.", BYOL_HEAD)
    return {
        "online_network_state_dict": {**under("encoder.", in_sequence(query)), **head},
        "target_network_state_dict": {**under("encoder.", in_sequence(momentum)), **head},
        "optimizer_state_dict": sgd(),
    }


def byol_yaox12(query: State, momentum: State) -> Any:
    head = {"l1": LINEAR, "bn1": NORM, "l2": LINEAR}
    state = {
        **under("module.online_network.encoder.", in_sequence(query)),
        **layers("module.online_network.projetion.", head),
        **under("module.target_network.encoder.", in_sequence(momentum)),
        **layers("module.target_network.projetion.", head),
        **layers("module.predictor.predictor.", head),
    }
    rest = {"config": {"model": {"backbone": {"type": "resnet50"}}}, "epoch": 300, "steps": 9}
    return {**rest, "model": state, "optimizer": sgd(), "amp": {}}


def mmselfsup(query: State, _: State) -> Any:
    heads = layers("", {"neck.fc0": LINEAR, "neck.bn0": NORM, "head.cls": LINEAR})
    return {"meta": META, "state_dict": {**under("backbone.", query), **heads}}


def mmselfsup_byol(query: State, momentum: State) -> Any:
    state = {
        **under("backbone.", query),
        **layers("", {"neck.fc0": LINEAR, "neck.bn0": NORM, "head.predictor.fc0": LINEAR}),
        "target_net.steps": torch.tensor(9),
        **under("target_net.module.0.", momentum),
        **layers("target_net.module.1.", {"fc0": LINEAR, "bn0": NORM}),
        "data_preprocessor.mean": torch.ones(3, 1, 1),
        "data_preprocessor.std": torch.ones(3, 1, 1),
    }
    return {"meta": META, "state_dict": state, "message_hub": {}, "param_schedulers": []}


def mmselfsup_densecl(query: State, momentum: State) -> Any:
    """Of mmselfsup 1.x: the momentum encoder is in a wrapper that counts steps."""
    neck = {"mlp.0": LINEAR, "mlp2.0": POINTWISE}
    state = {
        **under("backbone.", query),
        **layers("neck.", neck),
        "encoder_k.steps": torch.tensor(9),
        **under("encoder_k.module.0.", momentum),
        **layers("encoder_k.module.1.", neck),
        **{f"{name}{end}": torch.ones(1) for name in ("queue", "queue2") for end in ("", "_ptr")},
        "data_preprocessor.mean": torch.ones(3, 1, 1),
    }
    return {"meta": META, "state_dict": state}


def mmselfsup_npid(query: State, _: State) -> Any:
    state = {
        **under("backbone.", query),
        **layers("neck.", {"fc": LINEAR}),
        "memory_bank.feature_bank": torch.ones(8, 4),
    }
    return {"meta": META, "state_dict": state}


def solo_learn(query: State, momentum: State) -> Any:
    head = {"0": LINEAR, "1": NORM, "3": LINEAR}
    state = {
        **under("backbone.", query),
        **layers("", {"classifier": LINEAR, "momentum_classifier": LINEAR}),
        **under("momentum_backbone.", momentum),
        **layers("projector.", head),
        **layers("momentum_projector.", head),
        "queue": torch.ones(2, 4, 64),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    return lightning(state)


def solo_learn_early(query: State, momentum: State) -> Any:
    state = {
        **under("encoder.", query),
        **layers("", {"classifier": LINEAR, "projector.0": LINEAR}),
        **under("momentum_encoder.", momentum),
        **layers("", {"momentum_projector.0": LINEAR}),
    }
    return lightning(state)


def vissl(query: State, _: State) -> Any:
    trunk = under("_feature_blocks.", query)
    model = {"trunk": trunk, "heads": layers("0.", {"clf.0": LINEAR, "clf.2": LINEAR})}
    classy = {
        "train": True,
        "base_model": {"model": model, "meters": {}},
        "optimizer": {"optim": sgd()},
        "loss": {"memory": torch.ones(4, 4)},
    }
    return {"phase_idx": 999, "iteration": 1, "classy_state_dict": classy, "type": "consolidated"}


def lightly_moco(query: State, momentum: State) -> Any:
    head = {"layers.0": LINEAR, "layers.2": LINEAR}
    state = {
        **under("backbone.", in_sequence(query)),
        **layers("projection_head.", head),
        **under("backbone_momentum.", in_sequence(momentum)),
        **layers("projection_head_momentum.", head),
        **layers("prediction_head.", head),
        "criterion.memory_bank.bank": torch.ones(4, 64),
    }
    return lightning(state)


def lightly_dino(query: State, momentum: State) -> Any:
    head = {"layers.0": LINEAR, "layers.1": NORM, "last_layer": WEIGHT_NORM}
    return {
        **under("student_backbone.", in_sequence(query)),
        **layers("student_head.", head),
        **under("teacher_backbone.", in_sequence(momentum)),
        **layers("teacher_head.", head),
        "criterion.center": torch.ones(1, 1, 4),
    }


def lightly_backbone(query: State, _: State) -> Any:
    return in_sequence(query)


BENCHMARK = {"projection_head.layers.0": MATRIX, "online_classifier.linear_layer": LINEAR}


def lightly_benchmark(query: State, _: State) -> Any:
    return lightning({**under("backbone.", query), **layers("", BENCHMARK)})


def lightly_benchmark_byol(query: State, momentum: State) -> Any:
    heads = {**BENCHMARK, "prediction_head.layers.0": MATRIX}
    state = {
        **under("backbone.", query),
        **layers("", {**heads, "teacher_projection_head.layers.0": MATRIX}),
        **under("teacher_backbone.", momentum),
    }
    return lightning(state)


def lightly_benchmark_dino(query: State, momentum: State) -> Any:
    state = {
        **under("backbone.", momentum),
        **layers("", {**BENCHMARK, "student_projection_head.last_layer": WEIGHT_NORM}),
        **under("student_backbone.", query),
    }
    return lightning(state)


def lightly_benchmark_moco(query: State, momentum: State) -> Any:
    state = {
        **under("backbone.", momentum),
        **layers("", {**BENCHMARK, "query_projection_head.layers.0": MATRIX}),
        **under("query_backbone.", query),
    }
    return lightning(state)


def lightly_dino_vit(query: State, momentum: State) -> Any:
    state: State = {}
    for name, encoder in (("backbone", momentum), ("student_backbone", query)):
        state |= under(f"{name}.vit.", {**encoder, **layers("", {"head": LINEAR})})
        state[f"{name}.mask_token"] = torch.ones(1, 1, 48)
    heads = {**BENCHMARK, "student_projection_head.last_layer": WEIGHT_NORM}
    return lightning({**state, **layers("", heads)})


# a network's own names ----------------------------------------------------------------------------


def bare(query: State, _: State) -> Any:
    return query


def torchvision(query: State, _: State) -> Any:
    return with_classifier(query)


def torchvision_2017(query: State, _: State) -> Any:
    state = {k: v for k, v in query.items() if not k.endswith("num_batches_tracked")}
    return with_classifier(state)


def imagenet_example(query: State, _: State) -> Any:
    """PyTorch's own example; its best score is a tensor."""
    state = under("module.", with_classifier(query))
    rest = {"best_acc1": torch.tensor(76.1), "optimizer": sgd(), "scheduler": {"last_epoch": 90}}
    return {"epoch": 90, "arch": "resnet50", "state_dict": state, **rest}


def vissl_converted(query: State, _: State) -> Any:
    return {"model_state_dict": query}


def timm_training(query: State, momentum: State) -> Any:
    return {
        "epoch": 300,
        "arch": "resnet18",
        "state_dict": with_classifier(query),
        "optimizer": sgd(),
        "version": 2,
        "args": Namespace(model="resnet18"),
        "amp_scaler": SCALER,
        "state_dict_ema": with_classifier(momentum),
        "metric": 71.0,
    }


def compiled(query: State, _: State) -> Any:
    return {"model": under("_orig_mod.module.", query)}


def pretrained_here(query: State, momentum: State) -> Any:
    """What `fss-bench pretrain` writes, as safetensors."""
    return {**under("query.", query), **under("momentum.", momentum)}


# transformers -------------------------------------------------------------------------------------

DINO_HEAD = {"mlp.0": LINEAR, "mlp.2": LINEAR, "mlp.4": LINEAR, "last_layer": WEIGHT_NORM}


def dino(query: State, momentum: State, teacher: str) -> Any:
    return {
        "student": under("module.", {**under("backbone.", query), **layers("head.", DINO_HEAD)}),
        "teacher": under(teacher, {**under("backbone.", momentum), **layers("head.", DINO_HEAD)}),
        "optimizer": adamw(),
        "epoch": 300,
        "args": Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.ones(1, 64)},
        "fp16_scaler": SCALER,
    }


def dino_vit(query: State, momentum: State) -> Any:
    """The teacher of a transformer has no DistributedDataParallel."""
    return dino(query, momentum, "")


def dino_backbone(_: State, momentum: State) -> Any:
    return momentum


def dino_resnet(query: State, momentum: State) -> Any:
    return dino(query, momentum, "module.")


def with_mask_token(state: State) -> State:
    """DINOv2 and DINOv3 have one of [1, D]."""
    return {**state, "mask_token": torch.ones(1, state["cls_token"].shape[-1])}


def _gated_names(state: State) -> State:
    """DINOv2's names of gated units."""
    if "blocks.0.ls1.gamma" not in state or "blocks.0.mlp.fc1.weight" not in state:
        return state
    outer, inner = (state[f"blocks.0.mlp.fc{i}.weight"].shape for i in (1, 2))
    if outer[0] == inner[1]:
        return state
    return {
        k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for k, v in state.items()
    }


def dinov2(_: State, momentum: State) -> Any:
    return with_mask_token(_gated_names(momentum))


def with_published_positions(state: State) -> State:
    """DINOv2 adds a position to the class token; timm's of registers has it in the token."""
    found = dict(state)
    row = torch.full_like(found["cls_token"], 0.25)
    found["pos_embed"] = torch.cat([row, found["pos_embed"]], dim=1)
    found["cls_token"] = found["cls_token"] - row
    found["register_tokens"] = found.pop("reg_token")
    return found


def rounded_token(state: State) -> State:
    """A class token of which a quarter can be taken and given back without rounding."""
    return {**state, "cls_token": (state["cls_token"] * 256).round() / 256}


def dinov2_registers(_: State, momentum: State) -> Any:
    return with_mask_token(with_published_positions(momentum))


def _dinov2_training(momentum: State) -> Any:
    backbone = with_mask_token(momentum)
    return {"teacher": {**under("backbone.", backbone), **layers("dino_head.", DINO_HEAD)}}


def _in_chunks(state: State, size: int) -> State:
    """Blocks in chunks; their numbers count through."""
    found = {}
    for key, value in state.items():
        block = re.match(r"blocks\.(\d+)\.(.*)", key)
        name = f"blocks.{int(block[1]) // size}.{block[1]}.{block[2]}" if block else key
        found[name] = value
    return found


def dinov2_training(_: State, momentum: State) -> Any:
    return _dinov2_training(_gated_names(momentum))


def dinov2_training_chunks(_: State, momentum: State) -> Any:
    state = _dinov2_training(_in_chunks(_gated_names(momentum), 3))["teacher"]
    return {"teacher": {**state, **layers("ibot_head.", DINO_HEAD)}}


def dinov2_training_registers(_: State, momentum: State) -> Any:
    return _dinov2_training(_in_chunks(with_published_positions(momentum), 3))


def _dinov3_names(state: State, biased: bool) -> State:
    found: State = {}
    for key, value in state.items():
        name = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        name = name.replace("mlp.fc1_g", "mlp.w1").replace("mlp.fc1_x", "mlp.w2")
        found[name.replace("reg_token", "storage_tokens")] = value
    for i in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))):
        attention = f"blocks.{i}.attn"
        width = state["cls_token"].shape[-1]
        q, v = (found.pop(f"{attention}.{n}_bias", torch.zeros(width)) for n in "qv")
        # the keys' part is masked: whatever stands there is not used
        part = torch.full((width,), 0.5 if biased else 0.0)
        found[f"{attention}.qkv.bias"] = torch.cat([q, part, v])
        mask = torch.ones(3 * width)
        mask[width : 2 * width] = 0
        found[f"{attention}.qkv.bias_mask"] = mask
    return found


def periods(base: float = 100.0, count: int = 16) -> Tensor:
    """DINOv3's rotary periods, rounded as its files have them."""
    return (base ** (torch.arange(count) / count)).bfloat16().float()


def dinov3(_: State, momentum: State) -> Any:
    state = _dinov3_names(momentum, biased=True)
    return {**with_mask_token(state), "rope_embed.periods": periods()}


def dinov3_without_biases(_: State, momentum: State) -> Any:
    """The distilled models' biases are all zero."""
    state = _dinov3_names(momentum, biased=False)
    return {**with_mask_token(state), "rope_embed.periods": periods()}


def dinov3_satellite(query: State, momentum: State) -> Any:
    return {**dinov3(query, momentum), **layers("", {"local_cls_norm": LAYER_NORM})}


def mae(query: State, _: State) -> Any:
    return {"model": query}


def _with_decoder(state: State) -> State:
    kinds = {"norm1": LAYER_NORM, "attn.qkv": LINEAR, "attn.proj": LINEAR, "norm2": LAYER_NORM}
    kinds |= {"mlp.fc1": LINEAR, "mlp.fc2": LINEAR}
    rest = {"decoder_embed": LINEAR, "decoder_norm": LAYER_NORM, "decoder_pred": LINEAR}
    blocks = {f"decoder_blocks.{i}.{name}": kind for i in range(2) for name, kind in kinds.items()}
    tokens = {"mask_token": torch.ones(1, 1, 4), "decoder_pos_embed": torch.ones(1, 5, 4)}
    return {**tokens, **state, **layers("", {**rest, **blocks})}


def mae_with_decoder(query: State, _: State) -> Any:
    return {"model": _with_decoder(query)}


def mae_training(query: State, _: State) -> Any:
    args = Namespace(model="mae_vit_base_patch16", mask_ratio=0.75)
    rest = {"optimizer": adamw(), "epoch": 799, "scaler": SCALER, "args": args}
    return {"model": _with_decoder(query), **rest}


def mae_tuned(query: State, _: State) -> Any:
    """Fine-tuned by mean pooling: the last norm comes after it."""
    state = {k: v for k, v in query.items() if not k.startswith("norm.")}
    return {"model": {**state, **layers("", {"fc_norm": LAYER_NORM, "head": LINEAR})}}


def lightly_mae(query: State, _: State) -> Any:
    state = {
        **under("backbone.vit.", {**query, **layers("", {"head": LINEAR})}),
        "backbone.mask_token": torch.ones(1, 1, 64),
        **layers("decoder.", {"decoder_embed": LINEAR, "decoder_blocks.0.attn.qkv": LINEAR}),
    }
    return lightning(state)


def lightly_dinov2(query: State, momentum: State) -> Any:
    state: State = {}
    for role, encoder in (("teacher", momentum), ("student", query)):
        state |= under(f"{role}_backbone.vit.", encoder)
        state[f"{role}_backbone.mask_token"] = torch.ones(1, 1, 64)
        state |= layers(f"{role}_head.dino_head.", {"layers.0": LINEAR, "last_layer": WEIGHT_NORM})
    return lightning(state)


# ConvNeXt -----------------------------------------------------------------------------------------


def facebook_names(state: State) -> State:
    """ConvNeXt's original names."""
    parts = {"conv_dw": "dwconv", "mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2"}
    found = {}
    for key, value in state.items():
        name = re.sub(r"^stem\.(\d)", r"downsample_layers.0.\1", key)
        name = re.sub(r"^stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.(\d+)", r"stages.\1.\2", name)
        for part, new in parts.items():
            name = name.replace(part, new)
        found[name.replace("head.norm", "norm")] = value
    return found


def unscaled(state: State) -> State:
    """VICRegL's ConvNeXt: timm's of it has layer scales of one."""
    return {k: torch.ones_like(v) if k.endswith("gamma") else v for k, v in state.items()}


def _without_scales(state: State) -> State:
    return {k: v for k, v in facebook_names(state).items() if not k.endswith("gamma")}


def vicregl_convnext(query: State, _: State) -> Any:
    return _without_scales(query)


def vicregl_convnext_training(query: State, momentum: State) -> Any:
    return vicregl(_without_scales(query), momentum)


def dinov3_convnext(_: State, momentum: State) -> Any:
    state = facebook_names(momentum)
    return {**state, **{f"norms.3.{leaf}": state[f"norm.{leaf}"] for leaf in ("weight", "bias")}}
