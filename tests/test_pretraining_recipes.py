"""Recipes, the schedule, the optimiser's groups, and what is refused before a run."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.pretraining.batches import check_batch, check_fit, largest_batch
from fss_bench.pretraining.optimisers import create_optimiser
from fss_bench.pretraining.recipes import RECIPES, VIT_RECIPES, Recipe, recipe_for
from fss_bench.pretraining.schedule import Plan, learning_rate, peak_rate

PAGE = Path(__file__).parents[1] / "docs" / "pretraining.md"
MOCO_V2 = RECIPES["moco", 2]


def test_published_numbers() -> None:
    """As the papers have them, typed here a second time."""
    v1, v2, v3 = (recipe_for("moco", v) for v in (1, 2, 3))
    vit, simclr, npid = recipe_for("moco", 3, vit=True), recipe_for("simclr"), recipe_for("npid")
    assert [r.temperature for r in (v1, v2, v3, vit, simclr, npid)] == [
        0.07,
        0.2,
        1,
        0.2,
        0.1,
        0.07,
    ]
    assert [r.lr for r in (v1, v2, v3, vit, simclr, npid)] == [0.03, 0.03, 0.6, 1.5e-4, 0.3, 0.03]
    assert [r.weight_decay for r in (v1, v2, v3, vit, simclr, npid)] == [
        1e-4,
        1e-4,
        1e-6,
        0.1,
        1e-6,
        1e-4,
    ]
    assert [r.batch_size for r in (v1, v2, v3, vit, simclr, npid)] == [256, 256, *[4096] * 3, 256]
    assert [r.optimiser for r in (v1, v3, vit, simclr, npid)] == "sgd lars adamw lars sgd".split()
    assert (v1.queue_size, v1.momentum, v1.dim) == (65536, 0.999, 128)
    assert (v2.queue_size, v2.momentum, v2.dim) == (65536, 0.999, 128)
    assert (v3.queue_size, v3.momentum, v3.dim, v3.momentum_schedule) == (0, 0.99, 256, "cosine")
    assert (npid.negatives, npid.memory_momentum, npid.dim) == (4096, 0.5, 128)
    assert [r.warmup_epochs for r in (v2, v3, vit, simclr)] == [0, 10, 40, 10]
    assert [r.crop_min for r in (v1, v2, v3, vit, simclr, npid)] == [0.2, 0.2, 0.2, 0.08, 0.08, 0.2]
    assert [r.decay for r in (v1, v3, vit, simclr)] == ["all", "matrices", "all", "matrices"]
    assert [r.lars_lr for r in (v3, simclr)] == ["outside", "inside"]


def test_versions() -> None:
    assert recipe_for("moco").version == 2
    with pytest.raises(FssBenchError, match="--version 4: moco has 1, 2, 3"):
        recipe_for("moco", 4)
    with pytest.raises(UnknownNameError, match="did you mean 'simclr'"):
        recipe_for("simclrr")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temprature": 0.1}, "unknown option of recipe moco-v2 'temprature': did you mean"),
        ({"method": "npid"}, "unknown option of recipe moco-v2 'method'"),
        ({"epochs": 1.5}, "option epochs=1.5: it must be of type int"),
        ({"epochs": 0}, "option epochs=0: it must be 1 or more"),
        ({"epochs": "many"}, "it must be of type int"),
        ({"batch_size": 1}, "option batch_size=1: it must be 2 or more"),
        ({"lr": -0.1}, "option lr=-0.1: it must be more than 0"),
        ({"lr": math.nan}, "it must be more than 0"),
        ({"temperature": 0}, "it must be more than 0"),
        ({"crop_min": 1.5}, "it must be at most 1"),
        ({"momentum": 1}, "at least 0 and less than 1"),
        ({"optimiser": "adam"}, "it must be one of sgd, lars, adamw"),
        ({"schedule": 3}, "it must be one of steps, cosine"),
        ({"warmup_epochs": 200}, "less than the 200 epochs"),
        ({"decay_at": "soon"}, "write shares of the epochs"),
        ({"schedule": "steps", "decay_at": "120,160"}, "shares between 0 and 1"),
        ({"weight_decay": -1}, "0 or more"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], text: str) -> None:
    with pytest.raises(FssBenchError, match=re.escape(text)) as caught:
        MOCO_V2.replace_options(options)
    assert "\n" not in str(caught.value)


def test_options() -> None:
    steps = {"schedule": "steps", "decay_at": "0.5,0.75"}
    changed = MOCO_V2.replace_options({"lr": 1, "queue_size": 512, **steps})
    assert (changed.lr, changed.decay_at, changed.queue_size) == (1.0, (0.5, 0.75), 512)
    assert isinstance(changed.lr, float)
    assert changed.replace_options({"decay_at": 0.5}).decay_at == (0.5,)
    assert MOCO_V2.replace_options({}) == MOCO_V2
    for recipe in (*RECIPES.values(), *VIT_RECIPES.values()):
        assert recipe.replace_options({"dim": 64}).dim == 64


@pytest.mark.parametrize(
    ("recipe", "options", "text"),
    [
        (MOCO_V2, {"decay_at": 0.5}, "moco-v2 with schedule=cosine has no decay_at: only sched"),
        (MOCO_V2, {"decay_factor": 0.5}, "only schedule=steps has it; leave it out"),
        (RECIPES["moco", 1], {"schedule_by": "step"}, "only schedule=cosine has it"),
        (RECIPES["moco", 1], {"hidden": 64}, "moco-v1 has no hidden: only moco-v2, moco-v3, sim"),
        (RECIPES["npid", 1], {"hidden": 64}, "npid-v1 has no hidden"),
        (MOCO_V2, {"lars_trust": 0.1}, "moco-v2 with optimiser=sgd has no lars_trust: only opti"),
        (MOCO_V2, {"lars_lr": "inside"}, "only optimiser=lars has it"),
        (VIT_RECIPES["moco", 3], {"sgd_momentum": 0.5}, "only optimiser=sgd, optimiser=lars has"),
        (RECIPES["simclr", 1], {"momentum": 0.5}, "only moco-v1, moco-v2, moco-v3 has it"),
    ],
)
def test_numbers_without_effect_are_refused(
    recipe: Recipe, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(FssBenchError, match=re.escape(text)):
        recipe.replace_options(options)


def test_numbers_of_what_is_chosen_too_are_taken() -> None:
    """Whether a number has an effect is a question to the recipe as changed."""
    lars = MOCO_V2.replace_options({"lars_trust": 0.1, "optimiser": "lars"})
    assert (lars.optimiser, lars.lars_trust) == ("lars", 0.1)
    with pytest.raises(FssBenchError, match="has no sgd_momentum"):
        MOCO_V2.replace_options({"sgd_momentum": 0.5, "optimiser": "adamw"})


def test_groups_are_checked_before_any_image() -> None:
    recipe = MOCO_V2.replace_options({"batch_size": 6, "queue_size": 12})
    with pytest.raises(FssBenchError, match="cannot be split into 2, 4 or 8 equal groups"):
        check_batch(recipe, 1, batch_norm=True)
    check_batch(recipe, 1, batch_norm=False)
    check_batch(RECIPES["npid", 1].replace_options({"batch_size": 6}), 1, batch_norm=True)
    with pytest.raises(FssBenchError, match="bn_groups=4: 6 images"):
        check_batch(recipe.replace_options({"bn_groups": 4}), 1, batch_norm=True)


def test_rates_of_steps() -> None:
    recipe = RECIPES["moco", 1]
    rates = [learning_rate(recipe, 0.03, e * 5 + 4, 5) for e in (0, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003])


def test_rates_of_a_cosine_by_epoch() -> None:
    rates = [learning_rate(MOCO_V2, 0.03, step, 5) for step in range(5 * 200)]
    for epoch in range(200):
        expected = 0.03 * 0.5 * (1 + math.cos(math.pi * epoch / 200))
        assert rates[5 * epoch : 5 * epoch + 5] == [pytest.approx(expected)] * 5


def test_rates_with_warm_up() -> None:
    recipe = RECIPES["simclr", 1]  # 100 epochs, 10 of warm-up
    rates = [learning_rate(recipe, 4.8, step, 4) for step in range(400)]
    assert rates[:40] == pytest.approx([4.8 * step / 40 for step in range(40)])
    expected = [4.8 * 0.5 * (1 + math.cos(math.pi * step / 360)) for step in range(360)]
    assert rates[40:] == pytest.approx(expected)


def test_linear_rule() -> None:
    assert peak_rate(MOCO_V2, 64, 2) == pytest.approx(0.015)
    assert peak_rate(RECIPES["simclr", 1], 4096, 1) == pytest.approx(4.8)


def test_an_epoch_takes_each_image_once() -> None:
    plan = Plan(images=23, batch_size=4, accumulate=2, epochs=3, seed=0)
    assert (plan.steps_per_epoch, plan.steps) == (2, 6)
    batches = list(plan.batches(0))
    assert [len(batch) for batch in batches] == [4] * 12
    for epoch in range(3):
        taken = batches[4 * epoch : 4 * epoch + 4]
        assert {e for batch in taken for e, _ in batch} == {epoch}
        assert len({i for batch in taken for _, i in batch}) == 16
        assert sorted(plan.order(epoch)) == list(range(23))
    assert plan.order(0) != plan.order(1)
    assert plan.order(0) != Plan(23, 4, 2, 3, seed=1).order(0)


def test_batches_go_on_from_any_step_and_are_shared() -> None:
    plan = Plan(images=23, batch_size=4, accumulate=2, epochs=3, seed=0)
    whole = list(plan.batches(0))
    for step in range(plan.steps):
        assert list(plan.batches(step)) == whole[2 * step :]
        epoch = step // 2
        assert [[(epoch, i) for i in f] for f in plan.forwards(step)] == whole[2 * step :][:2]
    halves = zip(plan.batches(1, 0, 2), plan.batches(1, 1, 2), strict=True)
    assert [one + other for one, other in halves] == whole[2:]


def groups(recipe: Recipe) -> dict[float, set[int]]:
    """Weight decay -> numbers of dimensions of what decays so."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    module[2].weight.requires_grad_(False)
    optimiser = create_optimiser(recipe, module)
    found = {g["weight_decay"]: {p.ndim for p in g["params"]} for g in optimiser.param_groups}
    assert sum(len(g["params"]) for g in optimiser.param_groups) == 5
    return found


def test_what_decays() -> None:
    assert groups(RECIPES["simclr", 1]) == {1e-6: {4}, 0.0: {1}}
    assert groups(RECIPES["moco", 3]) == {1e-6: {4}, 0.0: {1}}
    for recipe, decay in ((MOCO_V2, 1e-4), (VIT_RECIPES["moco", 3], 0.1)):
        optimiser = create_optimiser(recipe, nn.BatchNorm2d(4))
        assert {group["weight_decay"] for group in optimiser.param_groups} == {decay}


def test_optimisers_are_those_of_the_recipe() -> None:
    module = nn.Linear(2, 2)
    sgd = create_optimiser(MOCO_V2, module)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0]["momentum"] == 0.9
    assert isinstance(create_optimiser(VIT_RECIPES["moco", 3], module), torch.optim.AdamW)
    inside = [create_optimiser(RECIPES[k], module) for k in (("moco", 3), ("simclr", 1))]
    assert [lars.param_groups[0]["lr_inside"] for lars in inside] == [False, True]
    assert [lars.param_groups[0]["trust"] for lars in inside] == [0.001, 0.001]


@pytest.mark.parametrize(
    ("options", "images", "accumulate", "ranks", "text"),
    [
        ({"batch_size": 64}, 100, 2, 1, "fill one step of 64 x 2 = 128: use --batch-size 32"),
        ({"batch_size": 6}, 100, 1, 4, "shared by 4 processes: use --batch-size 8"),
        ({"batch_size": 4}, 100, 1, 4, "a batch of 4 images cannot be shared by 4 processes"),
        ({"batch_size": 2}, 1, 1, 1, "1 usable images do not fill one step of 2 x 1 = 2: give 2"),
        ({"batch_size": 64}, 1000, 1, 1, "65536 keys is more than the 1000 usable images: use"),
        (
            {"batch_size": 48, "queue_size": 100},
            1000,
            1,
            1,
            "100 keys is no multiple of the batch of 48: use --option queue_size=96",
        ),
        ({"batch_size": 48, "queue_size": 40}, 1000, 1, 1, "use --option queue_size=48"),
    ],
)
def test_images_that_do_not_suffice(
    options: dict[str, Any], images: int, accumulate: int, ranks: int, text: str
) -> None:
    recipe = MOCO_V2.replace_options(options)
    with pytest.raises(FssBenchError, match=re.escape(text)) as caught:
        check(recipe, images, accumulate, ranks)
    cure = re.search(r"use --(?:option )?([a-z_-]+)[ =](\d+)", str(caught.value))
    if cure is not None:  # what is proposed must be accepted, perhaps with a fitting queue
        name, value = cure[1].replace("-", "_"), int(cure[2])
        mended = recipe.replace_options({name: value})
        check(mended.replace_options({"queue_size": mended.batch_size}), images, accumulate, ranks)
        if name == "queue_size":
            check(mended, images, accumulate, ranks)


def check(recipe: Recipe, images: int, accumulate: int, ranks: int) -> None:
    """In the order of a run, whose images come between the two."""
    check_batch(recipe, ranks, batch_norm=False)
    check_fit(recipe, images, accumulate, ranks)


def test_largest_batch() -> None:
    assert [largest_batch(n, 1) for n in (0, 1, 2, 3, 64, 100)] == [0, 1, 2, 2, 64, 64]
    assert [largest_batch(n, 3) for n in (2, 3, 11, 12)] == [0, 3, 6, 12]


def test_recipes_need_no_torch() -> None:
    code = "import sys, fss_bench.pretraining.recipes, fss_bench.pretrain_command as c; " \
        "sys.exit('torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def table() -> dict[str, list[str]]:
    """Rows of the page's first table: field -> values."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    split = {field: [cell.strip() for cell in cells.split("|")] for field, cells in rows}
    return {field: cells for field, cells in split.items() if len(cells) == 6}


def test_the_page_shows_the_recipes() -> None:
    columns = [RECIPES["moco", 1], MOCO_V2, RECIPES["moco", 3], VIT_RECIPES["moco", 3]]
    columns += [RECIPES["simclr", 1], RECIPES["npid", 1]]
    rows = table()
    assert set(rows) == set(columns[0].record) - {"method", "version"}
    for field, cells in rows.items():
        shown = [_shown(getattr(recipe, field)) for recipe in columns]
        assert cells == shown, field


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{v:g}" for v in value) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
