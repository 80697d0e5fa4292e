"""`fss-bench data fetch`: the one command that brings data and weights from elsewhere."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss_bench.completion import things_to_fetch
from fss_bench.flags import Json, Quiet, note

if TYPE_CHECKING:
    from fss_bench.downloading import Progress


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
    from fss_bench import fetching
    from fss_bench.report import fetch_lines
    from fss_bench.report.progress import transfer_progress
    from fss_bench.sources import find_sources
    from fss_bench.transfer import on_mirror

    sources = find_sources(what, listing=dry_run)
    steps = fetching.plan(sources, data_root)
    places = [on_mirror(mirror, s.file.name) if mirror else s.file.url for s in steps]
    if dry_run:
        if as_json:
            planned = [fetch_lines.plan_json(s, p) for s, p in zip(steps, places, strict=True)]
            typer.echo(json.dumps({"plan": planned}))
            return
        for line in fetch_lines.plan_lines(steps, places):
            typer.echo(line)
        return

    def watch(label: str, unit: str) -> "AbstractContextManager[Progress]":
        return transfer_progress(label, unit, quiet)

    def say(text: str) -> None:
        if not quiet:
            note(text)

    results, uses = [], []
    for source in sources:
        own = [step for step in steps if step.source is source]
        for step in own:
            fetched = fetching.fetch(step, watch, say, mirror)
            results.append(fetch_lines.fetched_json(step, fetched))
            if not as_json:
                typer.echo(fetch_lines.fetched_line(step, fetched))
        fetching.finish(source, own[0].root, watch, say)
        uses.append(fetch_lines.usage(own[0]))
    if as_json:
        typer.echo(json.dumps({"fetched": results, "use": uses}))
        return
    for use in uses:
        typer.echo(f"use: {use}")
