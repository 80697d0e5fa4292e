"""The effects of single rules as an SVG: dots with whiskers around zero, a panel a setting."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape

from fss_bench.protocols import shown
from fss_bench.report.comparison import interval, points
from fss_bench.sensitivity import SEED, Effect

WIDTH = 760
LEFT, RIGHT = 284, 736
"""Where the axis begins and ends, px; names stand to its left."""
SMALL, TEXT = 12, 14
GAP = 17
"""Between the dots of one rule, px."""
LEADING = 16
"""Between lines of small text, px."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8f6400", "#56b4e9", "#000000")
"""Okabe and Ito's, told apart by the colour-blind; yellow and orange darkened to be seen."""
INK, GREY, LINE, BAND, PAPER = "#1b1b1b", "#595959", "#d9d9d9", "#f4f4f4", "#ffffff"

Entrant = tuple[str, str, str]


@dataclass(frozen=True)
class Scale:
    """Differences (fractions) to px, and where the axis has its ticks (points)."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def __call__(self, fraction: float) -> float:
        return LEFT + (RIGHT - LEFT) * (100 * fraction - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Style:
    """How the dots of one entrant look."""

    label: str
    colour: str
    marker: str


def effects_svg(effects: Sequence[Effect]) -> str:
    """A drawing 760 px wide on a light ground of its own.

    A panel a dataset, number of ways and shots and base protocol; a row a change of one rule, the
    largest first and seeds last; a dot an effect, filled where both sides are of the same episodes.
    What the base of a row changes besides stands beneath the rule.
    """
    ordered = sorted(effects, key=lambda effect: effect.setting)
    styles, scale = _styles(ordered), _scale(ordered)
    several_seeds = len({effect.base_seed for effect in ordered}) > 1
    parts = [_text(24, 30, "Change of mIoU by one rule of the protocol", TEXT + 2, weight="bold")]
    y = 50.0
    for style_line in _legend(styles):
        parts += style_line(y)
        y += 22
    parts += _caption(y)
    y += 22
    for setting, group in groupby(ordered, lambda effect: effect.setting):
        panel, y = _panel(setting, list(group), styles, scale, y, several_seeds)
        parts += panel
    return "\n".join([_head(y + 8), *parts, "</svg>", ""])


def _head(height: float) -> str:
    h = math.ceil(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{h}" '
        f'viewBox="0 0 {WIDTH} {h}" role="img" font-family="Helvetica, Arial, sans-serif">\n'
        "<title>Change of mIoU by one rule of the protocol</title>\n"
        f'<rect width="{WIDTH}" height="{h}" rx="6" fill="{PAPER}"/>'
    )


def _styles(effects: Sequence[Effect]) -> dict[Entrant, Style]:
    entrants = sorted({effect.entrant for effect in effects})
    short = [entrant[:2] for entrant in entrants]
    styles = {}
    for i, entrant in enumerate(entrants):
        label = ", ".join(entrant if short.count(entrant[:2]) > 1 else entrant[:2])
        styles[entrant] = Style(label, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
    return styles


def _scale(effects: Sequence[Effect]) -> Scale:
    """One scale for all panels, so that they compare; zero is always on it."""
    ends = [100 * end for e in effects for end in (*e.difference.ci95, e.difference.value)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if high - low < 0.1:
        low, high = low - 0.5, high + 0.5
    margin = 0.03 * (high - low)
    low, high = low - margin, high + margin
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
    return Scale(low, high, tuple(round(tick * step, 6) for tick in ticks))


def _legend(styles: Mapping[Entrant, Style]) -> Iterator[Callable[[float], list[str]]]:
    """Lines of the legend, as many entries in each as fit."""
    line: list[tuple[float, Style]] = []
    x = 24.0
    for style in styles.values():
        width = 24 + _width(style.label, SMALL) + 20
        if line and x + width > WIDTH - 24:
            yield _legend_line(line)
            line, x = [], 24.0
        line.append((x, style))
        x += width
    yield _legend_line(line)


def _legend_line(entries: Sequence[tuple[float, Style]]) -> Callable[[float], list[str]]:
    def draw(y: float) -> list[str]:
        drawn = []
        for x, style in entries:
            label = _fitted(style.label, SMALL, WIDTH - 48 - x)
            drawn += [_marker(x + 7, y, style, True), _text(x + 20, y + 4, label, SMALL)]
        return drawn

    return draw


def _caption(y: float) -> list[str]:
    text = (
        "filled: same episodes, paired; hollow: other episodes. Whiskers: 95 % bootstrap interval"
    )
    return [_text(24, y + 4, text, SMALL, GREY)]


def _panel(
    setting: tuple[str, int, int, str],
    effects: Sequence[Effect],
    styles: Mapping[Entrant, Style],
    scale: Scale,
    y: float,
    several_seeds: bool,
) -> tuple[list[str], float]:
    """The parts of a panel, and where it ends."""
    parts, top = _panel_title(setting, y)
    rows = _rows(effects)
    heights = [
        max(44 + LEADING * (len(_changes(row[0])) - 1), GAP * (len(row) - 1) + 28) for row in rows
    ]
    bottom = top + sum(heights)
    ground, y = [], top
    for i, height in enumerate(heights):
        if i % 2 == 0:
            ground.append(_rect(16, y, WIDTH - 32, height))
        y += height
    parts += [*ground, *_grid(scale, top, bottom)]
    y = top
    for row, height in zip(rows, heights, strict=True):
        parts += _row(row, styles, scale, y + height / 2, several_seeds)
        y += height
    parts.append(
        _text(
            (LEFT + RIGHT) / 2,
            bottom + 38,
            "points of mIoU, changed less base",
            SMALL,
            GREY,
            "middle",
        )
    )
    return parts, bottom + 50


def _panel_title(setting: tuple[str, int, int, str], y: float) -> tuple[list[str], float]:
    """The title and where it ends; a base of a long name has smaller lines of its own."""
    dataset, ways, shots, base = setting
    title, further = f"{dataset}, {ways}-way {shots}-shot, base {base}", []
    room = WIDTH - 48
    if _width(title, TEXT, bold=True) > room:
        title, further = f"{dataset}, {ways}-way {shots}-shot", _wrapped(f"base {base}", room)
    parts = [_text(24, y + 24, _fitted(title, TEXT, room, bold=True), TEXT, weight="bold")]
    for line in further:
        y += LEADING
        parts.append(_text(24, y + 26, line, SMALL, GREY))
    return parts, y + 36


def _rows(effects: Sequence[Effect]) -> list[list[Effect]]:
    """Effects of the same change together; the largest change first, seeds last."""
    rows: dict[tuple[str, str, str, tuple[str, ...]], list[Effect]] = {}
    for effect in effects:
        before, after = ("", "") if effect.rule == SEED else (effect.before, effect.after)
        key = (effect.rule, shown(before), shown(after), effect.further)
        rows.setdefault(key, []).append(effect)
    ordered = sorted(
        rows.items(),
        key=lambda item: (
            item[0][0] == SEED,
            -max(round(abs(e.difference.value), 4) for e in item[1]),
            item[0],
        ),
    )
    return [sorted(row, key=lambda e: (e.entrant, e.base_seed)) for _, row in ordered]


def _changes(effect: Effect) -> list[str]:
    """The lines beneath a rule: its values, and what else the base has changed."""
    room = LEFT - 24 - 16
    if effect.rule == SEED:
        return ["other episodes, same rules"]
    further = _wrapped(f"with {', '.join(effect.further)}", room) if effect.further else []
    return [*_wrapped(f"{shown(effect.before)} → {shown(effect.after)}", room), *further]


def _row(
    row: Sequence[Effect],
    styles: Mapping[Entrant, Style],
    scale: Scale,
    middle: float,
    several_seeds: bool,
) -> list[str]:
    lines = _changes(row[0])
    y = middle - 3 - LEADING * (len(lines) - 1) / 2
    parts = [_text(24, y, row[0].rule, 13, weight="bold")]
    parts += [_text(24, y + 17 + LEADING * i, line, SMALL, GREY) for i, line in enumerate(lines)]
    y = middle - GAP * (len(row) - 1) / 2
    for effect in row:
        parts += _dot(effect, styles[effect.entrant], scale, y, several_seeds)
        y += GAP
    return parts


def _dot(effect: Effect, style: Style, scale: Scale, y: float, several_seeds: bool) -> list[str]:
    d = effect.difference
    low, high = scale(d.ci95[0]), scale(d.ci95[1])
    change = f"{effect.rule} {shown(effect.before)} to {shown(effect.after)}"
    change += f" with {', '.join(effect.further)}" if effect.further else ""
    change += f", base seed {shown(effect.base_seed)}" if several_seeds else ""
    said = (
        f"{style.label}: {change}, {points(d.value)} ({interval(d.ci95)}), "
        f"{effect.folds} of {effect.dataset_folds} folds"
    )
    whisker = (
        f'<path d="M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8" '
        f'stroke="{style.colour}" stroke-width="1.6" fill="none"/>'
    )
    dot = _marker(scale(d.value), y, style, d.paired)
    return [f"<g><title>{escape(said)}</title>", whisker, dot, "</g>"]


def _grid(scale: Scale, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in scale.ticks:
        x, zero = scale(tick / 100), tick == 0
        colour, width = (GREY, 1.5) if zero else (LINE, 1)
        parts.append(
            f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        )
        parts.append(_text(x, bottom + 18, f"{tick:+g}" if tick else "0", SMALL, INK, "middle"))
    return parts


def _marker(x: float, y: float, style: Style, filled: bool) -> str:
    shape = MARKER_PATHS[style.marker]
    fill = style.colour if filled else PAPER
    return (
        f'<path transform="translate({x:.1f} {y:.1f})" d="{shape}" fill="{fill}" '
        f'stroke="{style.colour}" stroke-width="1.8"/>'
    )


def _rect(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x}" y="{y:.1f}" width="{width}" height="{height:.1f}" fill="{BAND}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    size: int,
    colour: str = INK,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    attributes = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _width(text: str, size: int, bold: bool = False) -> float:
    """At most so wide, px: fonts differ, and wide ones count here."""
    return len(text) * size * (0.68 if bold else 0.6)


def _fitted(text: str, size: int, room: float, bold: bool = False) -> str:
    """The text, its end cut where there is no room for it."""
    if _width(text, size, bold) <= room:
        return text
    return text[: int(room / _width("x", size, bold)) - 1] + "…"


def _wrapped(text: str, room: float) -> list[str]:
    """Lines of small text, broken at spaces and before `+`."""
    lines = [""]
    for part in re.split(r"(?<= )|(?=\+)", text):
        if lines[-1] and _width((lines[-1] + part).rstrip(), SMALL) > room:
            lines.append("")
        lines[-1] += part
    return [_fitted(line.rstrip(), SMALL, room) for line in lines]


MARKER_PATHS = {
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "square": "M-4.5-4.5h9v9h-9z",
    "triangle": "M0-5.5L5.5 4.5H-5.5z",
    "diamond": "M0-6L6 0L0 6L-6 0z",
    "point": "M0 5.5L5.5-4.5H-5.5z",
}
MARKERS = tuple(MARKER_PATHS)
