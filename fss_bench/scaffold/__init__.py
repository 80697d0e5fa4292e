"""The package that `fss-bench new-method` writes: a method that works, to be changed."""

import importlib.util
import keyword
import os
import shutil
import sys
from pathlib import Path
from string import Template

from fss_bench.errors import FssBenchError, one_line
from fss_bench.registry import methods

TEMPLATES = Path(__file__).parent
FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "{name}.py": "method.py.txt",
    "test_{name}.py": "test.py.txt",
    "README.md": "README.md.txt",
}
"""File of the package -> its template."""
TAKEN = ("Backbone", "Features", "Method", "Tensor", "True", "False", "None")
"""Names that a class in the method's file must not have."""


def write_package(name: str, parent: Path) -> list[Path]:
    """Write the package into a new folder; all of it or nothing.

    Args:
        name: of the method, its module and the folder.
        parent: where the folder goes.

    Returns:
        The files.

    Raises:
        FssBenchError: a name that cannot be used, or a folder that is there or cannot be written.
    """
    folder = parent / name
    check_name(name, folder)
    words = {"name": name, "title": class_name(name), "project": name.lower().replace("_", "-")}
    unfinished = parent / f".{name}-{os.getpid()}"
    try:
        unfinished.mkdir()
        for file, template in FILES.items():
            text = (TEMPLATES / template).read_text(encoding="utf-8")
            target = unfinished / file.format(name=name)
            target.write_text(Template(text).substitute(words), encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise FssBenchError(
            f"cannot write {folder} ({one_line(error)}): go to another folder"
        ) from error
    return [folder / file.format(name=name) for file in FILES]


def check_name(name: str, folder: Path) -> None:
    """Refuse a name that would not work as method, module and folder.

    Raises:
        FssBenchError: it would not.
    """
    if not (name.isascii() and name.isidentifier() and name[0].isalpha() and name[-1] != "_"):
        raise FssBenchError(
            f"method name {name!r} is no name of a Python module: use letters, digits and _ "
            "inside, such as my_method"
        )
    if keyword.iskeyword(name):
        raise FssBenchError(f"method name {name!r} is a word of Python: choose another")
    if name in methods.names():
        raise FssBenchError(f"method {name!r} is registered already: choose another name")
    if os.path.lexists(folder):
        raise FssBenchError(f"{folder} is there already: choose another name, or move it away")
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise FssBenchError(
            f"method name {name!r} would hide the installed Python module of that name: choose "
            f"another, such as {name}_fss"
        )


def class_name(name: str) -> str:
    """`my_method` as a class, `MyMethod`."""
    found = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return f"{found}Method" if found in TAKEN else found
