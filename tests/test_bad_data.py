"""Bad data of every kind ends in a right reading or in one line: the table of `bad_data`."""

from pathlib import Path

import pytest
from bad_data import READ, Attempt, Case, WrongReadingError, all_cases, run_command
from bad_pictures import BAD_PICTURES
from bad_trees import MAKERS, PHOTOGRAPHS

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_data_is_read_rightly_or_refused_in_a_line(case: Case) -> None:
    assert case.run(commands=False) == case.expected


@pytest.mark.parametrize("case", CASES[::12], ids=lambda case: case.name)
def test_commands_say_the_same(case: Case) -> None:
    assert case.run() == case.expected


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_commands_say_the_same(case: Case) -> None:
    assert case.run() == case.expected


def test_cases_have_different_names() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert len(names) > 200


def raising(error: BaseException) -> Attempt:
    def read() -> None:
        raise error

    return Attempt(read)


@pytest.mark.parametrize(
    ("attempt", "found"),
    [
        (Attempt(lambda: None), READ),
        (raising(WrongReadingError("wrapped")), "wrong: wrapped"),
        (raising(IndexError("oops")), "IndexError: oops"),
        (Attempt(lambda: None, ("list", "nothing")), "refused: error"),
        (Attempt(lambda: None, verify=("--dataset", "nowhere")), "data verify, 2"),
    ],
)
def test_a_case_tells_what_happened(attempt: Attempt, found: str) -> None:
    assert Case("", "", READ, lambda root: attempt).run().startswith(found)
    assert Case("", "", "words", lambda root: attempt).run() != "refused"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["truncated", "of 100 megapixels", "of 16 bits (PNG)", "turned by EXIF"]
)
@pytest.mark.parametrize("kind", ["pascal5i", "folder"])
def test_evaluate_meets_bad_photographs(tmp_path: Path, kind: str, fault: str) -> None:
    promised, make, _ = BAD_PICTURES[fault]
    root = MAKERS[kind](tmp_path / "tree")
    (root / PHOTOGRAPHS[kind]).write_bytes(make()[0])
    status, _, errors = run_command(
        *("evaluate", "panet", "--dataset", kind, "--data-root", root, "--fold", 0),
        *("--rule", "min_pixels=1", "--rule", "short_classes=skip", "--episodes", 12),
        *("--backbone", "tf_efficientnet_lite0", "--weights", "none", "--option", "input_size=32"),
        *("--output", tmp_path / "results", "--workers", 0, "--quiet"),
    )
    assert status == (0 if promised == READ else 2), errors
    if promised != READ:
        assert promised in errors
        assert len([line for line in errors.splitlines() if not line.startswith("note:")]) == 1
        assert not list((tmp_path / "results").rglob("run.json"))
