"""The static site: every page out of leaderboard.json and the frames, with relative links only.

    speedrun board build --out DIR

It works from file:// and under any sub-path, needs no JavaScript to be read, and loads nothing from elsewhere. What
strangers wrote is made printable here and escaped by the templates.
"""

from __future__ import annotations

import gc
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from harness.checks.rules import RULES
from harness.paths import RECORDS
from harness.submission import Submission
from harness.text import clean
from harness.tuning.protocol import FOLDER
from leaderboard import columns, downloads, own, pictures, worth
from leaderboard.baseline import Baseline, baselines
from leaderboard.board_page import BoardPage, board_page
from leaderboard.compare import source_diff
from leaderboard.export import contents
from leaderboard.frames import every_of
from leaderboard.lifelines import Lifeline
from leaderboard.notes import rendered_notes
from leaderboard.store import Row, Store, from_content
from leaderboard.tuned import Tuned, tuned

HERE = Path(__file__).parent
ASSETS = ("style.css", "board.js")


@dataclass(frozen=True)
class Content:
    """All that the site shows, as of one day: the board, frames to download, sources and notes of records, tunings."""

    store: Store
    frames: Mapping[str, pd.DataFrame]
    sources: Mapping[str, Submission]
    notes: Mapping[str, str]
    baselines: list[Baseline]
    tuned: list[Tuned]
    as_of: str | None = None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Objects are made here to be kept: looking for garbage among them takes longer the more records there are."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@collector_paused()
def read(records: Path = RECORDS, as_of: str | None = None) -> Content:
    """What there is to show, from the records themselves. Raises UserError for what cannot be read."""
    known = own.read(records, as_of)
    found = every_of(known, as_of)
    sources = {one.name: one.submission for one in known.records if one.submission}
    store = from_content(contents(found))
    notes = {one.name: one.notes for one in known.records}
    return Content(store, found, sources, notes, baselines(), tuned(store.attempts), as_of)


@collector_paused()
def build(out: Path, content: Content) -> int:
    """Writes the site into a folder, which is made; returns the number of pages. Raises OSError where it cannot."""
    content = replace(content, store=printable(content.store))
    store = content.store
    pages = [board_page(store, board) for board in store.boards.values()]
    environment = _environment()
    tuned_first = sorted(content.baselines, key=lambda baseline: not baseline.stages)
    environment.globals |= {"boards": pages, "baselines": tuned_first, "as_of": content.as_of}
    count = 0
    for place, template, context in _pages(content, pages):
        path = out / place
        path.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * place.count("/")
        path.write_text(environment.get_template(template).render(root=root, place=place, **context))
        count += 1
    for name in ASSETS:
        (out / "assets").mkdir(exist_ok=True)
        shutil.copyfile(HERE / "static" / name, out / "assets" / name)
    for baseline in content.baselines:
        for file in baseline.files:
            shutil.copyfile(baseline.folder / FOLDER / file, out / "baseline" / baseline.task / file)
    downloads.write(out / "data", store, content.frames)
    _write_sources(out / "data" / "sources", content.sources)
    (out / "data" / "compare.js").write_text(_compare_script(store, pages, content.sources))
    return count


def printable(store: Store) -> Store:
    """The store with every text made harmless (`harness.text.clean`)."""
    return replace(
        store,
        records=_cleaned(store.records),
        methods=_cleaned(store.methods),
        verifications=_cleaned(store.verifications),
        attempts=_cleaned(store.attempts),
        ablations=_cleaned(store.ablations),
    )


def slug(name: str) -> str:
    """A file name for a method: letters, digits, dots, hyphens, underscores; others are spelt out by their code."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: f"~{ord(found[0]):x}", name)


def record_page(row: Row) -> str:
    """The file of a record's page, beside the other pages of its board."""
    return f"{row['record'].rpartition('/')[2]}.html"


def _pages(content: Content, pages: list[BoardPage]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, template and context of every page."""
    store = content.store
    yield (
        "index.html",
        "home.html",
        {"charts": {page.folder: pictures.progress(page, f"{page.folder}/") for page in pages}},
    )
    yield "rules.html", "rules.html", {"rules": RULES}
    yield "attempts.html", "attempts.html", {"attempts": store.attempts, "tuned": content.tuned}
    yield "compare.html", "compare.html", {}
    for page in pages:
        yield from _board_pages(content, page)
    for baseline in content.baselines:
        yield f"baseline/{baseline.task}/index.html", "baseline.html", {"baseline": baseline}
    files = downloads.DESCRIPTIONS
    yield (
        "data/index.html",
        "downloads.html",
        {"files": files, "frames": columns.FRAMES, "conventions": columns.CONVENTIONS},
    )


def _board_pages(content: Content, page: BoardPage) -> Iterator[tuple[str, str, dict[str, Any]]]:
    store, sources = content.store, content.sources
    own = {"page": page, "board": page.board}
    yield f"{page.folder}/index.html", "board.html", own | {"chart": pictures.progress(page, "")}
    rows = pictures.lifeline_rows(page, store.methods_of(page.board.name))
    measured = store.ablations_of(page.board.name)
    costs = {"ablations": measured, "tradeoff": worth.tradeoff(measured, "methods/")}
    yield f"{page.folder}/methods.html", "methods.html", own | {"rows": rows} | costs
    by_id = {row["record"]: row for row in page.records}
    for before, row, after in zip([None, *page.records], page.records, [*page.records[1:], None], strict=False):
        parent, first = by_id.get(row["parent"]), page.records[0]
        submission = sources.get(row["record"])
        before_it = sources.get(row["parent"])
        context = {
            "row": row, "before": before, "after": after, "parent": parent,
            "split": pictures.split(row, parent), "charts": pictures.of_record(row, parent, first),
            "verifications": [v for v in store.verifications if v["record"] == row["record"]],
            "notes": rendered_notes(content.notes.get(row["record"], "")),
            "changes": source_diff(before_it, submission) if before_it and submission else [],
            "kept": submission is not None,
            "standing": [] if page.board.imported else store.standing_methods(row),
        }  # fmt: skip
        yield f"{page.folder}/{record_page(row)}", "record.html", own | context
    titles = {row["number"]: row for row in page.records if row["kind"] != "retiming"}
    last = {line.id: line for line in page.lifelines}
    for line, bar in zip(page.lifelines, rows, strict=True):
        if line is not last[line.id]:
            continue  # of a method that came back the page is about its present life
        place = f"{page.folder}/methods/{slug(line.id)}.html"
        yield place, "method.html", own | {
            "line": line, "row": bar, "titles": titles,
            "lives_before": [one.span for one in page.lifelines if one.id == line.id and one is not line],
            "ablations": [row for row in measured if line.id in row["methods"]],
            "without": [row for row in store.attempts if _is_without(row, page, line)],
        }  # fmt: skip


def _is_without(attempt: Row, page: BoardPage, line: Lifeline) -> bool:
    """Whether an attempt raced the reigning record without a method that it had."""
    return attempt["board"] == page.board.name and line.id in (attempt["methods_dropped"] or ())


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE / "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    made.filters |= {
        "ranges": ranges,
        "slug": slug,
        "record_page": record_page,
        "p": shown_p,
        "coded": coded,
        "highlighted": pictures.highlighted,
    }
    return made


def shown_p(value: float | None) -> str:
    """A p-value as people read it; empty where one run gives none."""
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as first and last of each unbroken row of three or more; others by themselves."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    pairs = (((first, last),) if last != first + 1 else ((first, first), (last, last)) for first, last in found)
    return list(chain.from_iterable(pairs))


def coded(text: str) -> Markup:
    """A text whose parts between backticks are set as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _compare_script(store: Store, pages: list[BoardPage], sources: Mapping[str, Submission]) -> str:
    """What compare.html needs, as a script that sets one variable: a page from file:// may not fetch."""
    data = {
        page.board.name: {
            "folder": page.folder,
            "unit": page.board.shown_unit,
            "divide": 60 if page.board.shown_unit == "minutes" else 1,
            "methods": [[m["method"], m["introduced"], m["dropped"]] for m in store.methods_of(page.board.name)],
            "records": [
                {name: row[name] for name in ("record", "number", "title", "date", "score", "speedup", "steps",
                 "loss_mean", "loss_std", "runs", "p_value", "code_lines", "machine", "torch", "authors")}
                | {"page": record_page(row), "source": source_file(row["record"]) if row["record"] in sources else None}
                for row in page.records
            ],
        }
        for page in pages
    }  # fmt: skip
    return f"window.BOARDS = {json.dumps(data)};\n"


def source_file(record: str) -> str:
    """The file in data/sources/ with a record's source."""
    return f"{record.replace('/', '-')}.js"


def _write_sources(out: Path, sources: Mapping[str, Submission]) -> None:
    """The source and hyperparameters of every own record, a script each."""
    out.mkdir(parents=True, exist_ok=True)
    for record, submission in sources.items():
        hparams = {name: declared.default for name, declared in submission.manifest.hparams.items()}
        files = {name: content.decode(errors="replace") for name, content in sorted(submission.files.items())}
        said = json.dumps({"hparams": hparams, "files": files})
        (out / source_file(record)).write_text(f"window.SOURCES[{json.dumps(record)}] = {said};\n")


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {name: _cleaned(item) for name, item in value.items()}
    return value
