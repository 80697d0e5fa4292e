"""Names to classes: built-ins, installed plug-ins (entry points) and ``--plugin`` files.

A built-in's name is its file's name in the plural folder, so listing imports nothing. Strangers use
the same door: the entry point group is the folder's dotted name (``fss_bench.methods``, …).
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from fss_bench.errors import FssBenchError, UnknownNameError, one_line

C = TypeVar("C", bound=type)


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


class Registry:
    """The registered classes of one kind.

    Args:
        kind: what an error message calls one of them, such as ``"method"``.
        group: dotted name of the folder with the built-ins, and of the entry point group.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._classes: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: register the class under a name.

        Raises:
            FssBenchError: the name is taken by another class.
        """

        def decorate(cls: C) -> C:
            self._add(name, cls)
            return cls

        return decorate

    def names(self) -> list[str]:
        """All names, sorted; imports no built-in and no plug-in."""
        return sorted({*self._builtin_files(), *self._entry_points(), *self._classes})

    def entries(self) -> list[Entry]:
        """One description a name, sorted; imports no built-in and no plug-in."""
        files, points = self._builtin_files(), self._entry_points()
        found = []
        for name in self.names():
            if name in files:
                found.append(_builtin_entry(name, files[name]))
            elif name in points:
                package = points[name].dist
                found.append(
                    Entry(name, points[name].value, package.name if package else "plug-in")
                )
            else:
                cls = self._classes[name]
                card = getattr(sys.modules.get(cls.__module__), "CARD", {})
                card = card if isinstance(card, Mapping) else {}
                found.append(Entry(name, _summary(cls), "plug-in file", card))
        return found

    def get(self, name: str) -> Any:
        """The class of a name, imported now if need be.

        Raises:
            UnknownNameError: no such name; the nearest one is suggested.
            FssBenchError: a plug-in that takes another's name, or that fails to import.
        """
        builtin, point = name in self._builtin_files(), self._entry_point(name)
        if builtin and point:
            raise FssBenchError(
                f"{self.kind} {name!r} is a built-in and also a plug-in ({point.value}): "
                "rename or uninstall the plug-in"
            )
        if builtin:
            importlib.import_module(f"{self.group}.{name}")
        elif point:
            self._add(name, _load(point, self.kind))
        if name not in self._classes:
            raise UnknownNameError(self.kind, name, self.names())
        return self._classes[name]

    def _add(self, name: str, cls: Any) -> None:
        if name in self._builtin_files() and cls.__module__ != f"{self.group}.{name}":
            raise FssBenchError(
                f"{self.kind} {name!r} is a built-in: register {_where(cls)} under another name"
            )
        taken = self._classes.get(name)
        if taken is not None and taken is not cls:
            raise FssBenchError(
                f"{self.kind} {name!r} is registered twice: {_where(taken)} and {_where(cls)}; "
                "rename one"
            )
        self._classes[name] = cls

    def _builtin_files(self) -> dict[str, Path]:
        folder = Path(__file__).parent / self.group.rpartition(".")[2]
        return {f.stem: f for f in sorted(folder.glob("*.py")) if f.stem != "__init__"}

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _entry_point(self, name: str) -> EntryPoint | None:
        points = {p.value: p for p in entry_points(group=self.group) if p.name == name}
        if len(points) > 1:
            raise FssBenchError(
                f"{self.kind} {name!r} is offered by several plug-ins ({', '.join(points)}): "
                "uninstall all but one"
            )
        return next(iter(points.values()), None)


methods = Registry("method", "fss_bench.methods")
datasets = Registry("dataset", "fss_bench.datasets")
backbones = Registry("backbone", "fss_bench.backbones")


def load_plugin_file(path: Path) -> None:
    """Run a Python file whose decorators register methods, datasets or backbones.

    Raises:
        FssBenchError: the file is missing or fails to import.
    """
    if not path.is_file():
        raise FssBenchError(f"plug-in file not found: {path}")
    name = f"fss_bench_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    if name in sys.modules:  # the same file twice: its names are registered already
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FssBenchError(f"plug-in {path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise FssBenchError(f"plug-in {path} failed: {one_line(error)}") from error


def _load(point: EntryPoint, kind: str) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise FssBenchError(
            f"{kind} plug-in {point.name!r} ({point.value}) failed: {type(error).__name__}: {error}"
        ) from error


def _where(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _summary(cls: Any) -> str:
    return ((cls.__doc__ or "").strip().splitlines() or [""])[0]


def _builtin_entry(name: str, file: Path) -> Entry:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    summary = ((ast.get_docstring(tree) or "").splitlines() or [""])[0]
    return Entry(name, summary, "built-in", _card(tree))


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
