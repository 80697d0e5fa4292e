"""`fss-bench data verify` and `data convert-sbd`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss_bench.errors import FssBenchError
from fss_bench.flags import (
    DataRoot,
    Dataset,
    DatasetOption,
    Json,
    Plugin,
    Quiet,
    check_names,
    load_plugins,
    open_dataset,
)

if TYPE_CHECKING:
    from fss_bench.verification import Problem

MOST_NOTES = 20
"""Of what is only worth telling, so many lines; a tree of links would fill the screen."""


def verify(
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check lists, images and masks; lists all problems, and exits with 2 if there are any."""
    from fss_bench.report.progress import counting_progress
    from fss_bench.verification import verify as verified

    load_plugins(plugin)
    check_names(dataset=dataset)
    source = open_dataset(dataset, data_root, dataset_option)
    with counting_progress("verifying", quiet) as progress:
        found = list(verified(source, progress))
    wrong = [problem for problem in found if problem.grave]
    notes = [problem for problem in found if not problem.grave]
    where = str(data_root or dataset)
    if as_json:
        listed = [asdict(problem) for problem in found]
        answer = {"data": where, "problems": len(wrong), "notes": len(notes), "found": listed}
        typer.echo(json.dumps(answer))
    else:
        _print(wrong, notes)
    if wrong:
        raise FssBenchError(f"{len(wrong)} problems in {where}: mend them as listed")
    if not as_json:
        typer.echo(f"{where}: no problems" + (f", {len(notes)} notes" if notes else ""))


def _print(wrong: "Sequence[Problem]", notes: "Sequence[Problem]") -> None:
    for problem in wrong:
        typer.echo(f"{_place(problem)}: {problem.text}")
    for note in notes[:MOST_NOTES]:
        typer.echo(f"note: {_place(note)}: {note.text}")
    if len(notes) > MOST_NOTES:
        typer.echo(f"note: {len(notes) - MOST_NOTES} more notes: --json has them all")


def _place(problem: "Problem") -> str:
    return f"{problem.split} {problem.image}".strip()


def convert_sbd(
    sbd: Annotated[Path, typer.Argument(help="SBD's folder `benchmark_RELEASE/dataset`.")],
    voc: Annotated[Path, typer.Argument(help="The folder `VOC2012`.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to make.", show_default="in VOC"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make SegmentationClassAug: SBD's label maps as PNGs, and VOC's own where both have one."""
    from fss_bench.report.progress import counting_progress
    from fss_bench.sbd import convert

    folder = output or voc / "SegmentationClassAug"
    with counting_progress("converting", quiet) as progress:
        count = convert(sbd, voc, folder, progress)
    typer.echo(f"{folder}: {count} label maps")
