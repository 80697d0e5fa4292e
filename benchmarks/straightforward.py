"""What published codes do, episode by episode: the yardstick of speed.py.

Every image of an episode goes through the backbone (HSNet's query once a shot), one at a time, in
NCHW memory; attention and correlations are whole matrices; features are upsampled to be pooled.
Weights and layers are those of our methods, the computation is by the formulas of the papers. Where
published codes compute something that reaches no output it is left out here.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fss_bench.attention import sinusoids
from fss_bench.ops import resize_corners

Loop = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Supports [K, 3, S, S] in [0, 1], masks [K, S, S] of 0 and 1, query [1, 3, S, S] -> logits
[1, 2, h, w]."""


def straightforward(method: Any) -> Loop:
    """The loop for a method of ours, with its weights."""
    name = method.registered_name
    backbone = plain_backbone(method.backbone)
    return lambda *episode: LOOPS[name](method, backbone, *episode)


def plain_backbone(backbone: Any) -> Any:
    """A copy whose weights and maps lie in NCHW order."""
    twin = copy.deepcopy(backbone)
    twin.model = twin.model.to(memory_format=torch.contiguous_format)
    twin.memory_format = torch.contiguous_format
    return twin


def panet(method: Any, backbone: Any, supports: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Prototypes from features upsampled to the mask's size."""
    level = method.levels[0]
    size = masks.shape[-2:]
    vectors: dict[int, list[Tensor]] = {0: [], 1: []}
    for image, mask in zip(supports, masks, strict=True):
        features = backbone(image[None], (level,))[level]
        for label, found in vectors.items():
            whole = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
            area = (mask == label).float()
            found.append((whole * area).sum(dim=(2, 3)) / (area.sum() + 1e-5))
    features = backbone(query, (level,))[level]
    scores = [
        F.cosine_similarity(features, torch.stack(found).mean(dim=0)[..., None, None], dim=1)
        for found in vectors.values()
    ]
    return F.interpolate(
        method.scale * torch.stack(scores, dim=1), size=size, mode="bilinear", align_corners=False
    )


def sgone(method: Any, backbone: Any, supports: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """A vector from features upsampled to the mask's size guides the query."""
    own = copy.copy(method)
    own._modules = {**method._modules, "backbone": backbone}
    vectors = []
    for image, mask in zip(supports, masks, strict=True):
        guidance = own.encode(image[None])["guidance"]
        whole = F.interpolate(guidance, size=mask.shape, mode="bilinear", align_corners=False)
        vectors.append((whole * mask).sum(dim=(2, 3)) / (mask.sum() + 1e-5))
    maps = own.encode(query)
    vector = torch.stack(vectors).mean(dim=0)
    similarity = F.cosine_similarity(maps["guidance"], vector[..., None, None])
    guided = maps["side"] * similarity[:, None]
    return method.exit(F.relu(method.classifier(guided)))


def dcama(method: Any, backbone: Any, supports: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Every block's attention as a whole matrix."""
    asked = backbone(query, method.levels)
    shown = [backbone(image[None], method.levels) for image in supports]
    stages = []
    for attention, stage in zip(method.attentions, method.stages, strict=True):
        maps = [_attended(attention, asked[n], [s[n] for s in shown], masks) for n in stage]
        stages.append(torch.cat(maps, dim=1))
    merged = method._merge(*stages)
    support = {n: torch.cat([s[n] for s in shown]) for n in method.skips}
    return resize_corners(method._mix(merged, support, asked), masks.shape[-2:])


def _attended(attention: Any, query: Tensor, shown: Sequence[Tensor], masks: Tensor) -> Tensor:
    """The mean of the masks over one block's attention, [1, 1, h, w]."""
    height, width = query.shape[-2:]
    codes = sinusoids(height * width, query.shape[1], query.device)
    values = resize_corners(masks[:, None], (height, width)).reshape(-1, 1)
    keys = torch.cat([attention.key(maps[0].flatten(1).T + codes) for maps in shown])
    queries = attention.query(query[0].flatten(1).T + codes)
    heads = [cells.reshape(len(cells), 8, -1).transpose(0, 1) for cells in (queries, keys)]
    scores = heads[0] @ heads[1].transpose(1, 2) / heads[0].shape[-1] ** 0.5
    return (scores.softmax(dim=-1) @ values).mean(dim=0).reshape(1, 1, height, width)


def hsnet(method: Any, backbone: Any, supports: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Every shot anew, the query's features too; 4D convolutions by turning the axes."""
    answers = []
    for image, mask in zip(supports, masks, strict=True):
        asked, shown = (backbone(one, method.levels) for one in (query, image[None]))
        stages = []
        for stage in method.stages:
            pairs = [_pairs(asked[n], shown[n], mask) for n in stage]
            stages.append(torch.cat(pairs, dim=1))
        c3, c4, c5 = (
            _squeeze(encoder, pairs)
            for encoder, pairs in zip(
                (method.encoder_c3, method.encoder_c4, method.encoder_c5), stages, strict=True
            )
        )
        merged = _squeeze(method.merge_c4, _at_query_size(c5, c4) + c4)
        merged = _squeeze(method.merge_c3, _at_query_size(merged, c3) + c3)
        fine = method.decoder1(merged.mean(dim=(-2, -1)))
        fine = resize_corners(fine, (2 * fine.shape[-2], 2 * fine.shape[-1]))
        answers.append(resize_corners(method.decoder2(fine), mask.shape))
    if len(answers) == 1:
        return answers[0]
    votes = torch.cat(answers).argmax(dim=1).sum(dim=0)
    share = votes / votes.max().clamp(min=1)
    return torch.stack([torch.full_like(share, 0.499), share])[None]


def _pairs(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Correlation [1, 1, h, w, h', w'] of a block."""
    support = support * resize_corners(mask[None, None], support.shape[-2:])
    units = [
        m.flatten(2) / (m.flatten(2).norm(dim=1, keepdim=True) + 1e-5) for m in (query, support)
    ]
    pairs = (units[0].transpose(1, 2) @ units[1]).clamp(min=0)
    return pairs.reshape(1, 1, *query.shape[-2:], *support.shape[-2:])


def _squeeze(block: Any, pairs: Tensor) -> Tensor:
    for layer in block:
        if hasattr(layer, "conv1"):
            pairs = _centre_pivot(layer, pairs)
        elif isinstance(layer, torch.nn.GroupNorm):
            pairs = F.group_norm(pairs, layer.num_groups, layer.weight, layer.bias, layer.eps)
        else:
            pairs = pairs.relu()
    return pairs


def _centre_pivot(layer: Any, pairs: Tensor) -> Tensor:
    """Pairs [1, C, h, w, h', w'] through the two planes, each as a 2D convolution."""
    stride = layer.stride
    pivots = pairs[..., ::stride, ::stride]
    one, _, *sizes = pivots.shape
    half = layer.conv1.weight.shape[-1] // 2
    over_query = F.conv2d(
        pivots.permute(0, 4, 5, 1, 2, 3).flatten(0, 2),
        layer.conv1.weight,
        layer.conv1.bias,
        padding=half,
    )
    over_query = over_query.unflatten(0, (one, *sizes[2:])).permute(0, 3, 4, 5, 1, 2)
    over_support = F.conv2d(
        pairs.permute(0, 2, 3, 1, 4, 5).flatten(0, 2),
        layer.conv2.weight,
        layer.conv2.bias,
        stride=stride,
        padding=half,
    )
    over_support = over_support.unflatten(0, (one, *sizes[:2])).permute(0, 3, 1, 2, 4, 5)
    return over_query + over_support


def _at_query_size(pairs: Tensor, like: Tensor) -> Tensor:
    """Pairs [1, C, h, w, a, b] with the query's size of others."""
    turned = pairs.permute(0, 4, 5, 1, 2, 3)
    sized = resize_corners(turned.flatten(0, 2), like.shape[2:4])
    return sized.unflatten(0, turned.shape[:3]).permute(0, 3, 4, 5, 1, 2)


def msanet(method: Any, backbone: Any, supports: Tensor, masks: Tensor, query: Tensor) -> Tensor:
    """Whole similarity and prior matrices, shot by shot."""
    asked = backbone(query, method.levels)
    shown = [backbone(image[None], method.levels) for image in supports]
    size = asked["c4"].shape[-2:]
    reduced_query = method.down_query(_joined(asked, size))
    reduced = [method.down_supp(_joined(maps, size)) for maps in shown]
    on = [mask[None, None] for mask in masks]
    prototypes = torch.cat([_masked_mean(r, m, size) for r, m in zip(reduced, on, strict=True)])
    gram = _gram(asked["c3"])
    distances = torch.stack([(gram - _gram(m["c3"])).norm() / gram.shape[1] for m in shown])
    weights = method.shot_weights(distances)[:, None, None, None]
    names = [name for group in method.groups for name in group]
    maps = [
        torch.stack(
            [
                _similar(asked[n], s[n], _chained(m, asked, n))
                for s, m in zip(shown, on, strict=True)
            ]
        )
        for n in names
    ]
    similar = torch.cat([found.mean(dim=0) for found in maps], dim=1)
    priors = torch.cat([_prior(asked["c5"], s["c5"], m) for s, m in zip(shown, on, strict=True)])
    gated = [_gated(method, r, m) for r, m in zip(reduced, on, strict=True)]
    merged = torch.cat(
        [
            reduced_query,
            (weights * prototypes).sum(dim=0, keepdim=True).expand(-1, -1, *size),
            method.hyper_final(similar),
            (weights * priors).sum(dim=0, keepdim=True),
            torch.stack(gated).mean(dim=0),
        ],
        dim=1,
    )
    meta = method.meta(method.meta.init_merge[0](merged))
    base = method.learner_base(asked["c5"])
    final = method.ensemble(meta, base, (weights.flatten() * distances).sum())
    return resize_corners(final, masks.shape[-2:])


def _joined(maps: Any, size: Any) -> Tensor:
    return torch.cat([maps["c4"], resize_corners(maps["c3"], size)], dim=1)


def _masked_mean(maps: Tensor, mask: Tensor, size: Any) -> Tensor:
    small = resize_corners(mask, size)
    return (maps * small).sum(dim=(2, 3), keepdim=True) / (small.sum() + 0.0005)


def _gram(maps: Tensor) -> Tensor:
    channels = maps[0].flatten(1)
    lengths = channels.norm(dim=1)
    return (channels @ channels.T / (lengths[:, None] * lengths + 1e-7))[None]


def _chained(mask: Tensor, asked: Any, name: str) -> Tensor:
    side = asked["c2"].shape[-1]
    for size in (2 * side, side, asked[name].shape[-1]):
        mask = resize_corners(mask, (size, size))
    return mask


def _similar(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    weights = mask.flatten()
    kept = weights >= weights[weights > 0].mean()
    chosen = support[0].flatten(1)[:, kept] * weights[kept]
    units = [m / (m.norm(dim=0, keepdim=True) + 1e-5) for m in (query[0].flatten(1), chosen)]
    cosines = (units[0].T @ units[1]).clamp(min=0)
    return cosines.mean(dim=1).reshape(1, 1, *query.shape[-2:])


def _prior(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    masked = (support * resize_corners(mask, support.shape[-2:]))[0].flatten(1)
    cells = query[0].flatten(1)
    cosines = cells.T @ masked / (cells.norm(dim=0)[:, None] * masked.norm(dim=0) + 1e-7)
    best = cosines.amax(dim=1)
    best = (best - best.min()) / (best.max() - best.min() + 1e-7)
    return best.reshape(1, 1, *query.shape[-2:])


def _gated(method: Any, reduced: Tensor, mask: Tensor) -> Tensor:
    near = F.interpolate(mask, size=reduced.shape[-2:], mode="nearest")
    return method.gate((reduced * near).mean(dim=(2, 3), keepdim=True)) * reduced


LOOPS: dict[str, Callable[..., Tensor]] = {
    "panet": panet,
    "sgone": sgone,
    "dcama": dcama,
    "hsnet": hsnet,
    "msanet": msanet,
}
