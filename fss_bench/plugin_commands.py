"""`fss-bench new-method` and `check-method`: for people who bring a method of their own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fss_bench.completion import backbone_names
from fss_bench.errors import FssBenchError
from fss_bench.flags import (
    Json,
    MethodName,
    MethodOption,
    Plugin,
    check_names,
    load_plugins,
    terminal_width,
)
from fss_bench.options import parse_options


def new_method(
    name: Annotated[
        str, typer.Argument(help="What it will be called: lower case, words joined by `_`.")
    ],
) -> None:
    """Write an installable package with a working method into a new folder of that name."""
    from fss_bench.scaffold import write_package

    for file in write_package(name, Path()):
        typer.echo(str(file))
    typer.echo(f"next: pip install -e {name} && fss-bench check-method {name}")


def check_method(
    method: MethodName,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Registered, or any timm model, with random weights; by default a tiny ResNet.",
            autocompletion=backbone_names,
        ),
    ] = None,
    option: MethodOption = [],  # noqa: B006
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Check that a method keeps the contract; a line a check, and exit status 2 if one fails."""
    load_plugins(plugin)
    check_names(method=method)
    options = parse_options(option)

    from fss_bench.contract import checks, results
    from fss_bench.contract.subject import TINY
    from fss_bench.report.contract import contract_json, result_line, tally

    backbone = backbone or TINY
    found = []
    for result in results(checks(method, backbone, **options)):
        found.append(result)
        if not as_json:
            typer.echo(result_line(result, terminal_width()))
    failed = [result.check for result in found if result.outcome == "failed"]
    if as_json:
        facts = {"method": method, "backbone": backbone, "options": options}
        typer.echo(json.dumps({**facts, "passed": not failed, "checks": [*contract_json(found)]}))
    else:
        typer.echo(f"{method} on {backbone}: {tally(found)}")
    if failed:
        raise FssBenchError(
            f"method {method!r} breaks the contract ({', '.join(failed)}): mend it as said above"
        )
