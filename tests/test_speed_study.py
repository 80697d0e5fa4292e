"""The published comparison of speed: its page says what its tables say, and its loop is ours."""

from types import ModuleType
from typing import Any

import pytest
import torch
from studies import assert_the_page_is_made_from_the_table, load_study

from fss_bench import create_backbone, create_method

REACH = {
    "panet-1": 6.0,
    "panet-5": 20.0,
    "sgone-5": 3.0,
    "dcama-1": 2.0,
    "dcama-5": 2.2,
    "hsnet-5": 1.4,
    "msanet-5": 1.7,
}
"""What was promised of the ratio."""


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_study("speed")


@pytest.fixture(scope="module")
def rows(study: ModuleType) -> list[dict[str, str]]:
    found: list[dict[str, str]] = load_study("tables").read_rows(study.TABLE)
    return found


def test_the_page_is_made_from_the_tables(study: ModuleType, rows: list[dict[str, str]]) -> None:
    assert_the_page_is_made_from_the_table(study, rows)


def test_every_case_was_measured_on_one_machine(
    study: ModuleType, rows: list[dict[str, str]]
) -> None:
    assert [f"{r['method']}-{r['shots']}" for r in rows] == [case.name for case in study.CASES]
    assert len({(r["device"], r["threads"], r["torch"]) for r in rows}) == 1
    for row, case in zip(rows, study.CASES, strict=True):
        assert int(row["our_episodes"]) >= case.episodes
        assert int(row["images"]) >= 340


def test_ratios_are_of_the_seconds_and_reach_what_was_promised(rows: list[dict[str, str]]) -> None:
    for row in rows:
        name = f"{row['method']}-{row['shots']}"
        ratio = float(row["ratio"])
        seconds = float(row["loop_s"]) / float(row["ours_s"])
        assert ratio == pytest.approx(seconds, rel=0.02), name
        assert float(row["ratio_low"]) <= ratio <= float(row["ratio_high"]), name
        assert ratio >= REACH.get(name, 1.0), name


def test_loop_and_evaluation_gave_the_same_answers(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert float(row["pixels_that_differ"]) <= 50, row["method"]
        vote = row["method"] == "hsnet" and row["shots"] == "5"
        assert vote or float(row["largest_difference"]) < 1e-5, row["method"]


def test_time_grows_with_images_and_episodes(study: ModuleType) -> None:
    rows = load_study("tables").read_rows(study.GROWTH_TABLE)
    assert [int(r["episodes"]) for r in rows] == list(study.GROWTH)
    for row in rows:
        assert row["images"] == row["encoded"]
        assert float(row["seconds"]) < 1.25 * float(row["expected"])
    assert float(rows[-1]["peak_mb"]) < 1.2 * float(rows[0]["peak_mb"])


def small_episode(shots: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(shots)
    masks = torch.zeros(shots, 96, 96)
    masks[:, 20:60, 30:80] = 1
    masks[-1, :50] = 0
    images = torch.rand(shots + 1, 3, 96, 96, generator=generator)
    return images[1:], masks, images[:1]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("name", ["panet", "sgone", "dcama", "hsnet", "msanet"])
def test_the_loop_answers_as_the_method(study: ModuleType, name: str, shots: int) -> None:
    options: dict[str, Any] = {"level": "c4"} if name == "panet" else {}
    dilated = {"output_stride": 8} if name == "msanet" else {}  # the loop's maps have one size
    backbone = create_backbone("resnet18", "none", **dilated)
    method = create_method(name, backbone, input_size=96, **options)
    study.liven(method)
    supports, masks, query = small_episode(shots)
    loop = load_study("straightforward").straightforward(method)
    with torch.no_grad():
        found = loop(supports, masks, query)
        wanted = method(supports[None, None], masks[None, None].byte(), query)
    if name == "hsnet" and shots > 1:  # votes
        assert (found.argmax(dim=1) != wanted.argmax(dim=1)).float().mean() < 1e-3
        return
    if found.shape != wanted.shape:
        wanted = torch.nn.functional.interpolate(wanted, found.shape[-2:], mode="bilinear")
    spread = found.max() - found.min()
    assert spread > 1e-2
    torch.testing.assert_close(found / spread, wanted / spread, atol=2e-5, rtol=0)
