"""`key=value` options from the command line, and constructor calls whose mistakes read well."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

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


def construct(cls: Callable[..., T], what: str, fixed: Mapping[str, Any], options: Any) -> T:
    """Call a class with fixed arguments and a user's options.

    Raises:
        UnknownNameError: an option that the class does not take; the nearest is suggested.
    """
    taken = inspect.signature(cls).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    for key in options:
        if key in fixed or (key not in taken and not open_ended):
            raise UnknownNameError(f"option of {what}", key, set(taken) - set(fixed))
    return cls(**fixed, **options)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
