"""`key=value` options from the command line, and constructor calls whose mistakes read well."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fss_bench.errors import FssBenchError, UnknownNameError

T = TypeVar("T")


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`["scale=10", "level=c4"]` to a dict; numbers and true/false are recognised.

    Raises:
        FssBenchError: a pair without `=`.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise FssBenchError(f"option {pair!r} must look like key=value")
        options[key.replace("-", "_")] = _value(text)
    return options


def options_for(method: str, methods: Sequence[str], pairs: Sequence[str]) -> dict[str, Any]:
    """A method's options of a command for several: `scale=10` is for all, `panet.scale=10` for one.

    Raises:
        FssBenchError: a pair without `=`.
    """
    found = {}
    for key, value in parse_options(pairs).items():
        name, dot, rest = key.partition(".")
        if not dot or name not in methods:
            found[key] = value
        elif name == method:
            found[rest] = value
    return found


def construct(cls: Callable[..., T], what: str, fixed: Mapping[str, Any], options: Any) -> T:
    """Call a class with fixed arguments and a user's options.

    Raises:
        UnknownNameError: an option that the class does not take; the nearest is suggested.
        FssBenchError: a value of another type than the class says; an argument that it does not
            take, or one that it needs and nobody gave.
    """
    taken = inspect.signature(cls).parameters
    hints = get_type_hints(getattr(cls, "__init__", cls))
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    for key in options:
        if key in fixed or (key not in taken and not open_ended):
            raise UnknownNameError(f"option of {what}", key, set(taken) - set(fixed))
    _check_arguments(what, taken, fixed, options)
    fitted = {key: _fit(key, value, hints.get(key)) for key, value in options.items()}
    return cls(**fixed, **fitted)


def _check_arguments(
    what: str,
    taken: Mapping[str, inspect.Parameter],
    fixed: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Raise FssBenchError for a constructor that does not go with its arguments."""
    kinds = {p.kind for p in taken.values()}
    unknown = [key for key in fixed if key not in taken]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise FssBenchError(
            f"{what} takes no argument {unknown[0]!r}: let its constructor take it first"
        )
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [n for n, p in taken.items() if p.default is p.empty and p.kind not in open_ended]
    missing = [key for key in needed if key not in fixed and key not in options]
    if missing:
        raise FssBenchError(
            f"{what} needs option {missing[0]!r}: give {missing[0]}=value, or let it have a default"
        )


def _fit(key: str, value: Any, hint: Any) -> Any:
    """A value as its annotation wants it; annotations that are no plain types are left alone."""
    wanted = get_args(hint) or (hint,)
    if get_origin(hint) is tuple or not set(wanted) <= {bool, int, float, str, Path, type(None)}:
        return value
    is_bool = isinstance(value, bool)  # which Python counts as an int
    if bool in wanted if is_bool else isinstance(value, tuple(wanted)):
        return value
    if float in wanted and isinstance(value, int) and not is_bool:
        return float(value)
    if str in wanted and isinstance(value, (int, float)):
        return str(value)
    names = " or ".join(t.__name__ for t in wanted if t is not type(None))
    raise FssBenchError(f"option {key}={value!r}: it must be of type {names}")


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
