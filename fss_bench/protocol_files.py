"""Protocols of your own, as TOML: `base = "hsnet"` and the rules that differ."""

import tomllib
from dataclasses import replace
from pathlib import Path

from fss_bench.errors import FssBenchError, UnknownNameError, one_line
from fss_bench.protocols import PROTOCOLS, EvaluationProtocol, check_name


def read_protocol(path: Path | str) -> EvaluationProtocol:
    """A protocol from a TOML file.

    Without a `name` it keeps its base's and shows as that with the changed rules, so that it is the
    same protocol as one changed by `--rule`. With a name it shows under that.

    Args:
        path: a TOML file with `base`, the name of a protocol (by default `standard`), perhaps
            `name`, and rules.

    Raises:
        UnknownNameError: no such base or rule; the nearest is suggested.
        FssBenchError: the file cannot be read, is no TOML, or holds a wrong value.
    """
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FssBenchError(
            f'protocol file {file} does not exist: write base = "standard" and rules there'
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FssBenchError(f"{file} cannot be read as TOML ({one_line(error)})") from error
    base = content.pop("base", "standard")
    if not isinstance(base, str) or base not in PROTOCOLS:
        raise UnknownNameError(f"base of {file}", str(base), PROTOCOLS)
    name = content.pop("name", base)
    if name != base:
        _check_name(file, name)
    try:
        changed = PROTOCOLS[base].replace_rules(content)
    except FssBenchError as error:
        raise FssBenchError(f"{file}: {error}") from error
    return replace(changed, name=name)


def _check_name(file: Path, name: object) -> None:
    try:
        check_name(name)
    except FssBenchError as error:
        raise FssBenchError(f"{file}: {error}") from None
    if name in PROTOCOLS:
        raise FssBenchError(f"{file}: protocol name {name!r} is taken: choose another")
