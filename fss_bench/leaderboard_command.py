"""`fss-bench leaderboard`: runs to tables, files and figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.flags import check_names, note, writing

if TYPE_CHECKING:
    from fss_bench.leaderboard import Row
    from fss_bench.published import PublishedRow

FORMATS = ("table", "csv", "markdown", "latex", "json", "html")
PLOTS = ("cost", "classes", "sensitivity")


def leaderboard(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "table",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            help="CSV of published results to show too, in tables of their own.",
            show_default=False,
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="One table of all runs, or say why there is none.")
    ] = False,
    pictures: Annotated[
        list[str],
        typer.Option(
            help="Data for pictures in HTML, NAME=DIR; repeatable. `shapes` needs none.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    no_pictures: Annotated[
        list[str],
        typer.Option(help="A dataset without pictures in HTML; repeatable.", show_default=False),
    ] = [],  # noqa: B006
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw a figure instead: a .svg or .png file.", show_default=False),
    ] = None,
    plot: Annotated[str, typer.Option(help=f"What it shows: {', '.join(PLOTS)}.")] = "cost",
    cost: Annotated[
        str, typer.Option(help="Cost in the figure: ms_per_episode, gflops or params_m.")
    ] = "ms_per_episode",
    run: Annotated[
        list[str],
        typer.Option(
            help="Two runs (folder or id) whose classes the figure compares.", show_default=False
        ),
    ] = [],  # noqa: B006
    base: Annotated[
        str, typer.Option(help="Protocol whose rules the figure of sensitivity changes.")
    ] = "standard",
) -> None:
    """Rank the runs of a results folder; rows that do not compare are never ranked together.

    Rows that cannot be told apart on their episodes share a rank.
    """
    from fss_bench.files import write_whole
    from fss_bench.published import load_published
    from fss_bench.report.console import board_rows, check_together

    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    if figure is not None:
        _draw(figure, results, plot, cost, run, base)
        return
    reported = [] if published is None else load_published(published)
    rows = board_rows(results, note)
    if not rows:
        text = f"no runs in {results}: run `fss-bench evaluate` first, or pass --results"
        if not reported:
            raise FssBenchError(text)
        note(text)
    if together:
        check_together(rows)
    if output is None and form == "table":
        from fss_bench.report.console import print_tables

        print_tables(rows, published=reported)
        return
    if form == "html":
        content = _page(rows, reported, pictures, no_pictures)
    else:
        content = _content(form, rows, reported)
    if output is None:
        typer.echo(content, nl=False)
        return
    with writing(output):
        write_whole(output, content.encode())
    typer.echo(str(output))


def _content(form: str, rows: "list[Row]", reported: "list[PublishedRow]") -> str:
    from fss_bench.report.console import tables_as_text
    from fss_bench.report.grid import grids
    from fss_bench.report.json_rows import to_json
    from fss_bench.report.latex import to_latex
    from fss_bench.report.markdown import to_markdown
    from fss_bench.report.table import to_csv

    if form == "csv":
        return to_csv([*rows, *reported])
    if form == "json":
        return to_json(rows, reported)
    if form == "table":
        return tables_as_text(rows, reported)
    return (to_markdown if form == "markdown" else to_latex)(grids(rows, reported))


def _page(
    rows: "list[Row]", reported: "list[PublishedRow]", sources: list[str], left_out: list[str]
) -> str:
    from fss_bench.dataset import create_dataset
    from fss_bench.report.page import to_html
    from fss_bench.report.page.pictures import EpisodePictures

    roots: dict[str, str | None] = {"shapes": None}
    for source in sources:
        name, equals, root = source.partition("=")
        if not (name and equals and root):
            raise FssBenchError(f"--pictures {source!r}: write NAME=DIR, as pascal5i=VOC2012")
        roots[name] = root
    for name in (*roots, *left_out):
        check_names(dataset=name)
    kept = {name: root for name, root in roots.items() if name not in left_out}
    found = {name: create_dataset(name, root) for name, root in kept.items()}
    return to_html(rows, reported, EpisodePictures(found, note))


def _draw(file: Path, results: Path, plot: str, cost: str, names: list[str], base: str) -> None:
    from fss_bench.comparison import find_run
    from fss_bench.report.console import board_rows
    from fss_bench.report.figures import check_figure, class_figure, cost_figure, write_figure
    from fss_bench.report.sensitivity_figure import sensitivity_figure
    from fss_bench.results import ResultStore
    from fss_bench.sensitivity import effects_in

    if plot not in PLOTS:
        raise UnknownNameError("plot", plot, PLOTS)
    if names and plot != "classes":
        raise FssBenchError(f"--run {names[0]} is for --plot classes, not {plot}: leave it out")
    check_figure(file)
    if plot == "cost":
        made = cost_figure(board_rows(results, note), cost)
    elif plot == "classes":
        made = class_figure([find_run(name, results) for name in names])
    else:
        made = sensitivity_figure(effects_in(ResultStore(results), base, note))
    write_figure(made, file)
    typer.echo(str(file))
