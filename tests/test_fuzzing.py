"""A few of the damaged files of the recorded campaign (docs/reliability.md), and its findings."""

from pathlib import Path

import pytest
from fuzzing import DAMAGES, Target, targets

CASES = 150
FOUND: dict[str, tuple[int, ...]] = {
    "protocol": (303, 676, 932, 1467, 2090),  # endless messages, nesting
    "published results": (46, 111),
    "COCO annotations": (1130,),  # a height of 1e999
    "record of a run": (230, 480, 1160, 1295),  # no cost; infinitely many folds
    "table of a run": (6390, 6670, 25088),  # odd integers; an error of no kind
    "journal": (10, 8212),  # a record twice
    "checkpoint": (344,),  # the end of a zip file that spans disks
}
"""Cases that once ended in something else than a reading or a line."""


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("fuzz"))}


NAMES = "photograph,label map,mask,protocol,published results,COCO annotations,hsnet list".split(
    ","
)
NAMES += "record of a run,table of a run,journal,checkpoint,safetensors".split(",")
NAMES += "zip archive,tar archive".split(",")


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(
    readers: dict[str, Target], name: str, tmp_path: Path
) -> None:
    target = readers[name]
    file = tmp_path / f"damaged{target.suffix}"
    cases = [*FOUND.get(name, ()), *range(CASES)]
    outcomes = {n: target.outcome(n, file) for n in cases}
    wrong = {n: text for n, text in outcomes.items() if text not in ("read", "refused")}
    assert wrong == {}
    assert "refused" in outcomes.values() or name == "journal"


@pytest.mark.parametrize("name", NAMES)
def test_good_files_are_read(readers: dict[str, Target], name: str, tmp_path: Path) -> None:
    target = readers[name]
    file = tmp_path / f"good{target.suffix}"
    for seed in target.seeds:
        file.write_bytes(seed)
        target.read(file)


def test_cases_are_the_same_every_time_and_all_damages_happen(readers: dict[str, Target]) -> None:
    target = readers["protocol"]
    contents = [target.content(n) for n in range(300)]
    assert contents == [target.content(n) for n in range(300)]
    assert len(set(contents)) > 250
    assert len(DAMAGES) == 7
