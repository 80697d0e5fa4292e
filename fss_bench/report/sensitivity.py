"""Effects of single rules as terminal tables, CSV, Markdown, JSON and files."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fss_bench.errors import FssBenchError, one_line
from fss_bench.files import write_whole
from fss_bench.protocols import shown
from fss_bench.report.comparison import interval, points
from fss_bench.report.sensitivity_plot import effects_svg
from fss_bench.sensitivity import Effect

COLUMNS = (
    "rule,base_value,changed_value,method,backbone,weights,dataset,ways,shots,base_protocol,"
    "base_seed,folds,dataset_folds,episodes,miou_base,miou_changed,difference,ci_low,ci_high,"
    "same_episodes,remarks,runs_base,runs_changed,episodes_sha256_base,episodes_sha256_changed"
).split(",")
CAPTION = (
    "Points of mIoU, changed less base, with a 95 % bootstrap interval, paired where\n"
    "both are of the same episodes. `seed` is no rule: other episodes alone, the\n"
    "yardstick of noise."
)


def write_effects(effects: Sequence[Effect], file: Path) -> None:
    """Write a plot or a table; the suffix says which.

    Raises:
        FssBenchError: as `check_output`, or a file that cannot be written.
    """
    check_output(file)
    suffix = file.suffix.lower()
    if suffix == ".png":
        content: bytes = _cairosvg(file).svg2png(bytestring=effects_svg(effects).encode(), scale=2)
    else:
        content = WRITERS[suffix](effects).encode()
    try:
        write_whole(file, content)
    except OSError as error:
        raise FssBenchError(
            f"cannot write {file} ({one_line(error)}): choose another place"
        ) from error


def check_output(file: Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        FssBenchError: another suffix, a PNG without cairosvg, or no such folder.
    """
    suffix = file.suffix.lower()
    if suffix == ".png":
        _cairosvg(file)
    elif suffix not in WRITERS:
        known = ", ".join([*WRITERS, ".png"])
        raise FssBenchError(f"-o {file}: its suffix must be one of {known}")
    if not file.parent.is_dir():
        raise FssBenchError(f"-o {file}: folder {file.parent} does not exist: create it")


def effects_csv(effects: Sequence[Effect]) -> str:
    """One line an effect; scores are percent with two decimals."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(effect) for effect in effects)
    return buffer.getvalue()


def effects_markdown(effects: Sequence[Effect]) -> str:
    """A table a group."""
    lines: list[str] = []
    for title, group in _groups(effects):
        lines += [f"**{title.replace(chr(10), ', ')}**", ""]
        lines += ["| rule | base -> changed | base | changed | difference | 95 % | episodes |"]
        lines += ["|---|---|---:|---:|---:|---:|---|"]
        for effect in group:
            d = effect.difference
            cells = [f"`{effect.rule}`", _change(effect), points(d.first, sign=False)]
            cells += [points(d.second, sign=False), points(d.value), interval(d.ci95)]
            lines.append("| " + " | ".join([*cells, _episodes(effect)]) + " |")
        lines.append("")
    return "\n".join([*lines, CAPTION, ""])


def effects_json(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """The same as plain values; scores are fractions."""
    found = []
    for effect in effects:
        cells = asdict(effect)
        del cells["difference"]["p"]  # of two rules there is none
        cells["difference"]["value"] = effect.difference.value
        found.append(cells)
    return found


def print_effects(effects: Sequence[Effect], console: Console | None = None) -> None:
    """Print all tables and how to read them."""
    console = console or Console()
    for table in effect_tables(effects):
        console.print(table)
        console.print()
    console.print(CAPTION, highlight=False)


def effect_tables(effects: Sequence[Effect]) -> list[Table]:
    """A table a method, backbone, dataset and shots: at most 80 columns wide."""
    tables = []
    for title, group in _groups(effects):
        table = Table(
            title=Text(title, style="bold"),
            title_justify="left",
            box=None,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("rule\n  base -> changed", overflow="fold", min_width=20)
        for name in ("base", "changed", "diff.", "95 % interval"):
            table.add_column(name, justify="right", no_wrap=True)  # a cut number is a wrong one
        table.add_column("episodes", overflow="fold")
        for effect in group:
            d = effect.difference
            table.add_row(
                Text(f"{effect.rule}\n  {_change(effect, chr(10) + '  ')}"),  # Text: no markup
                points(d.first, sign=False),
                points(d.second, sign=False),
                points(d.value),
                interval(d.ci95),
                Text(_episodes(effect).replace(", ", "\n")),
            )
        tables.append(table)
    return tables


def _groups(effects: Sequence[Effect]) -> list[tuple[str, list[Effect]]]:
    return [(title, list(group)) for title, group in groupby(effects, _title)]


def _title(effect: Effect) -> str:
    seed = f", seed {shown(effect.base_seed)}"
    return (
        f"{effect.method}, {effect.backbone}, {effect.weights}\n"
        f"{effect.dataset}, {effect.ways}-way {effect.shots}-shot, base {effect.origin}{seed}"
    )


def _change(effect: Effect, gap: str = ", ") -> str:
    """Both values, and what else the base has changed."""
    further = [f"with {', '.join(effect.further)}"] if effect.further else []
    return gap.join([f"{shown(effect.before)} -> {shown(effect.after)}", *further])


def _episodes(effect: Effect) -> str:
    """How many, whether the same as the base's, and what else is to be known."""
    parts = [str(effect.episodes), "the same" if effect.difference.paired else "others"]
    if effect.folds < effect.dataset_folds:
        parts.append(f"{effect.folds} of {effect.dataset_folds} folds")
    return ", ".join([*parts, *effect.remarks])


def _cells(effect: Effect) -> list[str]:
    d = effect.difference
    return [
        effect.rule,
        shown(effect.before),
        shown(effect.after),
        *effect.entrant,
        effect.dataset,
        str(effect.ways),
        str(effect.shots),
        effect.base,
        shown(effect.base_seed),
        str(effect.folds),
        str(effect.dataset_folds),
        str(effect.episodes),
        *(f"{100 * v + 0.0:.2f}" for v in (d.first, d.second)),
        *(f"{round(100 * v, 2) + 0.0:.2f}" for v in (d.value, *d.ci95)),
        "yes" if d.paired else "no",
        "; ".join(effect.remarks),
        effect.runs_base,
        effect.runs_changed,
        effect.episodes_sha256_base,
        effect.episodes_sha256_changed,
    ]


def _cairosvg(file: Path) -> ModuleType:
    try:
        return import_module("cairosvg")  # no dependency of ours: few want a PNG
    except (ImportError, OSError):  # OSError: it is there, the library that it wraps is not
        raise FssBenchError(
            f"-o {file}: PNG needs the package cairosvg: write a .svg, or pip install cairosvg"
        ) from None


WRITERS = {".svg": effects_svg, ".csv": effects_csv, ".md": effects_markdown}
