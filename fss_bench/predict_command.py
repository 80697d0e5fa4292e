"""`fss-bench predict`: segment one's own pictures."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fss_bench.compute import Compute
from fss_bench.errors import FssBenchError
from fss_bench.flags import (
    BackboneName,
    BackboneOption,
    CheckpointFile,
    Device,
    Json,
    MethodName,
    MethodOption,
    Plugin,
    Precision,
    Quiet,
    Weights,
    check_names,
    load_plugins,
    note,
    writing,
)
from fss_bench.options import parse_options

if TYPE_CHECKING:
    from fss_bench.prediction import Prediction
    from fss_bench.prediction_files import Target


def predict(
    method: MethodName,
    support: Annotated[list[Path], typer.Option(help="Picture whose object is known; repeatable.")],
    mask: Annotated[
        list[str],
        typer.Option(
            help="Of each support, in their order: a PNG (FILE#8: its value 8), "
            "box:x0,y0,x1,y1, or points:x,y;x,y/x,y (off the object after the slash)."
        ),
    ],
    query: Annotated[
        list[Path], typer.Option(help="Picture to segment, or a folder of them; repeatable.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="PNG to write; of several queries a folder.")
    ],
    way: Annotated[
        list[str],
        typer.Option(help="Of each support the name of its object.", show_default=False),
    ] = [],  # noqa: B006
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Write NAME-overlay.png too, to look at.")
    ] = False,
    backbone: BackboneName = None,
    backbone_option: BackboneOption = [],  # noqa: B006
    weights: Weights = None,
    checkpoint: CheckpointFile = None,
    option: MethodOption = [],  # noqa: B006
    device: Device = "auto",
    precision: Precision = "fp32",
    plugin: Plugin = [],  # noqa: B006
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Segment your own pictures: shown objects in some, a method finds them in others."""
    load_plugins(plugin)
    check_names(method=method)
    compute = Compute(device, precision)
    options, backbone_options = parse_options(option), parse_options(backbone_option)
    if checkpoint is not None and "{fold}" in checkpoint:
        raise FssBenchError(
            f"--checkpoint {checkpoint}: there are no folds here: give the file of one"
        )

    from fss_bench.own_pictures import read_picture, read_supports
    from fss_bench.prediction_files import find_queries, plan_targets

    shown = read_supports(support, mask, way)
    queries = find_queries(query)
    in_folder = len(queries) > 1 or any(path.is_dir() for path in query)
    targets = plan_targets(queries, output, in_folder, overlay, _inputs(support, mask))
    for path in queries:  # every broken one shows before any work is done
        read_picture(path, "query")

    from fss_bench.entrants import Backbones, Entrants
    from fss_bench.prediction import Predictor

    backbones = Backbones(backbone_options)
    entrants = Entrants(method, backbone, backbones, weights, checkpoint, options)
    module = entrants.method_for(0)
    for text in () if quiet else entrants.facts(module):
        note(text)
    predictor = Predictor(module, shown, compute)
    found = []
    for target in targets:
        prediction = predictor(target.query)
        _write(target, prediction)
        found.append(_record(target, prediction))
        if not as_json:
            typer.echo(_line(target, prediction))
    if as_json:
        typer.echo(json.dumps({"ways": list(predictor.ways), "predictions": found}))


def _inputs(support: list[Path], mask: list[str]) -> list[Path]:
    """The files that supports come from."""
    from fss_bench.own_masks import split_value

    files = [text for text in mask if not text.startswith(("box:", "points:"))]
    return [*support, *(split_value(text)[0] for text in files)]


def _write(target: "Target", prediction: "Prediction") -> None:
    from fss_bench.files import write_whole
    from fss_bench.images import png_bytes
    from fss_bench.own_pictures import read_picture
    from fss_bench.report.sheet import tinted

    content = {target.labels: png_bytes(prediction.labels)}
    if target.overlay is not None:
        ways = enumerate(prediction.ways)
        regions = [((prediction.labels == 1 + i).astype("uint8"), i) for i, _ in ways]
        outline = max(1, max(prediction.labels.shape) // 400)
        picture = tinted(read_picture(target.query), regions, outline=outline)
        content[target.overlay] = png_bytes(picture)
    for file, data in content.items():
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, data)


def _record(target: "Target", prediction: "Prediction") -> dict[str, Any]:
    return {
        "query": str(target.query),
        "file": str(target.labels),
        "overlay": str(target.overlay) if target.overlay else None,
        "height": prediction.labels.shape[0],
        "width": prediction.labels.shape[1],
        "share": prediction.share,
        "score": prediction.score,
    }


def _line(target: "Target", prediction: "Prediction") -> str:
    """`q.jpg  cat 12.3 %  dog 0.0 %  score 0.87  out.png`."""
    shares = [f"{way} {100 * part:.1f} %" for way, part in prediction.share.items()]
    score = "-" if prediction.score is None else f"{prediction.score:.2f}"
    return "  ".join([str(target.query), *shares, f"score {score}", str(target.labels)])
