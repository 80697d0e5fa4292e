import pytest
import torch
from parity import close
from reduced import CASES, FOLDER, Case, answer, build, inputs
from safetensors.torch import load_file

TOLERANCE = {"msanet": 5e-5, "panet": 1e-4, "sgone": 1e-4, "dcama": 1e-4, "hsnet": 1e-4}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_reduced_golden_file(case: Case) -> None:
    wanted = load_file(FOLDER / f"{case.name}.safetensors")["logits"]
    # scores of FCN-32s heads are in the hundreds: their tolerance is relative
    atol = TOLERANCE.get(case.method, 1e-5 * float(wanted.abs().max()))
    close(answer(case), wanted, atol, case.name)
    assert wanted.std() > 100 * atol  # an answer that could be missed


def test_files_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in FOLDER.glob("*.safetensors")}
    assert len(sizes) == len(CASES)
    assert max(sizes.values()) <= 100_000


def test_a_wrong_detail_shows() -> None:
    case = CASES[0]
    wanted = load_file(FOLDER / f"{case.name}.safetensors")["logits"]
    support, masks, query = inputs(case)
    with torch.no_grad():
        shifted = build(case)(support, masks.roll(1, dims=-1), query)
    assert (shifted - wanted).abs().max() > 1e-3
