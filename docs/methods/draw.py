"""Draws the pictures of docs/methods: `python docs/methods/draw.py` writes <method>.svg beside it.

A picture is boxes in rows and arrows between them. Rows are as far apart everywhere, all text is at
least 12 px at a width of 760 px, and a text that does not fit its box is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, TOP, ROW, LINE = 760, 40, 74, 16
FONT, CHARACTER = 13, 7.6
"""Size of text in px, and a bound on the width of a character."""
SMALL, SMALL_CHARACTER = 12, 7.4
INK, EDGE = "#1f2328", "#57606a"
KINDS = {
    "input": ("input", "#ddf4ff"),
    "backbone": ("backbone", "#e6e8eb"),
    "fixed": ("no parameters", "#ffffff"),
    "learned": ("learned", "#fff1d6"),
    "output": ("output", "#dafbe1"),
}
"""Kind of a box -> its name in the legend, its colour."""


@dataclass(frozen=True)
class Box:
    """A box: centre x in px, row (may be a fraction), width in px, text with line breaks."""

    x: float
    row: float
    width: float
    kind: str
    text: str

    @property
    def y(self) -> float:
        return TOP + ROW * self.row

    @property
    def height(self) -> float:
        return 14 + LINE * len(self.text.split("\n"))

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Arrow:
    """An arrow from a box to one below or beside it, with a tensor's shape.

    Attributes:
        start, end: names of boxes.
        label: beside the line's longest part.
        x: where it runs down; by default a middle of the two. Outside of both boxes it leaves and
            enters them at their sides.
        flip: the label stands left of the line.
    """

    start: str
    end: str
    label: str = ""
    x: float | None = None
    flip: bool = False


@dataclass(frozen=True)
class Picture:
    """What is drawn: a title for readers that do not see it, boxes by name, arrows."""

    title: str
    boxes: dict[str, Box]
    arrows: Sequence[Arrow]


def inputs(size: str, mask: Box, support: Box, query: Box) -> dict[str, Box]:
    """The three inputs in the first row, at a size such as `417×417`."""
    places = {"mask": mask, "support": support, "query": query}
    texts = {
        "mask": f"support masks\nK×{size}",
        "support": f"support images\nK×3×{size}",
        "query": f"query image\n3×{size}",
    }
    return {k: Box(b.x, 0, b.width, "input", texts[k]) for k, b in places.items()}


def lanes(size: str) -> dict[str, Box]:
    """Inputs in three lanes of equal width: masks, support images, query."""
    at = [Box(x, 0, 210, "input", "") for x in (125, 380, 635)]
    return inputs(size, *at)


PICTURES = {
    "panet": Picture(
        "PANet: masked average pooling of support features gives prototypes; query cells are "
        "compared with them by cosine",
        {
            **lanes("417×417"),
            "backbone": Box(
                507, 1, 465, "backbone", "VGG-16, stride 8, trained\n(vgg16_panet, c5)"
            ),
            "pool": Box(
                252, 2.1, 465, "fixed", "masked average pooling\nforeground and background"
            ),
            "mean": Box(252, 3.1, 465, "fixed", "mean over shots\n(background: over ways too)"),
            "cosine": Box(380, 4.1, 720, "fixed", "20 · cosine of every cell with every prototype"),
            "logits": Box(380, 5, 400, "output", "logits, resized to 2×417×417"),
        },
        [
            Arrow("mask", "pool"),
            Arrow("support", "backbone"),
            Arrow("query", "backbone"),
            Arrow("backbone", "pool", "K×512×53×53", x=380),
            Arrow("backbone", "cosine", "512×53×53", x=635),
            Arrow("pool", "mean", "K×2×512"),
            Arrow("mean", "cosine", "prototypes 2×512"),
            Arrow("cosine", "logits", "2×53×53"),
        ],
    ),
    "sgone": Picture(
        "SG-One: the object's vector is compared with the query; the similarity map multiplies a "
        "segmentation branch",
        {
            **inputs(
                "375×500",
                Box(100, 0, 160, "", ""),
                Box(305, 0, 200, "", ""),
                Box(585, 0, 310, "", ""),
            ),
            "backbone": Box(472, 1, 535, "backbone", "VGG-16, stride 8, trained (vgg16_sgone)"),
            "guidance": Box(377, 2, 345, "learned", "guidance: 3×3 conv, 512 channels"),
            "side": Box(652, 2, 176, "learned", "side branch:\n3×3 conv, three times"),
            "pool": Box(197, 3, 354, "fixed", "masked average pooling, mean over shots"),
            "cosine": Box(480, 4, 150, "fixed", "cosine"),
            "multiply": Box(572, 5, 336, "fixed", "multiply"),
            "exit": Box(572, 6, 336, "learned", "3×3 conv, ReLU, 1×1 conv padded by 1"),
            "logits": Box(572, 7, 336, "output", "logits, resized to 2×375×500"),
        },
        [
            Arrow("mask", "pool"),
            Arrow("support", "backbone"),
            Arrow("query", "backbone"),
            Arrow("backbone", "guidance", "K×512×47×63", x=290),
            Arrow("backbone", "guidance", "512×47×63", x=480),
            Arrow("backbone", "side", "c3, c4, c5"),
            Arrow("guidance", "pool", "K×512×47×63", x=290),
            Arrow("guidance", "cosine", "512×47×63", x=480),
            Arrow("pool", "cosine", "vector 512", x=197),
            Arrow("cosine", "multiply", "47×63"),
            Arrow("side", "multiply", "128×47×63", x=652),
            Arrow("multiply", "exit", "128×47×63"),
            Arrow("exit", "logits", "2×49×65"),
        ],
    ),
    "cofcn": Picture(
        "co-FCN with early fusion: annotated supports are encoded to one vector, which is joined "
        "with every cell of the query",
        {
            **lanes("375×500"),
            "join": Box(252, 1, 465, "fixed", "join: image, background, foreground"),
            "supports": Box(252, 2, 465, "backbone", "support encoder: FCN-32s VGG-16, fc6"),
            "queries": Box(635, 2, 210, "backbone", "query encoder:\nFCN-32s VGG-16, fc6"),
            "mean": Box(252, 3, 465, "fixed", "mean over cells and shots"),
            "fc7": Box(380, 4, 720, "learned", "joined at every cell: fc7 (1×1 conv), ReLU"),
            "score": Box(380, 5, 400, "learned", "score (1×1 conv)"),
            "decoder": Box(380, 6, 400, "fixed", "fixed bilinear decoder, 32 times, crop"),
            "logits": Box(380, 7, 400, "output", "logits 2×375×500"),
        },
        [
            Arrow("mask", "join"),
            Arrow("support", "join"),
            Arrow("join", "supports", "K×5×375×500"),
            Arrow("query", "queries", "3×375×500"),
            Arrow("supports", "mean", "K×256×11×15"),
            Arrow("mean", "fc7", "vector 256"),
            Arrow("queries", "fc7", "256×11×15"),
            Arrow("fc7", "score", "256×11×15"),
            Arrow("score", "decoder", "2×11×15"),
            Arrow("decoder", "logits"),
        ],
    ),
    "guided": Picture(
        "Guided network: features pooled over annotations give a vector a class, which guides one "
        "head that all classes share",
        {
            **lanes("375×500"),
            "grid": Box(125, 1, 210, "fixed", "annotation grid,\neach class sums to 1"),
            "encoder": Box(507, 1, 465, "backbone", "FCN-32s VGG-16, fc6,\ntrained (vgg16_fcn32s)"),
            "pool": Box(252, 2.1, 465, "fixed", "weighted sum of cells, a class each"),
            "guide": Box(252, 3.1, 465, "fixed", "running mean over shots: the guide"),
            "head": Box(380, 4.1, 720, "learned", "for every class: fc7 (1×1 conv), ReLU, score"),
            "decoder": Box(380, 5.1, 400, "fixed", "fixed bilinear decoder, 32 times, crop"),
            "logits": Box(380, 6, 400, "output", "logits 2×375×500"),
        },
        [
            Arrow("mask", "grid"),
            Arrow("support", "encoder"),
            Arrow("query", "encoder"),
            Arrow("grid", "pool", "K×2×11×15"),
            Arrow("encoder", "pool", "K×256×11×15", x=380),
            Arrow("encoder", "head", "256×11×15", x=635),
            Arrow("pool", "guide", "K×2×256"),
            Arrow("guide", "head", "guide 2×256"),
            Arrow("head", "decoder", "2×11×15"),
            Arrow("decoder", "logits"),
        ],
    ),
    "hsnet": Picture(
        "HSNet: cosine of all pairs of query and support cells at three strides, squeezed by 4D "
        "convolutions and decoded",
        {
            **lanes("400×400"),
            "backbone": Box(
                507,
                1,
                465,
                "backbone",
                "ResNet-50, frozen; maps of its blocks:\n4×512×50×50, 6×1024×25×25, 3×2048×13×13",
            ),
            "masked": Box(252, 2.1, 465, "fixed", "multiply by the resized mask"),
            "pairs": Box(380, 3.1, 720, "fixed", "cosine of all pairs of cells, negative ones 0"),
            "c5": Box(125, 4.1, 210, "learned", "squeeze c5: 4D conv"),
            "c4": Box(380, 4.1, 210, "learned", "squeeze c4: 4D conv"),
            "c3": Box(635, 4.1, 210, "learned", "squeeze c3: 4D conv"),
            "merge4": Box(252, 5.1, 465, "learned", "resize c5 to c4, add, 4D conv"),
            "merge3": Box(380, 6.1, 720, "learned", "resize to c3, add, 4D conv"),
            "decoder": Box(380, 7.1, 400, "learned", "mean over support cells, decoder"),
            "logits": Box(380, 8.1, 400, "output", "logits, resized to 2×400×400"),
        },
        [
            Arrow("mask", "masked"),
            Arrow("support", "backbone"),
            Arrow("query", "backbone"),
            Arrow("backbone", "masked", "all, K times", x=380),
            Arrow("backbone", "pairs", "all, once", x=635),
            Arrow("masked", "pairs", "all, one shot after the other"),
            Arrow("pairs", "c5", "3×13×13×13×13"),
            Arrow("pairs", "c4", "6×25×25×25×25"),
            Arrow("pairs", "c3", "4×50×50×50×50"),
            Arrow("c5", "merge4", "128×13×13×2×2"),
            Arrow("c4", "merge4", "128×25×25×2×2"),
            Arrow("merge4", "merge3", "128×25×25×2×2"),
            Arrow("c3", "merge3", "128×50×50×2×2"),
            Arrow("merge3", "decoder", "128×50×50×2×2"),
            Arrow("decoder", "logits", "2×100×100"),
        ],
    ),
    "dcama": Picture(
        "DCAMA: attention from query cells to support cells averages the support's mask; coarse "
        "masks of three strides are merged and joined with features",
        {
            **lanes("384×384"),
            "backbone": Box(
                507,
                1,
                465,
                "backbone",
                "ResNet-50, frozen; maps of its blocks:\n4×512×48×48, 6×1024×24×24, 3×2048×12×12",
            ),
            "attention": Box(
                360,
                2.2,
                680,
                "learned",
                "attention, a stage its own projections:\n"
                "query cells ask, support cells are keys, mask pixels are values",
            ),
            "c5": Box(125, 3.3, 200, "learned", "conv c5"),
            "c4": Box(355, 3.3, 200, "learned", "conv c4"),
            "c3": Box(595, 3.3, 200, "learned", "conv c3"),
            "merge4": Box(240, 4.3, 430, "learned", "resize c5 to c4, add, conv"),
            "merge3": Box(360, 5.3, 680, "learned", "resize to c3, add, conv"),
            "mixer": Box(
                380,
                6.3,
                720,
                "learned",
                "join the last maps of c3 (2×512×48×48), resize, join those of c2 (2×256×96×96);\n"
                "mixer: six 3×3 convs, resized twice",
            ),
            "logits": Box(380, 7.3, 400, "output", "logits 2×384×384"),
        },
        [
            Arrow("mask", "attention"),
            Arrow("support", "backbone"),
            Arrow("query", "backbone"),
            Arrow("backbone", "attention", "all, of query and K supports", x=380),
            Arrow("attention", "c5", "3×12×12"),
            Arrow("attention", "c4", "6×24×24"),
            Arrow("attention", "c3", "4×48×48"),
            Arrow("c5", "merge4", "128×12×12"),
            Arrow("c4", "merge4", "128×24×24"),
            Arrow("merge4", "merge3", "128×24×24"),
            Arrow("c3", "merge3", "128×48×48"),
            Arrow("merge3", "mixer", "128×48×48"),
            Arrow("backbone", "mixer", x=722),
            Arrow("mixer", "logits"),
        ],
    ),
    "msanet": Picture(
        "MSANet: five descriptions of query and class are joined by a meta learner, whose answer a "
        "learner of base classes corrects",
        {
            **lanes("473×473"),
            "backbone": Box(507, 1, 465, "backbone", "deep-stem ResNet-50, stride 8, frozen"),
            "maps": Box(
                380,
                2,
                720,
                "fixed",
                "maps of query and supports: c3 512, c4 1024, c5 2048 × 60×60, and 13 blocks;\n"
                "masks at their sizes",
            ),
            "query_part": Box(68, 3.15, 98, "learned", "query:\n1×1 conv,\nReLU"),
            "prototype": Box(172, 3.15, 98, "learned", "prototype:\nconv, mean\nin mask"),
            "similar": Box(276, 3.15, 98, "learned", "13 cosine\nmaps,\n1×1 conv"),
            "prior": Box(380, 3.15, 98, "fixed", "prior:\nbest cosine\nin c5"),
            "gate": Box(484, 3.15, 98, "learned", "support\nchannels\ngated"),
            "gram": Box(588, 3.15, 98, "fixed", "Gram\ndistance\nof c3"),
            "base": Box(692, 3.15, 98, "backbone", "base\nlearner,\nfrozen"),
            "merge": Box(276, 4.4, 514, "learned", "join 833 channels, 1×1 conv to 256"),
            "meta": Box(276, 5.3, 514, "learned", "ASPP, residual convs, classifier: meta learner"),
            "ensemble": Box(
                380, 6.3, 720, "learned", "ensemble: base classes are background, scores shifted"
            ),
            "logits": Box(380, 7.2, 400, "output", "scores, resized to 2×473×473"),
        },
        [
            Arrow("support", "backbone"),
            Arrow("query", "backbone"),
            Arrow("mask", "maps"),
            Arrow("backbone", "maps"),
            *(
                Arrow("maps", part)
                for part in ("query_part", "prototype", "similar", "prior", "gate", "gram", "base")
            ),
            Arrow("merge", "meta", "256×60×60"),
            Arrow("meta", "ensemble", "2×60×60"),
            Arrow("query_part", "merge", "256"),
            Arrow("prototype", "merge", "256"),
            Arrow("similar", "merge", "64"),
            Arrow("prior", "merge", "1"),
            Arrow("gate", "merge", "256"),
            Arrow("gram", "ensemble", "K", x=588),
            Arrow("base", "ensemble", "16×60×60", x=692, flip=True),
            Arrow("ensemble", "logits", "2×60×60"),
        ],
    ),
}


def render(picture: Picture) -> str:
    """The picture as SVG."""
    bottom = max(b.y + b.height / 2 for b in picture.boxes.values())
    height = round(bottom + 52)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" '
        'font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(picture.title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="{EDGE}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f6f8fa"/>',
    ]
    lines, labels = zip(*(draw_arrow(a, picture.boxes) for a in picture.arrows), strict=True)
    parts += [*lines, *map(draw_box, picture.boxes.values()), *labels, legend(height - 18)]
    return "\n".join([*filter(None, parts), "</svg>", ""])


def draw_box(box: Box) -> str:
    """A box with its text."""
    rows = box.text.split("\n")
    for text in rows:
        if CHARACTER * len(text) > box.width - 4:
            raise ValueError(f"{text!r} does not fit {box.width} px")
    first = box.y - LINE * (len(rows) - 1) / 2 + 4.5
    shape = (
        f'<rect x="{box.left:g}" y="{box.y - box.height / 2:g}" width="{box.width:g}" '
        f'height="{box.height:g}" rx="5" fill="{KINDS[box.kind][1]}" stroke="{EDGE}"/>'
    )
    return shape + "".join(
        text_at(box.x, first + LINE * i, text, FONT, "middle") for i, text in enumerate(rows)
    )


def draw_arrow(arrow: Arrow, boxes: dict[str, Box]) -> tuple[str, str]:
    """An arrow's line and its label, which is drawn above all boxes."""
    start, end = boxes[arrow.start], boxes[arrow.end]
    x = arrow.x if arrow.x is not None else shared_middle(start, end)
    points = []
    if start.left <= x <= start.right:
        points.append((x, start.y + start.height / 2))
    else:
        points += [(start.right if x > start.x else start.left, start.y), (x, start.y)]
    top = points[-1][1]
    if end.left <= x <= end.right:
        points.append((x, end.y - end.height / 2))
    else:
        points += [(x, end.y), (end.right if x > end.x else end.left, end.y)]
    bottom = next(y for px, y in points[1:] if px == x and y > top)
    path = "M" + "L".join(f"{px:g} {py:g}" for px, py in points)
    line = (
        f'<path d="{path}" fill="none" stroke="{EDGE}" stroke-width="1.4" marker-end="url(#tip)"/>'
    )
    if not arrow.label:
        return line, ""
    across = points[-1][1] != end.y - end.height / 2 and end.left > x
    if across:  # above its last part
        return line, text_at((x + end.left) / 2, end.y - 6, arrow.label, SMALL, "middle")
    y = min((top + bottom) / 2, top + ROW / 2) + 3
    if arrow.flip:
        return line, text_at(x - 6, y, arrow.label, SMALL, "end")
    if x + 6 + SMALL_CHARACTER * len(arrow.label) > WIDTH:
        raise ValueError(f"{arrow.label!r} runs out of the picture")
    return line, text_at(x + 6, y, arrow.label, SMALL, "start")


def shared_middle(a: Box, b: Box) -> float:
    """An x inside both boxes: the narrower one's centre where that lies in the other."""
    narrow, wide = sorted((a, b), key=lambda box: box.width)
    if wide.left <= narrow.x <= wide.right:
        return narrow.x
    left, right = max(a.left, b.left), min(a.right, b.right)
    if left >= right:
        raise ValueError(f"{a.text!r} and {b.text!r} share no column: give the arrow an x")
    return (left + right) / 2


def text_at(x: float, y: float, text: str, size: int, anchor: str) -> str:
    """A line of text."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">'
        f"{escape(text)}</text>"
    )


def legend(y: float) -> str:
    """What the colours mean, in one line."""
    parts, x = [], 24.0
    for name, colour in KINDS.values():
        parts.append(
            f'<rect x="{x:g}" y="{y - 10:g}" width="14" height="12" rx="2" fill="{colour}" '
            f'stroke="{EDGE}"/>' + text_at(x + 20, y, name, SMALL, "start")
        )
        x += 44 + SMALL_CHARACTER * len(name)
    return "".join(parts)


def main() -> None:
    """Write every picture beside this file."""
    for name, picture in PICTURES.items():
        Path(__file__).with_name(f"{name}.svg").write_text(render(picture), encoding="utf-8")


if __name__ == "__main__":
    main()
