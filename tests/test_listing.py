"""What `fss-bench list` says of a registered name, without importing it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_cli import fss_bench

from fss_bench import cli, registry
from fss_bench.backbone import DEFAULT_INPUT_SIZE
from fss_bench.registry import Entry, Registry, load_plugin_file, methods
from fss_bench.report.listing import describe, entry_lines

CARD = {
    "paper": "A Paper",
    "year": 2031,
    "venue": "ICML",
    "backbones": {"resnet50": 1234567, "vgg16": 8},
    "input_size": 400,
}
PLUGIN = '''
from fss_bench.registry import methods

{card}

@methods.register("nearest")
class Nearest:
    """Takes the nearest
    pixel."""
'''


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(registry.methods, "_classes", {})
    return registry.methods


@pytest.fixture
def plugin(own_registry: Registry, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Writes a plug-in file with these lines beside its class."""
    before = set(sys.modules)

    def write(card: str) -> Path:
        file = tmp_path / "nearest.py"
        file.write_text(PLUGIN.format(card=card))
        return file

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("fss_bench_plugin_"):
            del sys.modules[name]


def only(name: str) -> Entry:
    (entry,) = [e for e in registry.methods.entries() if e.name == name]
    return entry


def test_a_card_is_told_after_the_summary() -> None:
    entry = Entry("nearest", "Nearest: takes the nearest pixel.", "built-in", CARD)
    assert describe(entry) == (
        'Nearest: takes the nearest pixel; "A Paper", ICML 2031; input 400; '
        "trainable parameters on resnet50 1,234,567, vgg16 8"
    )


def test_a_card_without_a_summary_stands_alone() -> None:
    assert describe(Entry("n", "", "built-in", {"input_size": 9})) == "input 9"


def test_an_entry_without_a_card_is_its_summary() -> None:
    assert describe(Entry("n", "Takes it.", "built-in")) == "Takes it."
    assert describe(Entry("n", "Takes it.", "plug-in file")) == "Takes it. [plug-in file]"
    assert describe(Entry("n", "strange:Nearest", "strange-package")) == (
        "strange:Nearest [strange-package]"
    )


def test_every_builtin_method_tells_its_paper_backbones_size_and_parameters() -> None:
    entries = [e for e in methods.entries() if e.origin == "built-in"]
    assert {"panet", "sgone", "cofcn", "guided"} <= {e.name for e in entries}
    for entry in entries:
        card = entry.card
        assert set(card) - {"paper_input"} == set(CARD), entry.name
        assert 2015 < card["year"] < 2100
        assert card["venue"]
        assert card["input_size"] >= 100
        assert card["backbones"]
        assert set(card["backbones"]) <= set(registry.backbones.names())
        least = 0 if entry.name == "finetune" else 10**6  # which trains nothing before a test
        assert all(isinstance(n, int) and n >= least for n in card["backbones"].values())
        text = describe(entry)
        for value in (
            card["paper"],
            f"{card['venue']} {card['year']}",
            str(card["input_size"]),
        ):
            assert value in text
        for name, count in card["backbones"].items():
            assert f"{name} {count:,}" in text


@pytest.mark.parametrize("name", ["panet", "sgone", "cofcn", "guided"])
def test_the_numbers_of_a_card_are_those_of_the_method(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import torch

    from fss_bench import create_backbone, create_method

    monkeypatch.setattr("fss_bench.weights.state_sha256", lambda _: "")  # meta has no bytes
    card = only(name).card
    for backbone, count in card["backbones"].items():
        with torch.device("meta"):
            made = create_method(name, create_backbone(backbone, weights="none"))
        assert sum(p.numel() for p in made.parameters() if p.requires_grad) == count
        assert made.input_size == card["input_size"] == DEFAULT_INPUT_SIZE


@pytest.mark.parametrize("missing", CARD)
def test_a_card_that_lacks_something_tells_the_rest(missing: str) -> None:
    card = {k: v for k, v in CARD.items() if k != missing}
    text = describe(Entry("n", "It.", "built-in", card))
    told = {"paper": "A Paper", "year": "2031", "venue": "ICML", "backbones": "resnet50"}
    for key, value in {**told, "input_size": "400"}.items():
        assert (value in text) == (key != missing), (key, text)
    assert "; ;" not in text
    assert '""' not in text


@pytest.mark.parametrize(
    "card",
    [
        {"backbones": ["resnet50"]},
        {"backbones": None},
        {"backbones": {}},
        {"backbones": {"resnet50": "many", 3: None}},
        {"paper": None, "year": None},
        {"paper": "two\nlines", "year": "2020\n"},
        {"other": 1},
        {},
    ],
)
def test_a_strange_card_breaks_no_listing(card: dict[str, Any]) -> None:
    text = describe(Entry("n", "It.", "built-in", card))
    assert text.startswith("It")
    assert "\n" not in text
    assert "None" not in text.replace("3", "")


def test_lines_are_one_each_and_their_names_aligned() -> None:
    entries = [Entry("a", "First.", "built-in", CARD), Entry("long", "Second.", "built-in")]
    first, second = entry_lines(entries)
    assert first.startswith("a     First; ")
    assert second == "long  Second."
    assert len(first) > 80
    assert list(entry_lines([])) == []


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_lines_are_wrapped_under_their_names_on_a_terminal(columns: int) -> None:
    entries = methods.entries()
    for entry, text in zip(entries, entry_lines(entries, columns), strict=True):
        lines = text.splitlines()
        assert max(map(len, lines)) <= columns
        width = max(len(e.name) for e in entries) + 2
        assert lines[0].startswith(entry.name)
        assert all(line[:width].isspace() and line[width] != " " for line in lines[1:])
        assert " ".join(text.split()) == f"{entry.name} {describe(entry)}"


def test_a_very_narrow_terminal_breaks_nothing() -> None:
    for columns in (1, 5, 12):
        assert "".join(entry_lines(methods.entries(), columns))


def test_the_command_prints_a_line_a_method_when_piped() -> None:
    lines = fss_bench("list", "methods").stdout.splitlines()
    assert [line.split()[0] for line in lines] == methods.names()
    assert '"PANet: Few-Shot Image' in next(line for line in lines if line.startswith("panet "))


def test_the_command_wraps_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "terminal_width", lambda: 80)
    lines = fss_bench("list", "methods").stdout.splitlines()
    assert len(lines) > 2 * len(methods.names())
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("", "Takes the nearest [plug-in file]"),
        (f"CARD = {CARD}", 'Takes the nearest; "A Paper", ICML 2031; input 400; '),
        ("CARD = {'paper': 'A Paper'}", 'Takes the nearest; "A Paper" [plug-in file]'),
        ("CARD = {'backbones': {'resnet50': 3.5}}", "trainable parameters on resnet50 ["),
        ("CARD = 'a card'", "Takes the nearest [plug-in file]"),
        ("CARD = None", "Takes the nearest [plug-in file]"),
        ("CARD = 3 * ['x']", "Takes the nearest [plug-in file]"),
    ],
)
def test_a_plugin_files_card_is_told_where_it_can_be(
    plugin: Callable[[str], Path], card: str, told: str
) -> None:
    done = fss_bench("list", "methods", "--plugin", plugin(card))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("nearest")]
    assert told in line
    assert line.endswith("[plug-in file]")
    assert any(line.startswith("panet") for line in done.stdout.splitlines())


def test_a_class_made_by_hand_is_listed(own_registry: Registry) -> None:
    own_registry.register("mine")(type("Mine", (), {"__module__": "gone", "__doc__": "Mine."}))
    assert describe(only("mine")) == "Mine. [plug-in file]"
    own_registry.register("bare")(type("Bare", (), {"__module__": "gone", "__doc__": None}))
    assert describe(only("bare")) == "[plug-in file]"


def test_a_plugin_files_card_is_read_from_its_module(plugin: Callable[[str], Path]) -> None:
    load_plugin_file(plugin(f"CARD = {CARD}"))
    entry = only("nearest")
    assert isinstance(sys.modules[methods.get("nearest").__module__], ModuleType)
    assert entry.card == CARD
