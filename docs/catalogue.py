"""Writes docs/api.md and the pages of docs/catalogue: `python docs/catalogue.py`.

They are made of what is public and registered in this package: docstrings, names, the first lines
of files, the cards of methods, the arguments of constructors, the table of sources. Installed
plug-ins are left out.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fss_bench
from fss_bench import registry
from fss_bench.protocols import PROTOCOLS, SUMMARIES, shown
from fss_bench.registry import Entry, Registry
from fss_bench.sources import DATASETS, WEIGHTS

HERE = Path(__file__).parent
FILES = {
    **{
        name: f"catalogue/{name}.md"
        for name in ("methods", "datasets", "backbones", "protocols", "sources")
    },
    "api": "api.md",
}
GIVEN = ("self", "backbone", "root")
"""Arguments of constructors that are no options."""
WRITTEN = "This page is written by `python docs/catalogue.py`; the command prints what you have:"


def methods() -> str:
    """The page of methods."""
    entries = _entries(registry.methods)
    rows = [
        [
            f"[`{entry.name}`](../methods/{entry.name}.md)",
            _plain(entry.summary),
            ", ".join(str(entry.card[key]) for key in ("paper", "venue", "year")),
            _sizes(entry.card.get("backbones", {})),
            str(entry.card.get("input_size", "the backbone's")),
        ]
        for entry in entries
    ]
    heads = ["name", "what it is", "paper", "published backbones: trainable parameters", "input"]
    text = "Every method runs on every backbone that has the levels it needs. `--option key=value`:"
    return _page(
        "Catalogue: methods",
        "list methods",
        [_table(heads, rows), text, _options(registry.methods, entries)],
        "[Methods in words and formulas](../methods/README.md), "
        "[how to add one](../add-a-method.md).",
    )


def datasets() -> str:
    """The page of datasets."""
    entries = _entries(registry.datasets)
    rows = []
    for entry in entries:
        cls = registry.datasets.get(entry.name)
        rows.append([f"`{entry.name}`", _plain(entry.summary), "yes" if cls.needs_root else "no"])
    text = "`--dataset-option key=value`:"
    return _page(
        "Catalogue: datasets",
        "list datasets",
        [
            _table(["name", "what it is", "`--data-root`"], rows),
            text,
            _options(registry.datasets, entries),
        ],
        "[Layouts and rules](../datasets.md), [your own data](../your-own-data.md).",
    )


def backbones() -> str:
    """The page of backbones."""
    entries = _entries(registry.backbones)
    rows = [[f"`{entry.name}`", _plain(entry.summary)] for entry in entries]
    text = "Any other timm model works by its timm name. `--backbone-option key=value`:"
    return _page(
        "Catalogue: backbones",
        "list backbones",
        [_table(["name", "what it is"], rows), text, _options(registry.backbones, entries)],
        "[Weights of backbones](../weights.md), [pretraining](../pretraining.md).",
    )


def protocols() -> str:
    """The page of protocols."""
    usual = PROTOCOLS["standard"].rules
    rows = []
    for name, protocol in PROTOCOLS.items():
        changed = [
            f"`{rule}={shown(value)}`"
            for rule, value in protocol.rules.items()
            if value != usual[rule]
        ]
        rows.append([f"`{name}`", _plain(SUMMARIES[name]), ", ".join(changed) or "none"])
    defaults = [[f"`{rule}`", f"`{shown(value)}`"] for rule, value in usual.items()]
    return _page(
        "Catalogue: protocols",
        "list protocols",
        [
            _table(["name", "what it is", "rules that differ from `standard`"], rows),
            "The rules of `standard`; `--rule key=value` changes one:",
            _table(["rule", "value"], defaults),
        ],
        "[How to use protocols](../protocols.md), [rule by rule, with what published codes "
        "do](../protocol-comparison.md).",
    )


def sources() -> str:
    """The page of what `data fetch` fetches."""
    rows = []
    for source in (*DATASETS.values(), *WEIGHTS.values()):
        for file in source.files:
            hashes = "<br>".join(f"{name} `{digits}`" for name, digits in file.hashes.items())
            rows.append(
                [
                    f"`{source.name}`",
                    f"[{file.name}]({file.url})",
                    f"{file.size:,}" if file.size else "not published",
                    f"{hashes}<br>{file.known_from}" if hashes else "not published",
                    f"`{source.backbone}`" if source.backbone else "",
                    file.terms,
                    f"[page]({file.page})",
                ]
            )
    heads = ["name", "file", "bytes", "hash, and who states it", "for", "terms", "by hand"]
    return _page(
        "Catalogue: sources",
        "data fetch pascal5i --dry-run",
        [
            _table(heads, rows),
            "A short hash is the first digits of one. Where no whole sha256 is published, that of "
            "the first fetch is kept and must stay the same.",
        ],
        "[How to fetch](../fetching.md).",
    )


def api() -> str:
    """The page of what `import fss_bench` gives."""
    parts = [_thing(name, getattr(fss_bench, name)) for name in fss_bench.__all__]
    return "\n\n".join([API, *parts]) + "\n"


API = """\
# API

What `import fss_bench` gives; names are imported when they are first used. All else may change
between versions. This page is written by `python docs/catalogue.py`."""
SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields")


def _thing(name: str, thing: Any) -> str:
    """A public name: its signature, its docstring, and of a class its public members."""
    parts = [f"## `{name}`", _signature(name, thing), _docstring(thing)]
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            function = inspect.unwrap(getattr(value, "__func__", value))
            public = member == "__call__" or not member.startswith("_")
            if public and inspect.isfunction(function) and function.__doc__:
                parts += [f"### `{name}.{member}`", _signature(member, function)]
                parts.append(_docstring(function))
    return "\n\n".join(part for part in parts if part)


def _signature(name: str, thing: Any) -> str:
    """A call as Python has it, without the types: docstrings say what is meant."""
    shown_parts, star = [], False
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown_parts.append("*")
            star = True
        text = str(parameter.replace(annotation=parameter.empty))
        shown_parts.append(re.sub(r"<factory>|<.* at 0x[0-9a-f]+>", "…", text))
        star = star or parameter.kind is parameter.VAR_POSITIONAL
    call = f"{name}({', '.join(shown_parts)})"
    if len(call) > 88:
        call = f"{name}(\n" + "".join(f"    {part},\n" for part in shown_parts) + ")"
    return f"```text\n{call}\n```"


def _docstring(thing: Any) -> str:
    """A Google docstring as Markdown: sections become lists."""
    blocks = []
    for block in inspect.cleandoc(thing.__doc__ or "").split("\n\n"):
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in SECTIONS and head.endswith(":"):
            blocks.append(f"*{head.rstrip(':')}*\n\n{_items(rest)}")
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


def _items(text: str) -> str:
    """`name: what` and its further lines as a list."""
    lines = []
    for line in textwrap.dedent(text).splitlines():
        name, colon, rest = line.partition(": ")
        if line.startswith(" "):
            lines.append(f"  {line.strip()}")
        elif colon and re.fullmatch(r"[\w*, ]+", name):
            lines.append(f"- `{name}`: {rest}")
        else:
            lines.append(f"- {line}")
    return "\n".join(lines)


PAGES: Mapping[str, Callable[[], str]] = {
    "methods": methods,
    "datasets": datasets,
    "backbones": backbones,
    "protocols": protocols,
    "sources": sources,
    "api": api,
}


def _entries(kind: Registry) -> list[Entry]:
    return [entry for entry in kind.entries() if entry.origin == "built-in"]


def _options(kind: Registry, entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        options = [f"`{name}={value}`" for name, value in _arguments(kind.get(entry.name))]
        rows.append([f"`{entry.name}`", ", ".join(options) or "none"])
    return _table(["name", "options with their defaults"], rows)


def _arguments(cls: type) -> Iterator[tuple[str, Any]]:
    """Keyword arguments of a constructor that users give as options, and their defaults."""
    if "__init__" not in vars(cls):
        return
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in (*GIVEN, "weights") and parameter.default is not inspect.Parameter.empty:
            yield name, parameter.default


def _sizes(backbones: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}` {size:,}" for name, size in backbones.items()) or "any: none"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _page(title: str, what: str, parts: Sequence[str], further: str) -> str:
    command = f"```bash\nfss-bench {what}\n```"
    return "\n\n".join([f"# {title}", WRITTEN, command, *parts, further]) + "\n"


def main() -> None:
    """Write all pages."""
    (HERE / "catalogue").mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (HERE / FILES[name]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
