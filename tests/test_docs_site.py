"""The docs site: every page has a place, every link leads somewhere, nothing is foreign."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import fss_bench
from fss_bench.protocols import PROTOCOLS
from fss_bench.registry import backbones, datasets, methods

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def load(name: str) -> Any:
    """A module of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


catalogue = load("catalogue")


def nav_pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from nav_pages(part)


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def test_every_page_is_in_the_nav_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = sorted(nav_pages(config["nav"]))
    there = sorted(page.relative_to(DOCS).as_posix() for page in PAGES)
    assert listed == there, "give every page of docs/ a place in the nav of mkdocs.yml"


def test_links_stay_on_the_site_and_reach_their_heading() -> None:
    for page in PAGES:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if link.startswith(("http:", "https:")):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            where = f"{page.relative_to(ROOT)}: {link}"
            assert target.is_file(), where
            assert target.is_relative_to(DOCS), f"{where} is not on the site: name it in `code`"
            assert not anchor or anchor in anchors(target), where


@pytest.mark.parametrize("name", sorted(catalogue.PAGES))
def test_the_catalogue_is_up_to_date(name: str) -> None:
    written = (catalogue.HERE / catalogue.FILES[name]).read_text(encoding="utf-8")
    assert written == catalogue.PAGES[name](), "run python docs/catalogue.py"


def test_the_catalogue_names_all_that_is_registered() -> None:
    for kind in (methods, datasets, backbones):
        page = (DOCS / "catalogue" / f"{kind.kind}s.md").read_text(encoding="utf-8")
        own = [entry.name for entry in kind.entries() if entry.origin == "built-in"]
        assert len(own) > 4
        assert all(f"`{name}`" in page for name in own)
    page = (DOCS / "catalogue" / "protocols.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in PROTOCOLS)
    assert "| `min_pixels` | `2048` |" in page
    api = (DOCS / "api.md").read_text(encoding="utf-8")
    assert all(f"## `{name}`" in api for name in fss_bench.__all__)


def test_formulas_become_mathml_and_code_does_not() -> None:
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("latex2mathml")
    extension = load("site_math").SiteMath()
    text = "Let $a_1$ be `$x$`, at $5 or $6.\n\n```math\n\\frac{1}{N}\n\\sum_k k\n```\n"
    html = markdown.markdown(text, extensions=[extension])
    assert html.count("<math") == 2
    assert "<msub><mi>a</mi><mn>1</mn></msub>" in html
    assert "<code>$x$</code>, at $5 or $6." in html
    assert re.search(r'display="block".*<mfrac>.*<mi>N</mi>.*<mi>k</mi>', html)
    with pytest.raises(ValueError, match=r"\\nonsense is not understood"):
        markdown.markdown(r"$\nonsense + 1$", extensions=[extension])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    paths = os.pathsep.join([str(tmp_path / "docs"), str(ROOT)])
    built = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
        capture_output=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        assert not list(loaded_from_elsewhere(page.read_text(encoding="utf-8"))), page
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet


def loaded_from_elsewhere(html: str) -> Iterator[str]:
    """What a browser fetches from another host to show a page; links are not."""
    for tag in re.findall(r"<(?:script|img|iframe|source|video|audio|object|embed)\b[^>]*>", html):
        yield from re.findall(r"(?:src|srcset|data)=[\"']?((?:https?:)?//[^\"' >]+)", tag)
    for tag in re.findall(r"<link\b[^>]*>", html):
        if not re.search(r"rel=[\"']?(?:canonical|next|prev|alternate)\b", tag):
            yield from re.findall(r"href=[\"']?((?:https?:)?//[^\"' >]+)", tag)


def test_the_search_for_foreign_resources_finds_them() -> None:
    page = (
        '<script src="https://a/b.js"></script><img src=//c/d.png><a href="https://e">f</a>'
        '<link rel="stylesheet" href="https://g/h.css"><link rel="canonical" href="https://i">'
        '<img src="images/j.png"><script src=assets/k.js></script>'
    )
    assert list(loaded_from_elsewhere(page)) == ["https://a/b.js", "//c/d.png", "https://g/h.css"]
