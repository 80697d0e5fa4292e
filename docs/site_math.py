"""Formulas of the docs site as MathML, which browsers show without a script from elsewhere.

An extension of Python-Markdown that `mkdocs.yml` names: `$…$` in a line and ```math blocks, as
GitHub has them.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

INLINE = r"(?<![\\$\w])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])"
BEFORE_FENCES, AFTER_CODE = 28, 185
"""Places among Python-Markdown's steps: fences of code are found at 25, code in a line at 190."""


class UnknownCommandError(ValueError):
    """A formula with a command that is not understood, which would show as it is written."""


def mathml(formula: str, display: Literal["inline", "block"] = "inline") -> str:
    """A formula of LaTeX as MathML.

    Raises:
        UnknownCommandError: part of it is not understood.
    """
    shown = convert(re.sub(r"\\arg\b", r"\\mathrm{arg}\\,", formula), display=display)
    unknown = re.search(r">(\\\w+)<", shown)
    if unknown:
        raise UnknownCommandError(f"formula {formula!r}: {unknown[1]} is not understood")
    return shown


class InlineMath(InlineProcessor):
    """`$…$` in a line."""

    def handleMatch(  # type: ignore[override]  # noqa: N802
        self, m: re.Match[str], data: str
    ) -> tuple[Element | str, int, int]:
        """The formula, kept from further steps."""
        return self.md.htmlStash.store(mathml(m[1])), m.start(0), m.end(0)


class BlockMath(Preprocessor):
    """Blocks fenced by ```math."""

    def run(self, lines: list[str]) -> list[str]:
        """The lines with a placeholder for every block."""
        return list(self._replaced(lines))

    def _replaced(self, lines: Sequence[str]) -> Iterator[str]:
        block: list[str] | None = None
        for line in lines:
            if block is None and line.strip() == "```math":
                block = []
            elif block is not None and line.strip() == "```":
                formula = mathml(" ".join(block), "block")
                yield from ("", self.md.htmlStash.store(formula), "")
                block = None
            elif block is not None:
                block.append(line)
            else:
                yield line


class SiteMath(Extension):
    """Both."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register them."""
        md.preprocessors.register(BlockMath(md), "site_math_blocks", BEFORE_FENCES)
        md.inlinePatterns.register(InlineMath(INLINE, md), "site_math", AFTER_CODE)


def makeExtension(**options: Any) -> SiteMath:  # noqa: N802
    """What Python-Markdown looks for."""
    return SiteMath(**options)
