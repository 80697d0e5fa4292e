"""Writes docs/protocol-comparison.md: `python docs/protocol_comparison.py`.

It is made of the named protocols, of the texts under the rules in fss_bench/protocols.py, of the
measured effects in fss_bench/protocol_effects.py, and of published-codes.csv beside this file,
which is written by hand.
"""

import ast
import csv
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path

from fss_bench import protocols
from fss_bench.protocol_effects import EFFECTS, SCOPES
from fss_bench.protocols import PROTOCOLS
from fss_bench.report.protocol_diff import shown

HERE = Path(__file__).parent
PAGE = HERE / "protocol-comparison.md"
CODES = HERE / "published-codes.csv"

GROUPS = {
    "order": "Drawing episodes",
    "image_resize": "Images and masks",
    "kshot": "Scores",
    "fold_scheme": "COCO and training",
}
"""The first rule of each table of named protocols -> its heading."""
DRAWING = {
    "code": "code",
    "nearest": "nearest of ours",
    "queries": "queries",
    "supports": "supports",
    "runs": "seeds, runs and episodes a fold",
    "coco_folds": "COCO folds",
}
SCORING = {
    "code": "code",
    "input": "input",
    "iou_at": "IoU at",
    "query_255": "255 in the query",
    "kshot": "K shots",
    "aggregation": "scores",
    "training": "training images",
}
REPOSITORIES = {"code": "code", "repository": "repository", "commit": "commit", "note": "note"}
"""Columns of published-codes.csv -> their headings, for each of the three tables."""

INTRODUCTION = """\
# Protocols compared

What is a rule of a protocol, which values the named protocols have, what the published codes do,
and by how much a rule changes a score where somebody measured it. This page is written by
`python docs/protocol_comparison.py`; [protocols.md](protocols.md) says how to use protocols. Any
two can be compared by

```bash
fss-bench protocols diff hsnet pfenet
```

Facts about published codes were read in their released source, at the
[commits listed](#repositories). "From memory" marks what was not read. Issues are of the repository
of the code named. Effects are as their source has them, not measured by us; mIoU is in percent.
"""
NAMED = "## Named protocols\n\nValues that differ from `standard` are bold.\n"
RULES = """\
## Rules

The text under each rule is the one in `fss_bench/protocols.py`; beneath it stand measured effects.
A rule without any has no known size.
"""
PUBLISHED = """\
## Published codes

The same codes in two tables: how episodes are drawn, and how they are scored. "Nearest of ours" is
the named protocol that has most in common with it, which does not say that nothing differs. The
tables are made from [published-codes.csv](published-codes.csv). "-" is: does not apply.
"""
FACTS = """\
## Lists and masks

Counted from the lists in the repositories.

- PASCAL training lists: 5,953 images are SBD's 5,623 and VOC 2012's 1,464 without duplicates
  (PFENet and its family), 10,582 are `trainaug` (PANet, revolver; filtered in HSNet and CANet).
  HSNet's own lists hold 10,092 images, 5,682 of them among the 5,953: a model on PFENet's lists
  sees about half of the images of one on HSNet's. Tests are on the 1,449 of VOC 2012 val.

| PASCAL fold | 0 | 1 | 2 | 3 |
|---|---|---|---|---|
| HSNet: training pairs | 11,394 | 10,255 | 7,797 | 11,594 |
| HSNet: training images | 8,450 | 8,081 | 7,007 | 9,002 |
| of them with a novel class, kept as background | 637 | 1,298 | 1,945 | 896 |
| PFENet: training images | 4,760 | 4,588 | 4,097 | 5,108 |
| BAM: training images, without novel classes | 4,208 | 3,726 | 2,752 | 4,510 |
| HSNet: test pairs (images) | 346 (345) | 451 (433) | 725 (587) | 346 (326) |
| PFENet, BAM: test pairs | 365 | 467 | 734 | 357 |
| test pairs in both | 343 | 451 | 717 | 345 |
| VRP-SAM: test images | 364 | 445 | 592 | 336 |

- HSNet's queries walk their list in turn, so its 1,000 episodes of fold 0 are 229, 164, 250, 166
  and 191 of a class, and 541 of fold 2 are person.

| COCO fold, interleaved | 0 | 1 | 2 | 3 |
|---|---|---|---|---|
| HSNet: training images | 62,040 | 74,381 | 73,035 | 73,808 |
| of them with a novel class | 36,403 | 25,515 | 19,701 | 19,832 |
| BAM: training images, without novel classes | 21,917 | 41,809 | 43,045 | 44,614 |
| test images | 26,052 | 15,305 | 13,138 | 12,640 |

- BAM's and SCCAN's COCO test lists are HSNet's. The rarest test classes are hair drier (37 images)
  and toaster (38); person has 19,217.
- Masks of PASCAL are `SegmentationClassAug`. The originals of VOC (1,464 train, 1,449 val) have the
  border of 255, those converted from SBD have none (from memory): 255 matters in every test image,
  but in a part of training only.
- Two sets of COCO masks circulate, PFENet's and HSNet's, and are not equal: with HSNet's, BAM
  falls to about 39 on COCO fold 0 (BAM issue 30). In both the later annotation covers the earlier;
  RePRI's script draws the first polygon of an object alone and leaves crowds out.

## What no rule says

- The backbone: "ResNet-50" is torchvision's first weights in HSNet, a deep stem (`resnet50_v2`) in
  PFENet, in BAM, MSANet and HDMNet that one after training on base classes, timm's `a1h` in DCAMA.
  A run stores its weights' sha256.
- Which checkpoint: HSNet, DCAMA, VAT, PFENet, BAM, CANet and revolver choose it on the test
  episodes; PANet takes the last.
- A 5-shot model of its own (PANet, PFENet, BAM, MSANet, HDMNet), or the 1-shot model with five
  supports (HSNet, DCAMA, VAT).
- Training on the test classes. HSNet on PASCAL has 68.7 and 73.8 so (1-shot, 5-shot), else 66.2 and
  70.4; on COCO 41.7 and 50.7, else 41.2 and 49.5 (table in DiffewS' paper). SegGPT's and Painter's
  rows are of this kind.
- Text: FSS-SAM3 on COCO has 66.6 without the class's name and 75.8 with it (table image in its
  repository).
- Several GPUs: VRP-SAM on four draws the same 250 episodes on each.
"""


def docstrings() -> dict[str, str]:
    """Rule -> the text under it in protocols.py, a paragraph a line."""
    tree = ast.parse(Path(protocols.__file__).read_text(encoding="utf-8"))
    (body,) = (
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "EvaluationProtocol"
    )
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            paragraphs = ast.literal_eval(text.value).strip().split("\n\n")
            found[ast.unparse(field.target)] = "\n\n".join(" ".join(p.split()) for p in paragraphs)
    return {rule: found[rule] for rule in PROTOCOLS["standard"].rules}


def published_codes() -> list[dict[str, str]]:
    """Rows of published-codes.csv."""
    with CODES.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def named_tables() -> Iterator[str]:
    """Rules by named protocols, a table a group."""
    groups: dict[str, list[list[str]]] = {}
    heading = ""
    for rule, usual in PROTOCOLS["standard"].rules.items():
        heading = GROUPS.get(rule, heading)
        values = [protocol.rules[rule] for protocol in PROTOCOLS.values()]
        cells = [shown(v) if v == usual else f"**{shown(v)}**" for v in values]
        groups.setdefault(heading, []).append([f"[`{rule}`](#{rule})", *cells])
    for heading, rows in groups.items():
        yield f"### {heading}\n\n" + table(["rule", *(f"`{name}`" for name in PROTOCOLS)], rows)


def rule_sections() -> Iterator[str]:
    """A section a rule: its text, its scope, its effects."""
    for rule, text in docstrings().items():
        paragraphs = [wrapped(paragraph) for paragraph in text.split("\n\n")]
        scope = [f"Matters for: {SCOPES[rule].removesuffix(' only')}."] if rule in SCOPES else []
        items = [wrapped(f"- {e.text} ({e.source}).", "  ") for e in EFFECTS.get(rule, ())]
        effects = ["\n".join(items)] if items else []
        yield "\n\n".join([f"### {rule}", *paragraphs, *scope, *effects]) + "\n"


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph in lines of the other pages' length."""
    escaped = text.replace("*", "\\*")  # a line that begins with one would be a list
    return textwrap.fill(
        escaped, 108, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def code_tables() -> Iterator[str]:
    """The master comparison: drawing, scoring."""
    codes = [c for c in published_codes() if c["queries"] != "-"]
    for columns in (DRAWING, SCORING):
        rows = ([cell(code, column) for column in columns] for code in codes)
        yield table(list(columns.values()), rows)


def repository_table() -> str:
    """The repositories with the commit that was read."""
    rows = ([cell(code, column) for column in REPOSITORIES] for code in published_codes())
    return "## Repositories\n\n" + table(list(REPOSITORIES.values()), rows)


def cell(code: dict[str, str], column: str) -> str:
    """A cell of published-codes.csv as Markdown."""
    text = code[column]
    if column == "nearest" and text in PROTOCOLS:
        return f"`{text}`"
    if column == "repository" and "/" in text:
        return f"[{text}](https://github.com/{text})"
    return text


def render() -> str:
    """The page."""
    parts = chain(
        [INTRODUCTION, NAMED],
        named_tables(),
        [RULES],
        rule_sections(),
        [PUBLISHED],
        code_tables(),
        [FACTS, repository_table()],
    )
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
