"""`fss-bench train`: episodic training of a method."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss_bench.completion import backbone_names
from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError
from fss_bench.flags import (
    BackboneOption,
    DataRoot,
    Dataset,
    DatasetOption,
    Device,
    Fold,
    Json,
    MethodName,
    MethodOption,
    Plugin,
    Precision,
    Protocol,
    Quiet,
    Rule,
    Ways,
    Weights,
    Workers,
    check_names,
    folds_of,
    load_plugins,
    open_dataset,
)
from fss_bench.options import parse_options

if TYPE_CHECKING:
    from fss_bench.training.config import TrainConfig
    from fss_bench.training.watching import Trained

OUTPUT = Path("results") / "trained"


def train(
    method: MethodName,
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    fold: Fold = "all",
    ways: Ways = 1,
    shots: Annotated[int, typer.Option(help="Support images a class (K).")] = 1,
    seed: Annotated[
        int, typer.Option(help="Another seed, other episodes, augmentation, starting weights.")
    ] = 0,
    protocol: Protocol = "standard",
    rule: Rule = [],  # noqa: B006
    stage: Annotated[
        str | None,
        typer.Option(
            help="Of a method with several, as msanet's base and meta; by default the last.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(help="Registered, or any timm model.", autocompletion=backbone_names),
    ] = "resnet50",
    backbone_option: BackboneOption = [],  # noqa: B006
    weights: Weights = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="File of the whole method to start from; `{fold}` stands for the fold.",
            show_default=False,
        ),
    ] = None,
    option: MethodOption = [],  # noqa: B006
    steps: Annotated[
        int | None,
        typer.Option(help="Optimiser steps; by default the recipe's.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Episodes of a step, over all processes; by default the recipe's.",
            show_default=False,
        ),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Forwards that share it; by default 1.", show_default=False)
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate; by default the recipe's.", show_default=False),
    ] = None,
    recipe: Annotated[
        list[str],
        typer.Option(
            help="Another number of the recipe, key=value; repeatable.", show_default=False
        ),
    ] = [],  # noqa: B006
    validation: Annotated[
        str,
        typer.Option(
            help="What the checkpoint is chosen on: base, novel (not the test episodes), none."
        ),
    ] = "base",
    validation_episodes: Annotated[int, typer.Option(help="How many.")] = 100,
    validate_every: Annotated[
        int | None,
        typer.Option(help="Steps between validations; by default a tenth.", show_default=False),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints; by default as validations.", show_default=False
        ),
    ] = None,
    keep: Annotated[int, typer.Option(help="Newest checkpoints kept beside the chosen.")] = 2,
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile with torch.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the log for TensorBoard too.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the checkpoints; by default results/trained/<method>-<backbone>-…",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Take up what is there, or start over.")] = True,
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a method on the base classes of a fold, for `evaluate --checkpoint`.

    Several GPUs: torchrun --nproc-per-node N -m fss_bench train …
    """
    from fss_bench.telling import ToldElsewhereError, said_once

    try:
        with said_once():
            load_plugins(plugin)
            check_names(method=method, dataset=dataset, protocol=protocol)
            if checkpoint is not None and weights is not None:
                raise FssBenchError(
                    f"--weights {weights} and --checkpoint {checkpoint}: a checkpoint holds the "
                    "backbone's weights too; drop --weights"
                )
            if workers is None:
                workers = min(8, (os.cpu_count() or 1) // 2)
            compute = Compute(device, precision, workers=workers)
            flags = {"steps": steps, "batch_size": batch_size, "accumulate": accumulate, "lr": lr}
            changed = _together(flags, parse_options(recipe))
            rules = parse_options(rule)
            source = open_dataset(dataset, data_root, dataset_option, protocol, rules)
            folds = folds_of(fold, source)
            name = f"{method}-{backbone}-{dataset}-{ways}way-{shots}shot"
            folder = output or OUTPUT / (name if seed == 0 else f"{name}-seed{seed}")

            from fss_bench.training.config import TrainConfig

            configs = [
                TrainConfig(
                    method=method,
                    dataset=source,
                    protocol=protocol,
                    fold=f,
                    ways=ways,
                    shots=shots,
                    seed=seed,
                    rules=rules,
                    stage=stage,
                    backbone=backbone,
                    weights=weights or "imagenet",
                    backbone_options=parse_options(backbone_option),
                    start=checkpoint and checkpoint.replace("{fold}", str(f)),
                    options=parse_options(option),
                    recipe=changed,
                    output=folder,
                    compute=compute,
                    validation=validation,
                    validation_episodes=validation_episodes,
                    validate_every=validate_every,
                    save_every=save_every,
                    keep=keep,
                    tensorboard=tensorboard,
                    compile=compile_,
                    resume=resume,
                )
                for f in folds
            ]
        _run(configs, as_json, quiet, first=os.environ.get("RANK", "0") == "0")
    except ToldElsewhereError:
        raise typer.Exit(2) from None


def _run(configs: "list[TrainConfig]", as_json: bool, quiet: bool, first: bool) -> None:
    from fss_bench.report.training import result_json, result_lines, training_watch
    from fss_bench.training.trainer import train as train_fold

    results: list[Trained] = []
    for config in configs:
        with training_watch(f"fold {config.fold}", quiet or not first) as watch:
            results.append(train_fold(config, watch))
        if first and not as_json:
            for line in result_lines(results[-1]):
                typer.echo(line)
    if first and as_json:
        typer.echo(json.dumps({"trained": [result_json(result) for result in results]}))


def _together(flags: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Flags and options of the recipe as one.

    Raises:
        FssBenchError: a number was given twice, differently.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if options.get(name, value) != value:
            flag = name.replace("_", "-")
            raise FssBenchError(
                f"--{flag} {value} and --recipe {name}={options[name]}: give one of them"
            )
    return {**options, **given}
