from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
from parity import (
    check_gradients,
    check_prediction,
    check_statistics,
    close,
    golden_files,
    gradients,
    read_golden,
    read_keys,
    recipe_state,
    state_sha256,
)

from fss_bench import create_backbone, create_method
from fss_bench.checkpoint import layouts, read_checkpoint
from fss_bench.checkpoint_loading import create_from_checkpoint
from fss_bench.errors import UnknownNameError
from fss_bench.methods.sgone import SGOne, union
from fss_bench.ops import resize_logits

FILES = [p.stem for p in golden_files(SHARED / "golden", "sgone_*")]


def published(shared: Path) -> SGOne:
    state = recipe_state(read_keys(shared / "golden/keys/sgone_vgg16_keys.txt"), {})
    method = create_from_checkpoint(read_checkpoint(state))
    assert isinstance(method, SGOne)
    return method


@pytest.fixture
def small() -> SGOne:
    method = create_method("sgone", create_backbone("tf_efficientnet_lite0", weights="none"))
    assert isinstance(method, SGOne)
    return method


@pytest.mark.parametrize("name", FILES)
def test_equals_the_published_network(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    method, wanted = published(shared), golden.tensors
    state = recipe_state(read_keys(shared / "golden/keys/sgone_vgg16_keys.txt"), {})
    assert state_sha256(state) == golden.facts["state_sha256"]
    with torch.no_grad():
        query = method.encode(golden.image("query_img_u8")[None])
        vectors = torch.cat(
            [method.vectors(method.encode(i)["guidance"], m) for i, m in golden.supports()]
        )
        vector = vectors.mean(dim=0, keepdim=True)
        output = method.answer(query, vector)
    size = (wanted["query_mask"].shape[-2], wanted["query_mask"].shape[-1])
    prefix = "avg_" if "avg_outB_side" in wanted else ""
    pairs = {
        "vec_pos": vector[..., None, None],
        "similarity": method.similarity(query, vector),
        "outB_side": output,
        "prob": resize_logits(output, size).softmax(dim=1)[0],
    }
    compared = [key for key in pairs if prefix + key in wanted]
    assert "outB_side" in compared
    for key in compared:
        close(pairs[key], wanted[prefix + key], 5e-5, key)
    for key in {"avg_vec", "avg_vector"} & set(wanted):
        close(vector.flatten(), wanted[key].flatten(), 5e-5, key)
    if prefix + "pred" in wanted:
        label = wanted[prefix + "pred"].reshape(1, *size)
        check_prediction(resize_logits(output, size), label, 5e-5)
    answers = [method.answer(query, v[None]).detach() for v in vectors]
    if "max_outB_side_list" in wanted:
        every = torch.cat(answers)
        close(every, wanted["max_outB_side_list"].reshape(every.shape), 5e-5, "max_outB_side_list")
    if "max_pred" in wanted:
        joined = union([resize_logits(answer, size) for answer in answers])
        check_prediction(joined, wanted["max_pred"].reshape(1, *size), 5e-5)
    if "outB" in golden.facts:
        check_statistics(query["guidance"], golden.facts["outB"], 5e-5, "outB")


@pytest.mark.slow
@pytest.mark.parametrize("name", [f for f in FILES if "1shot" in f])
def test_loss_and_gradients_equal_the_published_ones(shared: Path, name: str) -> None:
    golden = read_golden(shared / f"golden/{name}.safetensors")
    method = published(shared)
    image, mask = golden.supports()[0]
    terms = method.loss_terms(
        image[None, None],
        mask[None, None],
        golden.image("query_img_u8")[None],
        golden.tensors["query_mask"][None],
    )
    loss = terms["query"]
    close(loss, golden.tensors["loss"], 1e-5)
    found = gradients(method, loss, layouts()["sgone"].published)
    check_gradients(found, golden.facts["grad_l2"], rtol=1e-4, floor=1e-6)


def test_every_tensor_of_a_published_file_is_loaded(shared: Path) -> None:
    names = read_keys(shared / "golden/keys/sgone_vgg16_keys.txt")
    assert {layouts()["sgone"].rename(n) for n in names} == set(published(shared).state_dict())


def test_the_vector_is_the_mean_of_upsampled_features_under_the_mask(small: SGOne) -> None:
    generator = torch.Generator().manual_seed(0)
    guidance = torch.rand(1, 512, 5, 7, generator=generator)
    mask = torch.randint(0, 2, (1, 33, 40), generator=generator)
    large = F.interpolate(guidance, (33, 40), mode="bilinear")
    slow = (large * mask[:, None]).sum(dim=(2, 3)) / mask.sum()
    close(small.vectors(guidance, mask), slow, 1e-5)
    small_mask = F.interpolate(mask[:, None].float(), (5, 7), mode="bilinear")
    low = (guidance * small_mask).sum(dim=(2, 3)) / small_mask.sum()
    assert (low - slow).abs().max() > 1e-3  # masking at feature resolution is another thing


def test_an_empty_mask_gives_a_zero_vector_and_finite_logits(small: SGOne) -> None:
    image, mask = torch.rand(1, 1, 1, 3, 64, 64), torch.zeros(1, 1, 1, 64, 64)
    assert small(image, mask, image[:, 0, 0]).isfinite().all()
    features = small.encode(image[0, 0])
    assert small.vectors(features["guidance"], mask[0, 0]).eq(0).all()


def test_union_is_foreground_where_any_shot_is() -> None:
    one = torch.tensor([[[[0.0, 0.0, 2.0, 0.0]], [[1.0, -1.0, 0.0, -1.0]]]])
    two = torch.tensor([[[[0.0, 0.0, 0.0, 1.0]], [[-1.0, 3.0, 1.0, 0.5]]]])
    both = union([one, two]).argmax(dim=1)
    assert torch.equal(both, one.argmax(dim=1) | two.argmax(dim=1))
    assert both.tolist() == [[[1, 1, 1, 0]]]


def test_shots_by_union_cover_every_shots_own_answer(small: SGOne) -> None:
    small.kshot = "or"
    generator = torch.Generator().manual_seed(1)
    support = torch.rand(1, 1, 3, 3, 64, 64, generator=generator)
    masks = torch.randint(0, 2, (1, 1, 3, 64, 64), generator=generator)
    query = torch.rand(1, 3, 64, 64, generator=generator)
    together = small(support, masks, query).argmax(dim=1)
    each = [
        resize_logits(small(support[:, :, k : k + 1], masks[:, :, k : k + 1], query), (64, 64))
        for k in range(3)
    ]
    wanted = torch.stack([e.argmax(dim=1) for e in each]).amax(dim=0)
    assert torch.equal(together, wanted)


def test_the_border_ring_equals_the_last_bias(small: SGOne) -> None:
    image, mask = torch.rand(1, 1, 1, 3, 64, 64), torch.ones(1, 1, 1, 64, 64)
    logits = small(image, mask, image[:, 0, 0])
    assert logits.shape[-2:] == (10, 10)
    assert torch.equal(logits[0, :, 0, :], small.exit.bias[:, None].expand(2, 10))


def test_void_pixels_of_the_query_are_foreground_in_training(small: SGOne) -> None:
    image, mask = torch.rand(1, 1, 1, 3, 64, 64), torch.ones(1, 1, 1, 64, 64)
    ones = torch.ones(1, 64, 64, dtype=torch.uint8)
    void = ones.clone()
    void[:, :10] = 255
    first = small.loss(image, mask, image[:, 0, 0], ones)
    assert torch.equal(first, small.loss(image, mask, image[:, 0, 0], void))


def test_swapped_channels_are_another_input(small: SGOne) -> None:
    image = torch.rand(1, 3, 64, 64)
    rgb = small.encode(image)
    small.channel_order = "bgr"
    bgr = small.encode(image)
    assert not torch.allclose(rgb["guidance"], bgr["guidance"])
    assert torch.equal(small.encode(image.flip(1))["guidance"], rgb["guidance"])


@pytest.mark.parametrize("option", [{"kshot": "men"}, {"channel_order": "brg"}])
def test_a_wrong_choice_is_named(option: dict[str, str]) -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        create_method("sgone", create_backbone("tf_efficientnet_lite0", weights="none"), **option)
