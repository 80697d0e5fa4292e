"""What is known of a registered name without importing it: read from the text of its file."""

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One registered name, described without importing it.

    Attributes:
        name: what users call it.
        summary: the first line of its file.
        origin: `built-in`, the package of a plug-in, or `plug-in file`.
        card: the literal `CARD` of its file: for a method paper, year, venue, backbones with their
            trainable parameters, input size.
    """

    name: str
    summary: str
    origin: str
    card: Mapping[str, Any] = field(default_factory=dict)


def entry_in(file: Path, name: str, origin: str) -> Entry:
    """The entry of a name whose class is in a file.

    Raises:
        OSError, ValueError, SyntaxError: the file is no Python that can be read.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    summary = ((ast.get_docstring(tree) or "").splitlines() or [""])[0]
    return Entry(name, summary, origin, _card(tree))


def installed_entry(point: EntryPoint) -> Entry:
    """The entry of an installed plug-in; one that cannot be read is what its package calls it."""
    origin = (point.dist.name if point.dist else None) or "plug-in"
    file = _source(point.value.partition(":")[0].strip())
    try:
        found = entry_in(file, point.name, origin) if file else None
    except (OSError, ValueError, SyntaxError):
        found = None
    if found is None or not found.summary:
        return Entry(point.name, point.value, origin, found.card if found else {})
    return found


def loaded_entry(name: str, cls: type) -> Entry:
    """The entry of a class that a plug-in file registered."""
    summary = ((cls.__doc__ or "").strip().splitlines() or [""])[0]
    card = getattr(sys.modules.get(cls.__module__), "CARD", {})
    return Entry(name, summary, "plug-in file", card if isinstance(card, Mapping) else {})


def _source(module: str) -> Path | None:
    """The file of a module on the path; neither it nor its packages are imported."""
    top, *rest = module.split(".")
    spec = PathFinder.find_spec(top) if top else None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def _card(tree: ast.Module) -> Mapping[str, Any]:
    """The `CARD` of a file, where it is a literal; listing must not fail for one that is not."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if [getattr(target, "id", None) for target in targets] == ["CARD"]:
            try:
                card = ast.literal_eval(value)
            except ValueError:
                return {}
            return card if isinstance(card, Mapping) else {}
    return {}
