"""The method `finetune`: what it is given, what it leaves, what it answers."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_backbone import PixelBackbone, episodes, scene
from torch import Tensor

from fss_bench import create_backbone, create_method, evaluate
from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.heads import unet
from fss_bench.heads.fitting import Schedule, Supports
from fss_bench.methods import finetune
from fss_bench.methods.finetune import CARD, HEADS, FineTune, ambient_autocast, way_labels
from fss_bench.ops import resize_logits
from fss_bench.registry import datasets

QUICK: dict[str, Any] = {"steps": 2}


@pytest.fixture(autouse=True)
def narrow_unet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two million parameters take a while to fit."""
    monkeypatch.setattr(unet, "WIDTHS", 6 * (16,))


def method(head: str = "cosine", backbone: PixelBackbone | None = None, **options: Any) -> FineTune:
    made = create_method("finetune", backbone or PixelBackbone(), head=head, **options)
    assert isinstance(made, FineTune)
    return made


def iou(logits: Tensor, mask: Tensor) -> float:
    guess = resize_logits(logits, (mask.shape[-2], mask.shape[-1])).argmax(dim=1)[0] == 1
    truth = mask == 1
    return float((guess & truth).sum() / (guess | truth).sum())


def answer(made: FineTune, shown: tuple[Tensor, Tensor], asked: Tensor) -> Tensor:
    image, mask = shown
    with torch.no_grad():
        logits: Tensor = made(image[None, None, None], mask[None, None, None], asked[None])
    return logits


def test_without_steps_the_cosine_head_is_class_means() -> None:
    support, masks, query = episodes(1, 2, 3, size=30)
    logits = method(steps=0, scale=7.0)(support, masks, query)[0]
    maps = F.avg_pool2d(support[0].flatten(0, 1), 2)
    large = F.interpolate(maps, (30, 30), mode="bilinear", align_corners=False).movedim(1, -1)
    labels = masks[0].flatten(0, 1)
    first, second = labels[:3] == 1, labels[3:] == 1
    inside = [labels == 0, torch.cat([first, 0 * second]) > 0, torch.cat([0 * first, second]) > 0]
    cells = F.avg_pool2d(query, 2)[0]
    for channel, pixels in zip(logits, inside, strict=True):
        mean = large[pixels].mean(dim=0)
        wanted = 7 * F.cosine_similarity(cells, mean[:, None, None], dim=0)
        torch.testing.assert_close(channel, wanted, atol=1e-4, rtol=0)


def test_fitting_mends_what_class_means_confuse() -> None:
    shown, (asked, truth) = scene([(4, 4)]), scene([(20, 16), (2, 22)])
    before = iou(answer(method(steps=0), shown, asked), truth)
    assert before < 0.5  # red is taken for green
    assert iou(answer(method(), shown, asked), truth) > before + 0.4


@pytest.mark.parametrize(
    ("head", "level", "steps"),
    [("unet", "c1+c2+c3", 10), ("deeplabv3plus", "c1+c2", 10), ("segnet", "c1", 40)],
)
def test_decoders_learn_an_episode(head: str, level: str, steps: int) -> None:
    shown, (asked, truth) = scene([(4, 4)]), scene([(4, 16)])
    blank, fitted = (method(head, steps=n, lr=0.01, level=level) for n in (0, steps))
    assert iou(answer(blank, shown, asked), truth) == 0
    assert iou(answer(fitted, shown, asked), truth) > 0.5


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize("ceil", [True, False])
def test_heads_take_any_side_ways_and_shots(head: str, size: int, ceil: bool) -> None:
    made = method(head, PixelBackbone(ceil=ceil), **QUICK)
    with torch.no_grad():
        logits = made(*episodes(1, 2, 2, size))
    assert logits.shape[:2] == (1, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_an_episode_is_answered_alike_alone_again_and_in_a_batch(head: str) -> None:
    made = method(head, entropy=1.0, elastic=2.0, border_weight=10.0, **QUICK)
    support, masks, query = episodes(2, 1, 1)
    state = torch.get_rng_state()
    with torch.no_grad():
        together = made(support, masks, query)
        again = made(support, masks, query)
        torch.manual_seed(9)
        alone = made(support[1:], masks[1:], query[1:])
        torch.set_rng_state(state)
        made(support, masks, query)
    assert torch.equal(together, again)
    assert torch.equal(together[1:], alone)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{"head": "segnet"}, {"head": "unet"}, {"elastic": 3.0}])
def test_another_seed_gives_another_answer(options: dict[str, Any]) -> None:
    given = episodes(1, 1, 1)
    first, second = (method(seed=seed, **QUICK, **options)(*given) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("head", HEADS)
def test_no_way_is_preferred_for_its_place(head: str) -> None:
    support, masks, query = episodes(1, 2, 1)
    masks[:, 1] = masks[:, 0].transpose(-1, -2)
    made = method(head, **QUICK)
    logits = made(support, masks, query)
    swapped = made(support.flip(1), masks.flip(1), query)
    torch.testing.assert_close(swapped[:, [0, 2, 1]], logits, atol=1e-3, rtol=0)


def test_deformations_follow_the_support_not_its_place() -> None:
    support, masks, query = episodes(1, 1, 3)
    made = method(elastic=3.0, **QUICK)
    order = [2, 0, 1]
    logits = made(support, masks, query)
    assert not torch.equal(logits, method(**QUICK)(support, masks, query))
    swapped = made(support[:, :, order], masks[:, :, order], query)
    torch.testing.assert_close(swapped, logits, atol=1e-4, rtol=0)


def test_images_are_features_only_where_supports_are_deformed() -> None:
    images = episodes(1, 1, 1)[2]
    assert list(method().encode(images)) == ["c1"]
    found = method(elastic=1.0).encode(images)
    assert list(found) == ["c1", "image"]
    assert torch.equal(found["image"], images)


def test_gradients_are_turned_on_inside_and_left_off() -> None:
    support, masks, query = episodes(1, 1, 1)
    made = method(**QUICK)
    with torch.no_grad():
        fitted = made(support, masks, query)
        assert not torch.is_grad_enabled()
    assert not torch.equal(fitted, method(steps=0)(support, masks, query))
    assert not made(support, masks, query).requires_grad


def test_a_backbone_that_may_be_trained_is_left_alone() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", weights="none", frozen=False)
    made = create_method("finetune", backbone, elastic=2.0, level="c3", **QUICK)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    with torch.no_grad():
        made(*episodes(1, 1, 1))
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("value", [0, 1, 255])
def test_supports_without_a_class_are_no_trouble(head: str, value: int) -> None:
    support, masks, query = episodes(1, 1, 1)
    made = method(head, entropy=1.0, border_weight=10.0, **QUICK)
    logits = made(support, torch.full_like(masks, value), query)
    assert logits.isfinite().all()


def test_a_way_that_no_support_shows_is_predicted_nowhere() -> None:
    shown, (asked, truth) = scene([(4, 4)]), scene([(20, 16)])
    images = shown[0].expand(1, 2, 1, 3, 32, 32)
    masks = torch.stack([shown[1], 0 * shown[1]])[None, :, None]
    masks[:, 1, 0, shown[1] == 1] = 255
    logits = method()(images, masks, asked[None])
    assert (logits.argmax(dim=1) != 2).all()
    assert iou(logits, truth) > 0.5


def test_ignored_pixels_of_supports_change_nothing() -> None:
    support, masks, query = episodes(1, 1, 1)
    masks[..., 24:, :] = 255  # far from what is upsampled to the rest
    other = support.clone()
    other[..., 28:, :] += 5
    made = method(level="c1")
    assert torch.equal(made(support, masks, query), made(other, masks, query))


def test_precision_is_full_in_the_head_and_as_asked_in_the_backbone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    made = method(elastic=2.0, entropy=1.0, **QUICK)
    extract = made.backbone.extract

    def watch(images: Tensor, levels: tuple[str, ...]) -> dict[str, Tensor]:
        seen.append(ambient_autocast("cpu").fast_dtype if torch.is_autocast_enabled("cpu") else 0)
        return extract(images, levels)

    monkeypatch.setattr(made.backbone, "extract", watch)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = made(*episodes(1, 1, 1))
    assert seen == 4 * [torch.bfloat16]  # support, query, two deformed supports
    assert logits.dtype == torch.float32


def test_entropy_is_divided_by_the_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules: list[Schedule] = []
    monkeypatch.setattr(finetune, "fit", lambda *given: schedules.append(given[3]))
    made = method(entropy=1.5, steps=7, lr=0.25)
    for shots in (1, 3):
        made(*episodes(1, 1, shots))
    assert schedules == [Schedule(7, 0.25, 1.5), Schedule(7, 0.25, 0.5)]


def test_weights_are_balance_plus_borders_where_valid() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 2:6, 1:3] = labels[0, 2:6, 5:7] = 1
    labels[0, 0] = 255
    plain = method().weights(labels, 2)
    assert torch.equal(plain, (labels != 255).float())
    balanced = method("segnet").weights(labels, 2)
    frequency = torch.tensor([40 / 56, 16 / 56])
    wanted = (frequency.mean() / frequency)[labels.clamp(max=1)] * (labels != 255)
    torch.testing.assert_close(balanced, wanted)
    bordered = method(border_weight=10.0).weights(labels, 2)
    between = 10 * math.exp(-((1.0 + 2.0) ** 2) / 50)  # one pixel from one, two from the other
    assert float(bordered[0, 4, 3]) == pytest.approx(1 + between, rel=1e-5)
    assert (bordered[0, 0] == 0).all()


def test_labels_are_way_numbers() -> None:
    masks = torch.tensor([[[[0, 1], [255, 1]]], [[[1, 0], [255, 1]]]], dtype=torch.uint8)
    assert way_labels(masks).tolist() == [[[0, 1], [255, 1]], [[2, 0], [255, 2]]]


def test_deformed_supports_keep_labels_and_weights_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[Supports] = []
    monkeypatch.setattr(finetune, "fit", lambda *given: steps.extend(map(given[4], (0, 1, 0))))
    image, mask = scene([(4, 4)])
    mask[20:] = 255
    made = method("segnet", elastic=3.0, level="c1")
    answer(made, (image, mask), image)
    first, second, again = steps
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.maps[0], again.maps[0])
    assert not torch.equal(first.labels, second.labels)
    assert set(first.labels.unique().tolist()) == {0, 1, 255}
    assert torch.equal(first.weights == 0, first.labels == 255)
    assert len(first.weights[first.labels == 1].unique()) == 1


def test_there_is_nothing_to_train() -> None:
    support, masks, query = episodes(1, 1, 1)
    made = method()
    with pytest.raises(FssBenchError, match=r"learns nothing.*evaluate finetune") as refusal:
        made.loss(support, masks, query, masks[:, 0, 0])
    assert "\n" not in str(refusal.value)


def test_the_card_tells_what_one_way_fits() -> None:
    for name, count in CARD["backbones"].items():
        made = create_method("finetune", create_backbone(name, weights="none"))
        assert isinstance(made, FineTune)
        assert sum(p.numel() for p in made.new_head(2).parameters()) == count
        assert made.input_size == CARD["input_size"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": -1}, "option steps=-1: it must be 0 or more"),
        ({"lr": 0.0}, "option lr=0: it must be above 0"),
        ({"lr": math.nan}, "option lr=nan"),
        ({"scale": -2.0}, "option scale=-2"),
        ({"entropy": -0.5}, "option entropy=-0.5"),
        ({"border_weight": math.inf}, "option border_weight=inf"),
        ({"elastic": -1.0}, "option elastic=-1"),
        ({"head": "unet", "scale": 5.0}, "scale=5 is of head=cosine, not unet"),
        ({"level": "c1+c2"}, "head=cosine takes one level, got 2"),
        ({"head": "deeplabv3plus", "level": "c2"}, "takes two levels"),
        ({"head": "deeplabv3plus", "level": "c1+c4"}, "got strides 2, 16"),
        ({"head": "segnet", "level": "c1+c3"}, "strides double, got 2, 8"),
        ({"steps": 1.5}, "option steps=1.5: it must be of type int"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(FssBenchError, match=told.replace("+", r"\+")) as refusal:
        method(**options)
    assert "\n" not in str(refusal.value)


def test_an_unknown_head_or_level_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'segnet'"):
        method("segnett")
    with pytest.raises(UnknownNameError, match="level of backbone pixels"):
        method(level="c9")


def test_too_small_an_image_is_refused() -> None:
    made = method("unet", PixelBackbone((4, 16)), **QUICK)
    with pytest.raises(FssBenchError, match="use a larger --option input_size"):
        made(*(given[..., :16, :16] for given in episodes(1, 1, 1)))


def test_evaluation_gives_the_same_whatever_the_batch() -> None:
    dataset = datasets.get("shapes")()
    made = method("segnet", elastic=2.0, **QUICK)
    tables = [
        evaluate(made, dataset, episodes=3, compute=Compute(batch_size=batch, workers=0)).episodes
        for batch in (1, 3)
    ]
    assert tables[0].drop(columns="ms").equals(tables[1].drop(columns="ms"))
