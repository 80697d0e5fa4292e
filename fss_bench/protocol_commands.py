"""`fss-bench protocols`: commands about evaluation protocols."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fss_bench.flags import terminal_width
from fss_bench.named_commands import NamedCommands

protocols = typer.Typer(
    cls=NamedCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Compare evaluation protocols.",
)

PROTOCOL = "A name of `list protocols`, that with rules (`hsnet+iou_at=original`), or a TOML file"


@protocols.command("diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=f"{PROTOCOL}.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other, likewise.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """Compare two protocols rule by rule, with the size of each effect where it was measured."""
    from fss_bench.protocols import get_protocol
    from fss_bench.report.protocol_diff import diff_json, diff_lines

    one, other = get_protocol(a), get_protocol(b)
    if as_json:
        typer.echo(json.dumps(diff_json(one, other)))
        return
    for line in diff_lines(one, other, terminal_width()):
        typer.echo(line)


@protocols.command("sensitivity")
def sensitivity(
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    base: Annotated[str, typer.Option(help="Protocol whose rules are changed.")] = "standard",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write: .svg, .png, .csv or .md."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """Show what each rule changed alone does to mIoU, among the runs that are there."""
    from fss_bench.report.sensitivity import (
        check_output,
        effects_json,
        print_effects,
        write_effects,
    )
    from fss_bench.results import ResultStore
    from fss_bench.sensitivity import effects_in

    def left_out(text: str) -> None:
        typer.echo(f"note: left out: {text}", err=True)

    if output is not None:
        check_output(output)
    effects = effects_in(ResultStore(results), base, left_out)
    if output is not None:
        write_effects(effects, output)
    if as_json:
        typer.echo(json.dumps({"base": base, "effects": effects_json(effects)}))
    elif output is not None:
        typer.echo(str(output))
    else:
        print_effects(effects)
