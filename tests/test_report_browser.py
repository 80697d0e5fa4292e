"""The HTML page in a real browser, offline: filters, sorting, keyboard, sizes, both themes."""

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from report_pages import store_grid

from fss_bench import create_dataset
from fss_bench.report.page import to_html
from fss_bench.report.page.pictures import EpisodePictures
from fss_bench.results import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking".split()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: one of {', '.join(BROWSERS)}")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture
def address(place: Path, make_run: Callable[..., Run]) -> str:
    file = place / "report.html"
    if not file.exists():
        rows = store_grid(place / "results", make_run)
        maker = EpisodePictures({"shapes": create_dataset("shapes")}, print)
        file.write_text(to_html(rows, pictures=maker), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing may have been asked for or complained about."""
    asked, complaints, contexts = [], [], []

    def make(width: int = 1440, scheme: str = "light", name: str = "") -> Any:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, offline=True))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + name)
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
    assert all(one.partition("#")[0] == address or one.startswith("data:") for one in asked)


def column(page: Any, number: int, table: int = 0) -> list[str]:
    script = (
        "([t, n]) => [...document.querySelectorAll('.ranked')[t].tBodies[0].rows]"
        ".map(row => row.cells[n].innerText.split('\\n')[0])"
    )
    return list(page.evaluate(script, [table, number]))


def shown(page: Any) -> list[str]:
    return [one.inner_text() for one in page.locator(".group > h2").all() if one.is_visible()]


def test_filters_hide_what_does_not_fit(open_page: Callable[..., Any]) -> None:
    page = open_page()
    assert page.locator("#count").inner_text() == "7 rows in 3 tables"
    page.get_by_label("dataset").select_option("shapes")
    page.get_by_label("shots").select_option("5")
    assert [title.split(",")[1] for title in shown(page)] == [" 1-way 5-shot"]
    page.get_by_label("backbone").select_option("vgg16_panet")
    assert page.locator("#count").inner_text() == "1 rows in 1 tables"
    assert page.locator(".ranked tbody tr:visible").count() == 1
    page.get_by_label("dataset").select_option("pascal5i@3-abcdef")
    assert page.locator("#count").inner_text().startswith("Nothing fits")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.getElementById('count').innerText.startsWith('7 rows')")
    assert page.locator(".ranked tbody tr:visible").count() == 7


def test_columns_sort_both_ways(open_page: Callable[..., Any]) -> None:
    page = open_page()
    table = page.locator(".ranked").nth(1)
    assert len(column(page, 8, 1)) == 3
    before = column(page, 8, 1)
    assert before == sorted(before, key=float, reverse=True)
    head = table.locator("th", has_text="mIoU")
    head.get_by_role("button").click()
    assert column(page, 8, 1) == before[::-1]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert column(page, 8, 1) == before
    assert head.get_attribute("aria-sort") == "descending"
    assert table.locator("[aria-sort]").count() == 1
    table.locator("th", has_text="method").get_by_role("button").click()
    assert column(page, 1, 1) == sorted(column(page, 1, 1), key=str.lower)


def test_the_keyboard_reaches_everything(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "board"
    for _ in range(3):  # the region of the table, its first head, its second
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "method"
    page.keyboard.press("Enter")
    sorting = "document.activeElement.closest('th').getAttribute('aria-sort')"
    assert page.evaluate(sorting) == "ascending"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_a_row_opens_its_page_and_back(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator(".ranked").nth(1).locator("tbody a", has_text="panet").click()
    page.locator("article.open").wait_for()  # the hash changes after the click
    (article,) = (one for one in page.locator("article").all() if one.is_visible())
    assert "panet" in article.locator("h2").inner_text()
    assert article.locator("img").count() == 6
    assert article.locator(".bars").count() == 2
    assert not page.locator("main").is_visible()
    assert page.evaluate("document.activeElement.id") == article.get_attribute("id")
    sizes = "[...document.querySelectorAll('article.open img')].map(i => i.naturalWidth)"
    article.locator("img").last.scroll_into_view_if_needed()
    page.wait_for_function(f"{sizes}.every(width => width > 300)")
    page.get_by_role("link", name="All results").click()
    page.locator("main").wait_for()
    assert not article.is_visible()
    page.go_back()
    article.wait_for()
    assert not page.locator("main").is_visible()


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("number", [None, 0, 3])
def test_no_size_scrolls_sideways(
    open_page: Callable[..., Any], width: int, number: int | None
) -> None:
    page = open_page(width)
    if number is not None:
        page.locator(".ranked tbody a").nth(number).click()
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('body *')].filter(e => e.offsetParent && "
        "e.childNodes.length === 1 && e.innerText)"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 11


def contrast(page: Any, selector: str) -> float:
    """Of text and paper, by WCAG 2."""
    script = """selector => {
      const rgb = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
      const light = text => rgb(text).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const pair = [light(getComputedStyle(document.querySelector(selector)).color),
                    light(getComputedStyle(document.body).backgroundColor)].sort((a, b) => b - a);
      return (pair[0] + 0.05) / (pair[1] + 0.05);
    }"""
    return float(page.evaluate(script, selector))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page(scheme=scheme)
    paper = "getComputedStyle(document.body).backgroundColor"
    for turn in range(2):
        for selector in ("h1", ".detail", ".ranked a", "small"):
            assert contrast(page, selector) > 4.5, (selector, turn)
        before = page.evaluate(paper)
        page.get_by_role("button", name="Dark").click()
        assert page.evaluate(paper) != before
    dark = page.get_by_role("button", name="Dark").get_attribute("aria-pressed")
    assert dark == ("true" if scheme == "dark" else "false")


def test_costs_in_the_plots(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator("details", has_text="Accuracy against cost").first.locator("summary").click()
    for choice, label in (("flops", "GFLOPs an episode"), ("parameters", "parameters, millions")):
        page.get_by_label("cost in the plots").select_option(choice)
        visible = [one for one in page.locator(".scatter svg").all() if one.is_visible()]
        assert len(visible) == 1
        assert label in (visible[0].get_attribute("aria-label") or "")


def test_numbers_in_the_plot_stay_those_of_the_list(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.get_by_label("backbone").select_option("vgg16_panet")
    dots = page.locator(".scatter g .number:visible").all_text_contents()
    listed = page.evaluate(
        "[...document.querySelectorAll('.scatter li')].filter(e => e.offsetParent)"
        ".map(e => String(e.value))"
    )
    assert dots == listed == ["3", "3"]  # third of its table, at each of two shots


def test_text_in_a_plot_can_be_read_on_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page(360)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    drawn = page.evaluate(
        "[...document.querySelectorAll('.tick, .number')].filter(e => e.getBoundingClientRect()"
        ".width).map(e => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a)"
    )
    assert drawn
    assert min(drawn) >= 10


def test_heads_stay_in_sight(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.set_viewport_size({"width": 1440, "height": 300})  # less than the page is long
    row = page.locator(".ranked").nth(1).locator("tbody tr").nth(1)
    row.evaluate("row => scrollTo(0, scrollY + row.getBoundingClientRect().top - 20)")
    head = page.locator(".ranked").nth(1).locator("thead th").first
    assert head.evaluate("head => head.getBoundingClientRect().top") == pytest.approx(0, abs=1)


def test_everything_has_a_name(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.evaluate("document.querySelectorAll('.run').forEach(one => one.classList.add('open'))")
    nameless = page.evaluate(
        """[...document.querySelectorAll('select, button, svg, img, table, [role=region]')]
        .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('alt') || e.labels?.length
          || e.querySelector('caption')?.textContent || (e.tagName === 'BUTTON' && e.textContent)))
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.evaluate("document.querySelectorAll('td > span.bar:not([style])').length") == 0


def test_without_scripts_all_is_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(address)
    assert page.locator("article").last.is_visible()
    assert page.locator(".ranked tbody tr").count() == 7
    context.close()
