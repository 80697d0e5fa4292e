"""Names to classes: built-ins, installed plug-ins (entry points) and ``--plugin`` files.

A built-in's name is its file's name in the plural folder, so listing imports nothing. Strangers use
the same door: the entry point group is the folder's dotted name (``fss_bench.methods``, …).
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from fss_bench.entry import Entry, entry_in, installed_entry, loaded_entry
from fss_bench.errors import FssBenchError, UnknownNameError, one_line

C = TypeVar("C", bound=type)
FILE_PREFIX = "fss_bench_plugin_"
"""What the modules of plug-in files are called, before a digest of their path."""

__all__ = [
    "Entry",
    "Registry",
    "backbones",
    "datasets",
    "load_plugin_file",
    "methods",
]


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
                found.append(entry_in(files[name], name, "built-in"))
            elif name in points:
                found.append(installed_entry(points[name]))
            else:
                found.append(loaded_entry(name, self._classes[name]))
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

    def get_derived(self, name: str, base: type) -> Any:
        """The class of a name, which must derive from a base.

        Raises:
            FssBenchError: it does not; or see `get`.
        """
        cls = self.get(name)
        if not issubclass(cls, base):
            raise FssBenchError(
                f"{self.kind} {name!r} ({_where(cls)}) does not derive from "
                f"{base.__module__}.{base.__name__}: add that as its base class"
            )
        return cls

    def _add(self, name: str, cls: Any) -> None:
        if not isinstance(cls, type):
            raise FssBenchError(
                f"{self.kind} {name!r} is no class but of type {type(cls).__name__}: "
                "register a class"
            )
        if name in self._builtin_files() and cls.__module__ != f"{self.group}.{name}":
            raise FssBenchError(
                f"{self.kind} {name!r} is a built-in: register {_where(cls)} under another name"
            )
        taken = self._classes.get(name)
        if taken is not None and taken is not cls:
            raise FssBenchError(
                f"{self.kind} {name!r} is registered twice: {_where(taken)} and {_where(cls)}; "
                "rename one, or leave out --plugin"
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
    name = f"{FILE_PREFIX}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    if name in sys.modules:  # the same file twice: its names are registered already
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FssBenchError(f"plug-in {path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that exits would end the command unsaid
        del sys.modules[name]
        raise FssBenchError(f"plug-in {path} failed: {_reason(error)}") from error


def _load(point: EntryPoint, kind: str) -> Any:
    plugin = f"{kind} plug-in {point.name!r} ({point.value})"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise FssBenchError(f"{plugin} failed: {_reason(error)}") from error
    if not isinstance(found, type):
        raise FssBenchError(
            f"{plugin} is no class but of type {type(found).__name__}: its pyproject.toml must "
            "name one, module:Class"
        )
    return found


def _reason(error: BaseException) -> str:
    """Why a plug-in failed; a mistake of ours to tell needs no type."""
    return str(error) if isinstance(error, FssBenchError) else one_line(error)


def _where(cls: Any) -> str:
    """Where a class is: of a plug-in file its path, else its module."""
    if cls.__module__.startswith(FILE_PREFIX):
        return f"{sys.modules[cls.__module__].__file__}:{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"
