"""The site: every link resolves, what strangers wrote stays text, and it reads without JavaScript and in Chromium."""

from __future__ import annotations

import dataclasses
import gc
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.paths import RECORDS
from leaderboard import charts, columns, pictures, site, store
from leaderboard.board_page import board_page
from leaderboard.compare import difference
from leaderboard.store import Board, Row, Store
from tests.cli.test_run import speedrun
from tests.evidence.board import Board as RacedBoard

HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror=alert(2)>" onmouseover="alert(3)\' {{7*7}} \x1b[2J\u202e'
)
PLOTS = {"tuning_curve.svg", "one_knob_curves.svg"}  # of the baseline's report, which is ours
VOID = {"meta", "link", "input", "br", "img", "hr"}
EMPTY = {
    **dict.fromkeys(columns.RECORDS),
    "methods_added": [],
    "methods_dropped": [],
    "run_list": [],
    "curve": [],
    "pair_ratios": [],
}


class Page(HTMLParser):
    """What the tests need to know of a page; unbalanced tags are counted."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def toy_record(number: int, text: str = "A toy") -> Row:
    """An own record with runs and a curve, every text of it the given one."""
    return EMPTY | {
        "record": f"toy/cpu-1thread/{number:03d}", "board": "toy/cpu-1thread", "number": number, "kind": "record",
        "date": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}", "title": text, "authors": [text, "@b"],
        "score": 100.0 / number, "score_unit": "seconds", "speedup": float(number), "speedup_low": number - 0.1,
        "speedup_high": number + 0.1, "parent": f"toy/cpu-1thread/{number - 1:03d}" if number > 1 else None,
        "target": 3.38, "runs": 4, "loss_mean": 3.37, "loss_std": 0.004, "p_value": 0.004, "trust": "isolated",
        "verified": 0, "reference": f"toy/cpu-1thread/{number:03d}-x", "note": text, "machine": text, "steps": 40,
        "methods_added": [f"m{number}"],
        "run_list": [[text, 3.36 + 0.005 * n, 10.0, True, "candidate", text] for n in range(4)],
        "curve": [[10 * n, 6.0 - n, 3.0 * n, None] for n in range(1, 5)],
    }  # fmt: skip


def toy_store(count: int, text: str = "A toy") -> Store:
    method = {**dict.fromkeys(columns.METHODS), "history": "toy/cpu-1thread", "kind": "optimizer", "replaces": []}
    methods = [
        method | {"method": f"m{n}", "name": text, "introduced": n, "introduced_on": "2026-01-01", "evidence": text}
        for n in range(1, count + 1)
    ]
    verification = {
        name: text if described.dtype == columns.TEXT else None for name, described in columns.VERIFICATIONS.items()
    }
    attempt = {**dict.fromkeys(columns.ATTEMPTS), "board": "toy/cpu-1thread", "authors": [text], "title": text}
    attempt |= {"methods_added": [text], "methods_dropped": ["m1", text]}
    ablation = {
        name: text if described.dtype == columns.TEXT else 1.0 for name, described in columns.ABLATIONS.items()
    } | {"record": "toy/cpu-1thread/001", "board": "toy/cpu-1thread", "methods": ["m1"], "date": "2026-01-02"}
    return Store(
        boards={"toy/cpu-1thread": Board("toy/cpu-1thread", "A toy", 3.38, True, "seconds", False, "records/")},
        columns={name: list(described) for name, described in columns.FRAMES.items()},
        records=[toy_record(n, text) for n in range(1, count + 1)], methods=methods,
        verifications=[{**verification, "record": "toy/cpu-1thread/001"}],
        attempts=[attempt | {"attempt": "toy/cpu-1thread/attempts/1", "verdict": "slower", "ratio": 0.9}],
        ablations=[ablation],
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own site."""
    out = tmp_path_factory.mktemp("site")
    site.build(out, site.read(RECORDS))
    return out


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of records that were written to break it."""
    out = tmp_path_factory.mktemp("hostile")
    site.build(out, dataclasses.replace(site.read(out / "no-records"), store=toy_store(5, HOSTILE)))
    return out


def pages(folder: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(folder.rglob("*.html"))}


def test_every_link_leads_to_a_file_and_none_needs_a_host(built: Path, hostile: Path) -> None:
    for folder in (built, hostile):
        for path, page in pages(folder).items():
            targets = [a.get(name) for _, a in page.tags for name in ("href", "src") if a.get(name)]
            for target in targets:
                parts = urlsplit(target)
                if parts.scheme == "https":
                    assert parts.netloc == "github.com", (path, target)
                elif parts.scheme != "data":
                    assert not target.startswith("/"), (path, target)
                    assert not parts.path or (path.parent / unquote(parts.path)).is_file(), (path, target)


def test_pages_are_well_formed_and_named(built: Path, hostile: Path) -> None:
    for folder in (built, hostile):
        for path, page in pages(folder).items():
            assert not page.unbalanced and not page.open, path
            assert len(page.all("h1")) == 1, path
            ids = [a["id"] for _, a in page.tags if a.get("id")]
            assert len(ids) == len(set(ids)), path
            assert all(a.get("aria-label") for a in page.all("svg")), path
            assert all(a.get("scope") for a in page.all("th")), path
            assert page.all("html")[0].get("lang") == "en"


def test_nothing_is_loaded_from_elsewhere(built: Path) -> None:
    for page in pages(built).values():
        loaded = [a.get("src") for a in page.all("script")] + [
            a.get("href") for a in page.all("link") if a.get("rel") == "stylesheet"
        ]
        assert all(source and not urlsplit(source).scheme for source in loaded)
    assert "http" not in (built / "assets/style.css").read_text()


def test_what_strangers_wrote_stays_text(hostile: Path) -> None:
    for path, page in pages(hostile).items():
        assert all("src" in a for a in page.all("script")), path
        assert {a["src"] for a in page.all("img")} <= PLOTS, path
        assert not any(name.startswith("on") for _, a in page.tags for name in a), path
        assert "\x1b" not in page.text and "\u202e" not in page.text, path
    shown = Page(hostile / "toy-cpu-1thread/001.html").text
    assert "<script>alert(1)</script>" in shown
    assert r"\x1b[2J\u202e" in shown
    script = (hostile / "data/compare.js").read_text()
    assert script.isascii() and script.count("\n") == 1


def test_a_method_of_any_name_has_a_page(built: Path) -> None:
    assert (built / "nanogpt-1/methods/fp8-scale-constants-2~5e9.html").is_file()
    assert site.slug("../x") == "..~2fx"


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_of_level_aa(theme: int) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1, in the light and in the dark theme."""
    style = (site.HERE / "static/style.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", style.split(":root {")[theme + 1].split("}")[0]))
    for text in ("ink", "muted", "accent", "warm", "good"):
        for ground in ("paper", "raised"):
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb as WCAG defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_imported_pages_say_that_nothing_was_raced_here(built: Path) -> None:
    for path in (built / "nanogpt-1").rglob("*.html"):
        assert "Self-reported, not raced here." in path.read_text(), path


def test_the_record_page_shows_every_run_and_what_the_log_is(built: Path) -> None:
    page = Page(built / "nanogpt-1/041.html")
    assert "20 runs, mean loss 3.27839" in page.text
    assert "p = 6e-5" in page.text
    assert len([a for a in page.all("circle") if a.get("class") == "dot"]) == 40  # twenty, wide and narrow
    assert "baseline's" in Page(built / "nanogpt-1/048.html").text
    assert "No log is archived" in Page(built / "nanogpt-1/086.html").text


def test_the_record_page_names_what_stands_and_how_to_drop_it(built: Path) -> None:
    """Record 5 added nothing: it dropped Muon, and what it kept can be dropped too."""
    shown = Page(built / "gcide-cpu-1thread/005.html")
    for method in ("bigrams", "bfloat16", "compile"):
        assert {"class": "kept", "href": f"methods/{method}.html"} in shown.all("a")
        assert f"speedrun revert gcide/cpu-1thread/005 --drop {method}" in shown.text
    assert "--drop muon" not in shown.text.partition("Try it")[2]


def test_a_later_baseline_has_none_of_the_methods_of_the_chain() -> None:
    known = toy_store(3)
    third = known.records[2]
    assert known.standing_methods(third) == ["m1", "m2", "m3"]
    assert known.standing_methods(third | {"kind": "baseline", "methods_added": []}) == []


def test_the_home_page_is_small(built: Path, tmp_path: Path) -> None:
    assert (built / "index.html").stat().st_size < 500_000
    many = dataclasses.replace(toy_store(1000), methods=[])
    site.build(tmp_path / "site", dataclasses.replace(site.read(tmp_path / "no-records"), store=many))
    assert 100_000 < (tmp_path / "site/index.html").stat().st_size < 500_000
    assert (tmp_path / "site/toy-cpu-1thread/1000.html").is_file()


def test_the_data_can_be_read_back(built: Path) -> None:
    import pandas as pd

    records = pd.read_csv(built / "data/records.csv")
    assert len(pd.read_parquet(built / "data/records.parquet")) == len(records) == len(store.load().records)
    assert (built / "data/feed.atom").read_text().count("<entry>") == 50


def test_the_same_records_give_the_same_pages(built: Path, tmp_path: Path) -> None:
    site.build(tmp_path, site.read(RECORDS))
    for path in (*built.rglob("*.html"), built / "data/feed.atom"):
        assert path.read_bytes() == (tmp_path / path.relative_to(built)).read_bytes(), path


def test_a_folder_that_is_no_site_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    done = speedrun("board", "build", "--out", tmp_path)
    assert done.returncode == 1
    assert "no site of ours" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_charts_of_extreme_numbers_are_finite() -> None:
    drawn = [
        charts.strip([("a", 3.28), ("b", 3.28)], [charts.Rule("mean", 3.28, "mean")], 358, "x"),
        charts.progression([charts.Mark(1, 1.0, "a"), charts.Mark(1, 1.0, "b")], 358, "x"),
        charts.curves([charts.Line("a", [(1, 3.0), (2, 3.0), (3, 3.0)])], 3.0, 358, "x", "steps"),
    ]
    assert not any(re.search(r"nan|inf", picture) for picture in drawn)


def test_a_few_records_of_one_day_are_drawn_side_by_side_with_their_limits(raced: RacedBoard) -> None:
    content = site.read(raced.where.records)
    board = content.store.boards["toy/cpu-1thread"]
    page = board_page(content.store, board)
    assert len({row["date"] for row in page.records}) == 1
    wide = str(pictures.progress(page, "")[0])
    for row in page.records:
        assert f">{row['number']:03d}</text>" in wide
    places = re.findall(r'cx="([0-9.]+)"', wide)
    assert len(set(places)) == len(page.records)
    raced_rows = [row for row in page.records if row["speedup_low"] is not None]
    bars = re.findall(r'<path class="axis" d="M[0-9.]+ ([0-9.]+)V([0-9.]+)"/>', wide)
    assert len(bars) == len(raced_rows) and all(float(low) >= float(high) for low, high in bars)


def test_imported_records_are_drawn_against_the_day(raced: RacedBoard) -> None:
    known = site.read(raced.where.records).store
    board = known.boards["toy/cpu-1thread"]
    assert pictures.by_number(board_page(known, board))
    assert not pictures.by_number(board_page(known, dataclasses.replace(board, imported=True)))


def test_a_record_that_is_no_number_is_refused() -> None:
    with pytest.raises(UserError):
        dataclasses.replace(toy_store(1)).record("toy/cpu-1thread/9")


def test_the_site_as_it_was_on_a_day(raced: RacedBoard, tmp_path: Path) -> None:
    import pandas as pd

    site.build(tmp_path, site.read(raced.where.records, "2025-10-23"))
    for path, page in pages(tmp_path).items():
        assert "as they were known at the end of 2025-10-23" in page.text, path
    assert (tmp_path / "nanogpt-1/040.html").is_file() and not (tmp_path / "nanogpt-1/041.html").exists()
    assert (tmp_path / "nanogpt-1/methods/muon.html").is_file()
    assert not (tmp_path / "nanogpt-1/methods/normuon.html").exists()
    assert "no: it stands" in Page(tmp_path / "nanogpt-1/methods/muon.html").text
    assert not (tmp_path / "toy-cpu-1thread").exists()
    records = pd.read_csv(tmp_path / "data/records.csv")
    assert set(records.record) == {row["record"] for row in store.load(tmp_path / "data/leaderboard.json").records}
    assert records.date.max() <= "2025-10-23"
    assert "2025-10-24" not in (tmp_path / "data/feed.atom").read_text()


def test_the_data_of_the_site_is_that_of_the_repository(built: Path) -> None:
    assert store.load(built / "data/leaderboard.json") == site.printable(store.load())


def test_the_command_builds_the_site_of_a_day(tmp_path: Path) -> None:
    done = speedrun("board", "build", "--out", tmp_path / "site", "--as-of", "2024-12-31")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/nanogpt-1/015.html").exists() and not (tmp_path / "site/nanogpt-1/022.html").exists()
    wrong = speedrun("board", "build", "--out", tmp_path / "other", "--as-of", "yesterday")
    assert wrong.returncode == 1 and "not a day" in wrong.stderr


def test_two_own_records_differ_by_methods_hyperparameters_and_source(raced: RacedBoard) -> None:
    known = site.read(raced.where.records).store
    a, b = known.record("toy/cpu-1thread/1"), known.record("toy/cpu-1thread/3")
    found = difference(known, a, b, raced.where.records)
    assert found["methods"] == {"first": [], "second": ["rope", "smear"]}
    assert found["hparams"] == {} and found["facts"]["score"] == [a["score"], b["score"]]
    assert "+LAST = 1" in found["source"] and "+++ b/train.py" in found["source"]


@given(st.sets(st.integers(1, 60)))
def test_ranges_hold_the_numbers_and_shorten_unbroken_rows(numbers: set[int]) -> None:
    found = site.ranges(sorted(numbers))
    assert [number for first, last in found for number in range(first, last + 1)] == sorted(numbers)
    assert all(last != first + 1 for first, last in found)
    assert len(found) <= len(numbers)


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(on: bool) -> None:
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(ZeroDivisionError), site.collector_paused():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()
