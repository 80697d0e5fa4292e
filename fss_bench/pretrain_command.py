"""`fss-bench pretrain`: self-supervised pretraining of a backbone."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError
from fss_bench.options import parse_options


def pretrain(
    method: Annotated[str, typer.Argument(help="moco, simclr or npid.")],
    images: Annotated[
        list[Path],
        typer.Option(help="Folder of images, with all below it; repeatable.", show_default=False),
    ] = [],  # noqa: B006
    version: Annotated[
        int | None,
        typer.Option(help="Of the method: moco has 1, 2 and 3; by default 2.", show_default=False),
    ] = None,
    backbone: Annotated[str, typer.Option(help="Any timm model.")] = "resnet50",
    weights: Annotated[
        str, typer.Option(help="What it starts from: none, imagenet, packaged, or a file.")
    ] = "none",
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; by default pretrained/<method>-v<version>-<backbone>.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the images; by default the paper's.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images of a forward, over all processes; by default the paper's.",
            show_default=False,
        ),
    ] = None,
    accumulate: Annotated[
        int, typer.Option(help="Forwards a step; the learning rate grows with it.")
    ] = 1,
    image_size: Annotated[
        int | None, typer.Option(help="Side of a view, px; by default 224.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that load images; by default half the cores.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    seed: Annotated[int, typer.Option(help="Another seed, other weights, order and views.")] = 0,
    knn: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a subfolder a class: kNN accuracy on it is watched.",
            show_default=False,
        ),
    ] = None,
    knn_every: Annotated[int, typer.Option(help="Epochs between its measurements.")] = 10,
    save_every: Annotated[
        int | None,
        typer.Option(help="Steps between checkpoints; by default an epoch's.", show_default=False),
    ] = None,
    option: Annotated[
        list[str],
        typer.Option(
            help="Changed number of the recipe, key=value; repeatable.", show_default=False
        ),
    ] = [],  # noqa: B006
    resume: Annotated[bool, typer.Option(help="Take up what is there, or start over.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Machine-readable result on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Pretrain a backbone on images without labels: MoCo v1 to v3, SimCLR or NPID.

    Several GPUs: torchrun --nproc-per-node N -m fss_bench pretrain …
    """
    from fss_bench.pretraining.recipes import recipe_for
    from fss_bench.telling import ToldElsewhereError, said_once

    try:
        with said_once():
            recipe_for(method, version)  # a mistyped name shows before torch is imported
            flags = {"epochs": epochs, "batch_size": batch_size, "image_size": image_size}
            options = _together(flags, parse_options(option))
            compute = Compute(device, precision, workers=_count_workers(workers))

            from fss_bench.pretraining.setup import PretrainConfig

            config = PretrainConfig(
                method,
                tuple(images),
                version,
                backbone,
                weights,
                output,
                options,
                accumulate,
                compute,
                seed,
                knn,
                knn_every,
                save_every,
                resume,
            )
        _run(config, as_json, quiet, first=os.environ.get("RANK", "0") == "0")
    except ToldElsewhereError:
        raise typer.Exit(2) from None


def _run(config: Any, as_json: bool, quiet: bool, first: bool) -> None:
    from fss_bench.pretraining.trainer import pretrain as train
    from fss_bench.report.pretraining import pretraining_watch, result_json, result_lines

    with pretraining_watch(config.folder.name, quiet or not first) as watch:
        result = train(config, watch)
    if not first:
        return
    if as_json:
        typer.echo(json.dumps(result_json(result)))
        return
    for line in result_lines(result):
        typer.echo(line)


def _count_workers(given: int | None) -> int:
    """Processes that load images, by default half the cores.

    Raises:
        FssBenchError: a number below 0.
    """
    if given is None:
        return min(8, (os.cpu_count() or 1) // 2)
    if given < 0:
        raise FssBenchError(f"--workers {given}: it must be 0 or more")
    return given


def _together(flags: dict[str, int | None], options: dict[str, Any]) -> dict[str, Any]:
    """Flags and options of the recipe as one.

    Raises:
        FssBenchError: a number was given twice, differently.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if options.get(name, value) != value:
            flag = name.replace("_", "-")
            raise FssBenchError(
                f"--{flag} {value} and --option {name}={options[name]}: give one of them"
            )
    return {**options, **given}
