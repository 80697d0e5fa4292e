"""`fss-bench data fetch`: the one command that brings data and weights from elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss_bench.completion import things_to_fetch
from fss_bench.flags import Json, Quiet, note

if TYPE_CHECKING:
    from fss_bench.fetching import Step, Watch


def fetch(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT…",
            help="pascal5i, coco20i, coco20i-2017, fss1000, or `weights` and names of them; "
            "`weights --dry-run` lists these.",
            autocompletion=things_to_fetch,
            show_default=False,
        ),
    ],
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Folder for it; by default VOC2012, COCO, FSS-1000 or weights.",
            show_default=False,
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            help="Address or folder that holds the files by their names.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be fetched; asks no server.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch published data or weights, check them, unpack them; goes on where it stopped."""
    from fss_bench.fetching import plan
    from fss_bench.sources import find_sources
    from fss_bench.transfer import on_mirror

    sources = find_sources(what, listing=dry_run)
    steps = plan(sources, data_root)
    places = [on_mirror(mirror, s.file.name) if mirror else s.file.url for s in steps]
    if dry_run:
        _print_plan(steps, places, as_json)
        return
    results, uses = [], []
    for source in sources:
        own = [step for step in steps if step.source is source]
        results += [_fetch(step, mirror, as_json, quiet) for step in own]
        uses.append(_finish(own[-1], quiet))
    if as_json:
        typer.echo(json.dumps({"fetched": results, "use": uses}))
        return
    for use in uses:
        typer.echo(f"use: {use}")


def _print_plan(steps: "list[Step]", places: list[str | Path], as_json: bool) -> None:
    from fss_bench.report.fetch_lines import plan_json, plan_lines

    if as_json:
        shown = [plan_json(step, place) for step, place in zip(steps, places, strict=True)]
        typer.echo(json.dumps({"plan": shown}))
        return
    for line in plan_lines(steps, places):
        typer.echo(line)


def _fetch(step: "Step", mirror: str | None, as_json: bool, quiet: bool) -> dict[str, Any]:
    from fss_bench.fetching import fetch
    from fss_bench.report.fetch_lines import fetched_json, fetched_line

    fetched = fetch(step, _watch(quiet), _say(quiet), mirror)
    if not as_json:
        typer.echo(fetched_line(step, fetched))
    return fetched_json(step, fetched)


def _finish(step: "Step", quiet: bool) -> str:
    """Make what no archive of a source holds; returns how it is used."""
    from fss_bench.fetching import finish
    from fss_bench.report.fetch_lines import usage

    finish(step.source, step.root, _watch(quiet), _say(quiet))
    return usage(step)


def _watch(quiet: bool) -> "Watch":
    from fss_bench.report.progress import transfer_progress

    return lambda label, unit: transfer_progress(label, unit, quiet)


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else note
