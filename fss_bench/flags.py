"""Flags that several commands share, and what they mean."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss_bench.completion import backbone_names, dataset_names, method_names, protocol_names
from fss_bench.errors import FssBenchError, UnknownNameError, one_line
from fss_bench.options import parse_options

if TYPE_CHECKING:
    from fss_bench.dataset import SegDataset

MethodName = Annotated[
    str,
    typer.Argument(
        help="A registered method; see `list methods`.",
        autocompletion=method_names,
    ),
]
Dataset = Annotated[
    str,
    typer.Option(help="A registered dataset; see `list datasets`.", autocompletion=dataset_names),
]
DataRoot = Annotated[Path | None, typer.Option(help="Its folder; `shapes` needs none.")]
DatasetOption = Annotated[
    list[str], typer.Option(help="Dataset option, key=value; repeatable.", show_default=False)
]
Fold = Annotated[str, typer.Option(help="Fold number, several with commas, or `all`.")]
Ways = Annotated[int, typer.Option(help="Classes an episode (N).")]
Shots = Annotated[str, typer.Option(help="Support images a class (K); `1,5` runs both.")]
Seed = Annotated[int, typer.Option(help="Another seed, other episodes.")]
Protocol = Annotated[
    str,
    typer.Option(
        help="A protocol of `list protocols`, `name+rule=value`, or a TOML file.",
        autocompletion=protocol_names,
    ),
]
Protocols = Annotated[
    str,
    typer.Option(
        help="A protocol, several with commas, `name+rule=value`, or a TOML file.",
        autocompletion=protocol_names,
    ),
]
Episodes = Annotated[
    int | None, typer.Option(help="Episodes a fold; by default the protocol's.", show_default=False)
]
Rule = Annotated[
    list[str],
    typer.Option(help="Changed protocol rule, key=value; repeatable.", show_default=False),
]
Annotation = Annotated[
    str | None,
    typer.Option(
        help="What is known of supports: mask, box, scribble or points; short for --rule "
        "annotation=…",
        show_default=False,
    ),
]
SplitLists = Annotated[
    Path | None, typer.Option(help="Folder of published lists, for protocols that read them.")
]
Output = Annotated[Path, typer.Option(help="Results folder.")]
Plugin = Annotated[
    list[Path],
    typer.Option(help="Python file that registers more; repeatable.", show_default=False),
]
BackboneOption = Annotated[
    list[str], typer.Option(help="Backbone option, key=value; repeatable.", show_default=False)
]
MethodOption = Annotated[
    list[str], typer.Option(help="Method option, key=value; repeatable.", show_default=False)
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="imagenet, packaged, none, or a file, for the backbone; by default imagenet.",
        show_default=False,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        help="Registered, or any timm model; by default the checkpoint's, or resnet50.",
        autocompletion=backbone_names,
    ),
]
CheckpointFile = Annotated[
    str | None,
    typer.Option(
        help="File of the whole method, official or ours; `{fold}` stands for the fold.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
Workers = Annotated[
    int | None, typer.Option(help="Processes that load images; by default half the cores.")
]
BatchSize = Annotated[int, typer.Option(help="Episodes segmented together.")]
CacheGb = Annotated[
    float | None,
    typer.Option(help="Memory for kept features; by default a quarter of what is free."),
]
DiskGb = Annotated[
    float | None,
    typer.Option(help="Disk for what memory has no room for; by default a quarter of it."),
]
CacheDtype = Annotated[
    str,
    typer.Option(help="What is kept of images is rounded to this: fp32, or fp16 or bf16."),
]
EncodeBatch = Annotated[
    int | None,
    typer.Option(help="Images encoded together; by default 1 on a CPU, 8 on a GPU."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def note(text: str) -> None:
    """Tell the user something beside the result."""
    print(f"note: {text}", file=sys.stderr)


def terminal_width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def default_workers(asked: int | None) -> int:
    """Processes that load images for an evaluation: half the cores, at most 4."""
    return min(4, (os.cpu_count() or 1) // 2) if asked is None else asked


def load_plugins(files: list[Path]) -> None:
    """Run plug-in files.

    Raises:
        FssBenchError: one is missing or fails.
    """
    from fss_bench.registry import load_plugin_file

    for file in files:
        load_plugin_file(file)


def check_names(
    method: str | None = None, dataset: str | None = None, protocol: str | None = None
) -> None:
    """Complain about a mistyped name before anything heavy is imported."""
    from fss_bench.protocols import get_protocol
    from fss_bench.registry import datasets, methods

    for registry, name in ((methods, method), (datasets, dataset)):
        if name is not None and name not in registry.names():
            raise UnknownNameError(registry.kind, name, registry.names())
    if protocol is not None:
        get_protocol(protocol)


def rules_of(pairs: list[str], annotation: str | None) -> dict[str, Any]:
    """Changed rules, --annotation among them."""
    from fss_bench.protocols import ANNOTATIONS

    rules = parse_options(pairs)
    if annotation is None:
        return rules
    if annotation not in ANNOTATIONS:
        raise UnknownNameError("annotation", annotation, ANNOTATIONS)
    if rules.get("annotation", annotation) != annotation:
        raise FssBenchError(
            f"--annotation {annotation} and --rule annotation={rules['annotation']}: give one"
        )
    return {**rules, "annotation": annotation}


def open_dataset(
    name: str,
    root: Path | None,
    options: list[str],
    protocol: str = "standard",
    rules: Mapping[str, Any] | None = None,
) -> "SegDataset":
    """The dataset as the protocol asks for it, or as the user's options say."""
    from fss_bench.dataset import SegDataset, create_dataset, datasets
    from fss_bench.setting import protocol_dataset_options

    given = parse_options(options)
    cls = datasets.get_derived(name, SegDataset)
    asked = protocol_dataset_options(protocol, cls, root, rules or {})
    return create_dataset(name, root, **{**asked, **given})


def numbers_of(flag: str, text: str) -> list[int]:
    """The numbers of `1,5`.

    Raises:
        FssBenchError: one is none.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise FssBenchError(
            f"{flag} {text!r}: write a whole number, or several with commas"
        ) from None


def folds_of(text: str, dataset: "SegDataset") -> list[int]:
    """The folds of `0,1` or `all`.

    Raises:
        FssBenchError: one is no number, or out of range.
    """
    folds = list(range(len(dataset.folds))) if text == "all" else numbers_of("--fold", text)
    for fold in folds:
        dataset.novel_classes(fold)
    return folds


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says a failure to write as one line."""
    try:
        yield
    except OSError as error:
        raise FssBenchError(
            f"cannot write {path} ({one_line(error)}): choose another place"
        ) from error
