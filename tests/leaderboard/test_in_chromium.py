"""The site in a real browser: nothing fails, charts draw, filters and differences work, everybody can read it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leaderboard import site
from tests.leaderboard.browser import DESK, PHONE, Browser
from tests.leaderboard.test_site import HOSTILE, toy_store

PAGES = (
    "index.html", "attempts.html", "rules.html", "data/index.html", "baseline/gcide/index.html",
    "baseline/fineweb-small/index.html", "compare.html?a=toy/cpu-1thread/001&b=toy/cpu-1thread/003",
    "compare.html?a=nanogpt/1/040&b=nanogpt/1/041", "gcide-cpu-1thread/index.html", "toy-cpu-1thread/index.html",
    "toy-cpu-1thread/003.html", "toy-cpu-1thread/methods.html", "toy-cpu-1thread/methods/rope.html",
    "nanogpt-1/index.html", "nanogpt-1/041.html", "nanogpt-1/methods/muon.html", "nanogpt-3/046.html",
)  # fmt: skip
ACCESSIBILITY = (Path(__file__).parent / "accessibility.js").read_text()
NARROWEST = (320, 640)  # WCAG 2.2, 1.4.10: a page must fit without scrolling sideways
NAMED = {"link", "button", "searchbox", "textbox", "combobox", "region", "image", "figure", "navigation", "heading"}
UNNAMED_BY_DESIGN = {"figure"}  # has its name from its caption, where it has one
TABS = 45
FIRST_ROW = "document.querySelector('#{}').tBodies[0].rows[0].cells[{}].textContent.trim()"
SHOWN_ROWS = "[...document.querySelector('#{}').tBodies[0].rows].filter((row) => !row.hidden).length"
FOCUSED = """(() => {
  const focused = document.activeElement;
  if (focused === document.body) return null;
  const style = getComputedStyle(focused), box = focused.getBoundingClientRect();
  return {
    what: focused.outerHTML.slice(0, 120), width: parseFloat(style.outlineWidth), style: style.outlineStyle,
    inside: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
  };
})()"""


@pytest.fixture
def visit(browser: Browser, whole_site: Path) -> Callable[..., Browser]:
    """Opens a page of the whole site."""

    def opened(place: str, **how: Any) -> Browser:
        browser.open(f"file://{whole_site}/{place}", **how)
        return browser

    return opened


def wait_for(browser: Browser, condition: str) -> None:
    """Waits until a condition holds in the page, for what is loaded after it."""
    script = f"""new Promise((done) => {{
      const look = () => ({condition}) ? done(true) : setTimeout(look, 10);
      setTimeout(() => done(false), 20000);
      look();
    }})"""
    assert browser.evaluate(script), condition


@pytest.mark.parametrize("place", PAGES)
def test_a_page_loads_without_an_error_and_everybody_can_read_it(visit: Callable[..., Browser], place: str) -> None:
    for size, dark in ((DESK, False), (DESK, True), (PHONE, False)):
        browser = visit(place, size=size, dark=dark)
        if "toy/" in place and "compare" in place:
            wait_for(browser, "document.querySelector('pre.diff')")
        assert browser.problems == []
        assert browser.evaluate(ACCESSIBILITY) == [], (size, dark)


@pytest.mark.parametrize("place", PAGES)
def test_whatever_can_be_used_has_a_name(visit: Callable[..., Browser], place: str) -> None:
    browser = visit(place)
    browser.send("Accessibility.enable")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    browser.send("Accessibility.disable")
    used = [node for node in nodes if not node["ignored"] and node["role"]["value"] in NAMED - UNNAMED_BY_DESIGN]
    assert len(used) > 5
    assert [node for node in used if not node.get("name", {}).get("value", "").strip()] == []


@pytest.mark.parametrize("place", PAGES)
def test_no_page_is_wider_than_a_phone(visit: Callable[..., Browser], place: str) -> None:
    for size in (PHONE, NARROWEST):
        browser = visit(place, size=size)
        if "toy/" in place and "compare" in place:
            wait_for(browser, "document.querySelector('pre.diff')")
        assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("place", ["index.html", "toy-cpu-1thread/003.html", "nanogpt-1/methods.html"])
def test_the_focus_goes_on_and_can_be_seen(visit: Callable[..., Browser], place: str) -> None:
    browser = visit(place)
    seen = []
    for _ in range(TABS):
        browser.press("Tab")
        focused = browser.evaluate(FOCUSED)
        if focused is None:
            break
        assert focused["style"] != "none" and focused["width"] >= 2 and focused["inside"], focused
        seen.append(focused["what"])
    assert "Skip to the content" in seen[0]
    assert all(first != second for first, second in itertools.pairwise(seen))
    assert len(set(seen)) > 8


@pytest.mark.parametrize(
    ("place", "charts", "marks"),
    [
        ("index.html", 4, 100),
        ("toy-cpu-1thread/003.html", 3, 10),
        ("nanogpt-1/041.html", 3, 20),
        ("nanogpt-3/046.html", 3, 8),
    ],
)
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_charts_draw(visit: Callable[..., Browser], place: str, charts: int, marks: int, size: tuple[int, int]) -> None:
    found = visit(place, size=size).evaluate("""(() => {
      const shown = [...document.querySelectorAll("svg.chart")].filter((chart) => chart.checkVisibility());
      const inside = (mark, box) => {
        const at = mark.getBoundingClientRect();
        return at.left >= box.left - 1 && at.right <= box.right + 1
          && at.top >= box.top - 1 && at.bottom <= box.bottom + 1;
      };
      return {
        charts: shown.length,
        marks: shown.flatMap((chart) => [...chart.querySelectorAll(".dot")]).length,
        outside: shown.flatMap((chart) => [...chart.querySelectorAll(".dot, text")]
          .filter((mark) => !inside(mark, chart.getBoundingClientRect())).map((mark) => mark.outerHTML)),
        empty: shown.flatMap((chart) => [...chart.querySelectorAll("path.line")])
          .filter((line) => line.getTotalLength() < 20).length,
        meeting: shown.filter((chart) => {
          const texts = [...chart.querySelectorAll("text")].map((text) => text.getBoundingClientRect());
          return texts.some((a, i) => texts.some((b, j) => i < j && a.left < b.right && b.left < a.right
            && a.top < b.bottom - 1 && b.top < a.bottom - 1));
        }).map((chart) => chart.getAttribute("aria-label")),
      };
    })()""")
    assert found["charts"] == charts and found["marks"] >= marks
    assert found["outside"] == [] and found["empty"] == 0 and found["meeting"] == []


def test_a_point_says_what_it_is_and_leads_there(visit: Callable[..., Browser]) -> None:
    browser = visit("nanogpt-1/index.html")
    place = browser.evaluate("""(() => {
      const box = document.querySelector(".on-desk .dot").getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    })()""")
    browser.move_to(*place)
    assert not browser.evaluate("document.getElementById('tip').hidden")
    assert browser.evaluate("document.getElementById('tip').textContent").startswith("001, 2024-05-28: 45.000 minutes")
    assert browser.evaluate("document.querySelector('.on-desk .dot').closest('a').getAttribute('href')") == "001.html"


def test_filters_narrow_the_table_and_stay_in_the_address(visit: Callable[..., Browser]) -> None:
    browser = visit("nanogpt-1/methods.html?kind=optimizer&state=stands")
    every = browser.evaluate("document.querySelector('#methods').tBodies[0].rows.length")
    standing = browser.evaluate(SHOWN_ROWS.format("methods"))
    assert every == 185 and 0 < standing < 60
    browser.evaluate("""(() => {
      const field = document.querySelector("input[name=q]");
      field.value = "muon";
      field.dispatchEvent(new Event("input", { bubbles: true }));
    })()""")
    narrowed = browser.evaluate(SHOWN_ROWS.format("methods"))
    assert 0 < narrowed < standing
    address = browser.evaluate("location.href")
    assert "q=muon" in address and "kind=optimizer" in address
    assert browser.evaluate("document.querySelector('form output').textContent") == f"{narrowed} of 185 shown"
    browser.open(address)
    assert browser.evaluate(SHOWN_ROWS.format("methods")) == narrowed
    assert browser.problems == []


def test_a_filter_that_the_page_does_not_have_shows_nothing_and_breaks_nothing(visit: Callable[..., Browser]) -> None:
    browser = visit("nanogpt-1/methods.html?kind=%3Cscript%3E&q=%5B%2A")
    assert browser.evaluate(SHOWN_ROWS.format("methods")) == 0
    assert browser.problems == []


def test_tables_are_sorted_by_mouse_and_keyboard(visit: Callable[..., Browser]) -> None:
    browser = visit("nanogpt-1/methods.html")
    column = "[...document.querySelectorAll('#methods thead th')].findIndex((th) => th.textContent.includes('Effect'))"
    head = f"document.querySelectorAll('#methods thead th')[{column}]"
    browser.evaluate(f"{head}.querySelector('button').click()")
    assert browser.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"
    shown = browser.evaluate(f"""[...document.querySelector('#methods').tBodies[0].rows]
      .map((row) => parseFloat(row.cells[{column}].textContent)).filter((value) => !Number.isNaN(value))""")
    assert len(shown) > 20 and shown == sorted(shown, reverse=True)
    browser.evaluate(f"{head}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.evaluate(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert browser.evaluate(f"parseFloat({FIRST_ROW.format('methods', browser.evaluate(column))})") == shown[-1]


def test_any_two_own_records_are_compared_with_source(visit: Callable[..., Browser]) -> None:
    browser = visit("compare.html?a=toy/cpu-1thread/001&b=toy/cpu-1thread/003")
    wait_for(browser, "document.querySelectorAll('pre.diff').length === 2")
    said = browser.evaluate("document.getElementById('compared').textContent")
    assert "Methods only in toy/cpu-1thread/003: 2" in said
    added = browser.evaluate("[...document.querySelectorAll('.diff .gi')].map((line) => line.textContent)")
    assert "+LAST = 1\n" in added and "+[methods.smear]\n" in added
    assert browser.evaluate("document.querySelector('.command code').textContent").endswith(
        "toy/cpu-1thread/001 toy/cpu-1thread/003"
    )
    browser.evaluate("""(() => {
      const second = document.querySelector("select[name=b]");
      second.value = "toy/cpu-1thread/001";
      second.dispatchEvent(new Event("input", { bubbles: true }));
    })()""")
    wait_for(browser, "document.getElementById('compared').textContent.includes('Files that differ: 0')")
    assert "b=toy%2Fcpu-1thread%2F001" in browser.evaluate("location.href")
    assert browser.problems == []


@pytest.mark.parametrize(
    ("before", "after", "script"),
    [
        ("a b c", "a c", " a|-b| c"),
        ("a b", "a x b y", " a|+x| b|+y"),
        ("", "a", "-|+a"),
        ("a b c d", "b d c", "-a| b|-c| d|+c"),
    ],
)
def test_the_difference_of_two_texts(visit: Callable[..., Browser], before: str, after: str, script: str) -> None:
    lines = [text.split(" ") for text in (before, after)]
    made = visit("compare.html").evaluate(
        f"differingLines({lines[0]}, {lines[1]}).map((line) => line.join('')).join('|')"
    )
    assert made == script


def test_two_imported_records_are_compared_without_source(visit: Callable[..., Browser]) -> None:
    browser = visit("compare.html?a=nanogpt/1/040&b=nanogpt/1/041")
    said = browser.evaluate("document.getElementById('compared').textContent")
    assert "Methods only in nanogpt/1/041: 1" in said and "normuon" in said
    assert browser.evaluate("document.querySelectorAll('pre.diff').length") == 0
    browser.open(browser.evaluate("location.href").replace("041", "999"))
    assert browser.evaluate("document.getElementById('compared').textContent") == "Choose two records."
    assert browser.problems == []


@pytest.mark.parametrize("place", ["index.html", "nanogpt-1/index.html", "toy-cpu-1thread/003.html", "compare.html"])
def test_without_javascript_everything_is_there_and_nothing_pretends(visit: Callable[..., Browser], place: str) -> None:
    browser = visit(place, scripts=False)
    assert browser.evaluate(
        "[...document.querySelectorAll('form, [data-copy]')].every((one) => !one.checkVisibility())"
    )
    if place == "compare.html":
        assert "Choosing two records needs JavaScript." in browser.evaluate("document.body.innerText")
        return
    assert browser.evaluate("document.querySelectorAll('svg.chart').length") > 0
    assert browser.evaluate("document.querySelectorAll('.chart title').length") > 3
    assert browser.evaluate(ACCESSIBILITY) == []


def test_own_evidence_is_on_its_pages(visit: Callable[..., Browser]) -> None:
    said = visit("toy-cpu-1thread/003.html").evaluate("document.body.innerText")
    for part in (
        "as fast at equal loss",
        "in tokens per second",
        "agrees",
        "speedrun verify toy/cpu-1thread/003",
        "speedrun revert toy/cpu-1thread/003 --drop smear",
        "Every run that was judged",
    ):
        assert part in said  # fmt: skip
    said = visit("toy-cpu-1thread/methods/smear.html").evaluate("document.body.innerText")
    assert "Record 3 brought nothing else, and was 1.1" in said and "It took 1 line:" in said
    said = visit("attempts.html").evaluate("document.body.innerText")
    assert "slower" in said
    visit("attempts.html?verdict=slower")
    assert visit("attempts.html?verdict=slower").evaluate(SHOWN_ROWS.format("attempts")) == 1


def test_the_evidence_of_a_tuned_baseline_is_shown_with_its_plots(visit: Callable[..., Browser]) -> None:
    browser = visit("baseline/gcide/index.html")
    assert (
        browser.evaluate("[...document.images].map((image) => image.naturalWidth > 100 && image.complete)")
        == [True] * 2
    )
    said = browser.evaluate("document.body.innerText")
    assert "What is left on the table" in said and "expected best of half" in said
    assert "Not tuned" not in said
    assert browser.evaluate("document.querySelectorAll('.report table').length") >= 8
    assert "Not tuned yet." in visit("baseline/fineweb-small/index.html").evaluate("document.body.innerText")


def test_hostile_records_run_nothing(browser: Browser, tmp_path: Path) -> None:
    content = dataclasses.replace(site.read(tmp_path / "no-records"), store=toy_store(3, HOSTILE))
    site.build(tmp_path / "site", content)
    for place in ("index.html", "toy-cpu-1thread/index.html", "toy-cpu-1thread/002.html", "attempts.html",
                  "toy-cpu-1thread/methods/m1.html", "compare.html"):  # fmt: skip
        browser.open(f"file://{tmp_path}/site/{place}")
        assert browser.problems == []
        assert browser.evaluate("document.querySelectorAll('img, script:not([src])').length") == 0
        assert "<script>alert(1)</script>" in browser.evaluate("document.body.textContent"), place
        assert browser.evaluate("document.documentElement.scrollWidth") <= DESK[0]
