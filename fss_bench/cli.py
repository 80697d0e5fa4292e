"""The command line: bodies parse, call the library, print."""

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fss_bench.completion import kinds, method_names
from fss_bench.compute import Compute
from fss_bench.data_commands import convert_sbd, verify
from fss_bench.errors import FssBenchError, UnknownNameError
from fss_bench.fetch_command import fetch
from fss_bench.flags import (
    Annotation,
    BackboneName,
    BackboneOption,
    BatchSize,
    CacheDtype,
    CacheGb,
    CheckpointFile,
    DataRoot,
    Dataset,
    DatasetOption,
    Device,
    DiskGb,
    EncodeBatch,
    Episodes,
    FailedEpisodes,
    Fold,
    Json,
    MethodOption,
    Output,
    Plugin,
    Precision,
    Protocol,
    Protocols,
    Quiet,
    Rule,
    Seed,
    Shots,
    SplitLists,
    Ways,
    Weights,
    Workers,
    check_names,
    default_workers,
    folds_of,
    load_plugins,
    note,
    numbers_of,
    open_dataset,
    rules_of,
    terminal_width,
    writing,
)
from fss_bench.interruption import sigterm_as_ctrl_c
from fss_bench.leaderboard_command import leaderboard
from fss_bench.named_commands import NamedCommands
from fss_bench.options import options_for, parse_options
from fss_bench.plugin_commands import check_method, new_method
from fss_bench.predict_command import predict
from fss_bench.pretrain_command import pretrain
from fss_bench.profile_command import profile
from fss_bench.protocol_commands import protocols
from fss_bench.train_command import train

if TYPE_CHECKING:
    from fss_bench.results import Run
    from fss_bench.setting import Setting

app = typer.Typer(
    cls=NamedCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help comes in half the time
    help="Few-shot segmentation benchmark whose numbers can be compared.",
)
data = typer.Typer(
    cls=NamedCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Fetch data, build an index, check a tree, draw episodes, convert SBD.",
)
data.command("fetch")(fetch)
data.command("verify")(verify)
data.command("convert-sbd")(convert_sbd)
app.add_typer(data, name="data")
app.add_typer(protocols, name="protocols")
app.command("train")(train)
app.command("pretrain")(pretrain)
app.command("profile")(profile)
app.command("predict")(predict)
app.command("leaderboard")(leaderboard)
app.command("new-method")(new_method)
app.command("check-method")(check_method)


@app.command()
def evaluate(
    method: Annotated[
        str,
        typer.Argument(
            help="A registered method, or several with commas on one backbone; see `list methods`.",
            autocompletion=method_names,
        ),
    ],
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    fold: Fold = "all",
    ways: Ways = 1,
    shots: Shots = "1",
    episodes: Episodes = None,
    seed: Seed = 0,
    protocol: Protocols = "standard",
    rule: Rule = [],  # noqa: B006
    annotation: Annotation = None,
    split_lists: SplitLists = None,
    backbone: BackboneName = None,
    backbone_option: BackboneOption = [],  # noqa: B006
    weights: Weights = None,
    checkpoint: CheckpointFile = None,
    option: MethodOption = [],  # noqa: B006
    device: Device = "auto",
    precision: Precision = "fp32",
    batch_size: BatchSize = 1,
    workers: Workers = None,
    cache_gb: CacheGb = None,
    disk_gb: DiskGb = None,
    cache_dtype: CacheDtype = "fp32",
    encode_batch: EncodeBatch = None,
    failed_episodes: FailedEpisodes = "stop",
    output: Output = Path("results"),
    resume: Annotated[bool, typer.Option(help="Take up what is there, or start over.")] = True,
    save_predictions: Annotated[bool, typer.Option(help="Keep a PNG an episode.")] = False,
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw episodes, segment, score: writes runs, prints a table, updates the leaderboard."""
    load_plugins(plugin)
    names = _protocol_names(protocol)
    methods = list(dict.fromkeys(name.strip() for name in method.split(",")))
    for name in methods:
        check_names(method=name, dataset=dataset)
    if checkpoint is not None and len(methods) > 1:
        raise FssBenchError(
            f"--checkpoint {checkpoint} is for one method, not {', '.join(methods)}"
        )
    compute = Compute(
        device,
        precision,
        batch_size,
        default_workers(workers),
        cache_gb,
        disk_gb,
        cache_dtype,
        encode_batch,
        failed_episodes,
    )
    rules = rules_of(rule, annotation)
    method_options = {name: options_for(name, methods, option) for name in methods}
    shot_list = numbers_of("--shots", shots)

    from fss_bench.entrants import Backbones, Entrants
    from fss_bench.passes import evaluate_all
    from fss_bench.report.progress import evaluation_progress, pass_label
    from fss_bench.results import ResultStore
    from fss_bench.setting import create_setting

    store = ResultStore(output)
    store.check_writable()
    sources = [open_dataset(dataset, data_root, dataset_option, name, rules) for name in names]
    settings = [  # every mistake in them shows before any work is done
        create_setting(
            source,
            name,
            fold=f,
            ways=ways,
            shots=k,
            episodes=episodes,
            seed=seed,
            rules=rules,
            split_lists=split_lists,
        )
        for name, source in zip(names, sources, strict=True)
        for k in shot_list
        for f in folds_of(fold, source)
    ]
    for setting in () if quiet else settings:
        _note_skipped(setting)
    made = Backbones(parse_options(backbone_option))
    entrants = [
        Entrants(name, backbone, made, weights, checkpoint, options)
        for name, options in method_options.items()
    ]
    for text in dict.fromkeys(text for one in entrants for text in one.check(settings)):
        if not quiet:
            note(text)
    runs = evaluate_all(
        settings,
        entrants,
        compute,
        store,
        resume=resume,
        save_predictions=save_predictions,
        watch=lambda name, together: evaluation_progress(
            pass_label(together, name if len(methods) > 1 else ""), quiet
        ),
    )
    places = {(s.protocol.label, s.shots, s.fold): i for i, s in enumerate(settings)}
    in_order = sorted(runs, key=lambda r: (methods.index(r.record["method"]), places[_place(r)]))
    _report(in_order, output, as_json)


@app.command("episodes")
def write_episodes(
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    fold: Annotated[int, typer.Option(help="Fold number.")] = 0,
    ways: Ways = 1,
    shots: Annotated[int, typer.Option(help="Support images a class (K).")] = 1,
    episodes: Episodes = None,
    seed: Seed = 0,
    protocol: Protocol = "standard",
    rule: Rule = [],  # noqa: B006
    split_lists: SplitLists = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSONL file.")] = None,
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write the episode list of a setting as JSONL and print its sha256.

    Without --data-root, a published order is drawn over the whole of its published lists.
    """
    from fss_bench.episodes import EpisodeSpec, episodes_sha256, to_jsonl
    from fss_bench.files import write_text
    from fss_bench.protocols import get_protocol
    from fss_bench.published_orders import hsnet_digest
    from fss_bench.setting import create_setting, listed_episodes

    load_plugins(plugin)
    check_names(dataset=dataset, protocol=protocol)
    rules = parse_options(rule)
    listed = get_protocol(protocol).order == "hsnet"
    if listed and data_root is None and split_lists is not None:
        specs: Sequence[EpisodeSpec] = listed_episodes(
            dataset,
            protocol,
            split_lists,
            fold=fold,
            shots=shots,
            ways=ways,
            episodes=episodes,
            seed=seed,
            rules=rules,
        )
    else:
        specs = create_setting(
            open_dataset(dataset, data_root, dataset_option, protocol, rules),
            protocol,
            fold=fold,
            ways=ways,
            shots=shots,
            episodes=episodes,
            seed=seed,
            rules=rules,
            split_lists=split_lists,
        ).specs
    digests = {"episodes": len(specs), "sha256": episodes_sha256(specs)}
    if listed:
        digests["published_sha256"] = hsnet_digest(specs)
    if output is not None:
        with writing(output):
            write_text(output, "".join(to_jsonl(specs)))
    if as_json:
        typer.echo(json.dumps({**digests, "file": None if output is None else str(output)}))
        return
    where = f"  {output}" if output else ""
    typer.echo(f"{digests['sha256']}{where}")
    if "published_sha256" in digests:
        typer.echo(f"{digests['published_sha256']}  as published (class0 query s1,s2,...)")


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN [RUN…]", help="Folder of a run, or its id."),
    ],
    results: Annotated[Path, typer.Option(help="Results folder.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Compare runs with the first on the same episodes: difference, interval, p-value."""
    from fss_bench.comparison import compare_runs, find_run
    from fss_bench.report.comparison import comparison_json, print_comparison

    found = [find_run(name, results) for name in runs]
    compared = compare_runs(found)
    if as_json:
        typer.echo(json.dumps(comparison_json(found[0], compared)))
    else:
        print_comparison(found[0], compared)


@app.command("list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(help="methods, datasets, backbones or protocols.", autocompletion=kinds),
    ],
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """List what is registered, plug-ins included, one line each."""
    from fss_bench import registry
    from fss_bench.protocols import SUMMARIES
    from fss_bench.registry import Entry
    from fss_bench.report.listing import entry_lines

    load_plugins(plugin)
    kinds = {r.kind + "s": r for r in (registry.methods, registry.datasets, registry.backbones)}
    if what == "protocols":
        entries = [Entry(name, summary, "built-in") for name, summary in SUMMARIES.items()]
    elif what in kinds:
        entries = kinds[what].entries()
    else:
        raise UnknownNameError("kind of thing to list", what, [*kinds, "protocols"])
    for line in entry_lines(entries, terminal_width()):
        typer.echo(line)
    if what == "backbones":
        typer.echo("Any other timm model works by its timm name.")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint, official or ours.")],
    target: Annotated[Path | None, typer.Argument(help="The .safetensors file to write.")] = None,
    inspect: Annotated[bool, typer.Option("--inspect", help="Say what the file is.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="What it was trained on, to be kept in the file.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="The fold that it was trained for.")] = None,
    layout: Annotated[str, typer.Option(help="Published layout of a backbone's weights.")] = "auto",
    old_pickle: Annotated[
        bool,
        typer.Option(
            "--old-pickle", help="Take tensors out of a file with Python objects; runs none of it."
        ),
    ] = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Write a checkpoint or weights as safetensors that say what they are and where from."""
    from fss_bench import conversion

    load_plugins(plugin)
    if inspect:
        for line in conversion.describe(source, old_pickle, layout):
            typer.echo(line)
        return
    if target is None:
        raise FssBenchError("convert needs a file to write: fss-bench convert IN OUT.safetensors")
    if (dataset is None) != (fold is None):
        raise FssBenchError("--dataset and --fold go together: give both or neither")
    known = None if dataset is None or fold is None else conversion.trained_on(dataset, fold)
    for line in conversion.convert(source, target, known, old_pickle, layout):
        typer.echo(line)
    typer.echo(str(target))


@data.command("index")
def data_index(
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Do not use the cached one.")] = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Build the index (cached, and rebuilt when the tree changes) and print a summary."""
    from fss_bench.protocols import PROTOCOLS

    load_plugins(plugin)
    check_names(dataset=dataset)
    source = open_dataset(dataset, data_root, dataset_option)
    index = source.build_index(rebuild)
    smallest = PROTOCOLS["standard"].replace_rules(source.rules).min_pixels
    typer.echo(f"{source.identity}: fingerprint {index.fingerprint}")
    for split in ("train", "test"):
        pools = index.pools(split, source.class_names, smallest)
        typer.echo(
            f"{split}: {len(index.images(split))} images, {sum(map(len, pools.values()))} pairs of "
            f"image and class with at least {smallest} px, {min(map(len, pools.values()))} to "
            f"{max(map(len, pools.values()))} a class"
        )
    if index.file:
        typer.echo(f"cached in {index.file}")


@data.command("show")
def data_show(
    dataset: Dataset = "shapes",
    data_root: DataRoot = None,
    dataset_option: DatasetOption = [],  # noqa: B006
    fold: Fold = "all",
    ways: Ways = 1,
    shots: Annotated[int, typer.Option(help="Support images a class (K).")] = 1,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to draw, over all folds.")] = 8,
    columns: Annotated[int, typer.Option(min=1, help="Episodes side by side.")] = 2,
    tile: Annotated[int, typer.Option(min=16, help="Side of a picture in the sheet, px.")] = 160,
    seed: Seed = 0,
    protocol: Protocol = "standard",
    rule: Rule = [],  # noqa: B006
    annotation: Annotation = None,
    split_lists: SplitLists = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file.")] = Path(
        "episodes.png"
    ),
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Draw episodes with their masks into a PNG sheet."""
    from fss_bench.report.sheet import episode_sheet
    from fss_bench.setting import create_setting

    load_plugins(plugin)
    check_names(dataset=dataset, protocol=protocol)
    rules = rules_of(rule, annotation)
    source = open_dataset(dataset, data_root, dataset_option, protocol, rules)
    folds = folds_of(fold, source)
    each = -(-episodes // len(folds))
    settings = [
        create_setting(
            source,
            protocol,
            fold=f,
            ways=ways,
            shots=shots,
            episodes=each,
            seed=seed,
            rules=rules,
            split_lists=split_lists,
        )
        for f in folds
    ]
    specs = [spec for setting in settings for spec in setting.specs][:episodes]
    sheet = episode_sheet(source, specs, columns, tile, settings[0].protocol)
    with writing(output):
        sheet.save(output, format="PNG", optimize=True)
    typer.echo(str(output))


def main() -> None:
    """Entry point: a mistake is one line and status 2, an interruption status 130."""
    # what Pillow says beside our own line
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with sigterm_as_ctrl_c():
            status = app(standalone_mode=False)
    except FssBenchError as error:
        _fail("error: " + " ".join(str(error).split()), 2)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except Exception as error:
        usage = getattr(error, "format_message", None)  # typer's own errors share no public class
        if usage is None:
            raise
        _fail(f"error: {usage()} See fss-bench --help." if usage() else "", 2)
    if status == 130:  # typer turns Ctrl-C into this
        words = sys.argv[1:3]
        resumable = words[:1] in (["evaluate"], ["pretrain"], ["train"]) or "fetch" in words[1:]
        _fail("interrupted" + (": the same command goes on from here" if resumable else ""), 130)
    raise SystemExit(status if isinstance(status, int) else 0)


def _fail(text: str, status: int) -> NoReturn:
    if text:
        print(text, file=sys.stderr)
    raise SystemExit(status)


def _note_skipped(setting: "Setting") -> None:
    names = ", ".join(setting.dataset.class_names[c] for c in setting.skipped)
    if names:
        note(
            f"fold {setting.fold}, {setting.shots}-shot leaves out classes with too few images: "
            f"{names}"
        )


def _protocol_names(text: str) -> list[str]:
    """The protocols of `a,b,c`, each once, in their order."""
    from fss_bench.protocols import get_protocol

    parts = [text] if Path(text).is_file() else text.split(",")
    if "" in parts:
        raise FssBenchError(f"--protocol {text!r}: a name is missing at a comma: write a,b,c")
    return list({get_protocol(name).label: name for name in parts}.values())


def _place(run: "Run") -> tuple[str, int, int]:
    record = run.record
    return record["protocol"]["label"], record["shots"], record["fold"]


def _report(runs: "list[Run]", output: Path, as_json: bool) -> None:
    from fss_bench.files import write_text
    from fss_bench.report.console import board_rows, print_tables
    from fss_bench.report.table import to_csv
    from fss_bench.results import ResultStore

    with ResultStore(output).updating("leaderboard.csv") as board:
        rows = board_rows(output, note)
        write_text(board, to_csv(rows))
    if as_json:
        shown = [{**run.to_json(), "path": str(run.path)} for run in runs]
        typer.echo(json.dumps({"runs": shown, "leaderboard": str(board)}))
        return
    mine = {run.record["run_id"] for run in runs}
    groups = {r.group for r in rows if any(f.record["run_id"] in mine for f in r.folds.values())}
    print_tables([row for row in rows if row.group in groups])
    for run in runs:
        typer.echo(str(run.path))
    typer.echo(str(board))
