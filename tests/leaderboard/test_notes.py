"""What people wrote in notes.md, on the page of its record."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evidence.notes import FOR_AUTHORS
from harness.evidence.records import NOTES, history
from leaderboard import site
from leaderboard.notes import rendered_notes
from tests.evidence.board import Board
from tests.leaderboard.test_site import HOSTILE, Page

PAGE = """# A title

`toy/cpu-1thread/002`, by somebody.

## What changed

- added `rope`: generated.

## Why it should help

Positions turn into **angles**, see [the report](../../report.md) and [a paper](https://arxiv.org/abs/2104.09864).

| rows | loss |
|---|---|
| 8 | 3.1 |

## Result

<!-- figures -->

## What else was tried

Nothing.
"""


def test_only_what_is_not_generated_is_shown() -> None:
    shown = rendered_notes(PAGE)
    assert "<h2>Why it should help</h2>" in shown and "<strong>angles</strong>" in shown
    assert "<h2>What else was tried</h2>" in shown and "<p>Nothing.</p>" in shown
    assert "A title" not in shown and "generated" not in shown and "figures" not in shown


def test_a_table_is_a_region_named_after_its_section() -> None:
    assert 'aria-label="Table: Why it should help"' in rendered_notes(PAGE)


def test_links_lead_out_of_the_repository_or_are_text() -> None:
    shown = rendered_notes(PAGE)
    assert 'see the report and <a href="https://arxiv.org/abs/2104.09864">a paper</a>.' in shown
    assert "![" not in rendered_notes("## Why\n\n![a plot](loss.svg)\n")
    assert "a plot" in rendered_notes("## Why\n\n![a plot](loss.svg)\n")


def test_what_waits_for_its_authors_is_left_out() -> None:
    assert rendered_notes(f"## Why\n\n{FOR_AUTHORS} why this helps.\n") == ""
    shown = rendered_notes(f"## Why\n\nIt is faster.\n\n{FOR_AUTHORS} what else.\n")
    assert "It is faster." in shown and "what else" not in shown


@pytest.mark.parametrize("text", ["", "no heading", "# only a title", "## Result\n\nx"])
def test_where_nobody_wrote_anything_nothing_is_shown(text: str) -> None:
    assert rendered_notes(text) == ""


@given(st.text(alphabet="#<>[]()!`|-*\n ax:/\"'&\x1b\u202e"))
def test_no_text_becomes_markup_of_its_own(text: str) -> None:
    shown = rendered_notes(f"## Why\n\n{text}")
    assert "<script" not in shown and "\x1b" not in shown and "\u202e" not in shown
    assert "<x" not in shown and "<img" not in shown and "javascript:" not in shown


def test_they_stand_on_the_page_of_their_record_and_cannot_do_harm(raced: Board, tmp_path: Path) -> None:
    content = site.read(raced.where.records)
    name = "toy/cpu-1thread/002"
    assert content.notes[name] == (history(raced.where)[1] / NOTES).read_text()
    written = content.notes[name].replace(FOR_AUTHORS, f"Because {HOSTILE}", 1)
    site.build(tmp_path, site.Content(**{**vars(content), "notes": {name: written}}))
    page = Page(tmp_path / "toy-cpu-1thread/002.html")
    assert "Because </script>" in page.text and not page.unbalanced
    assert not [tag for tag, attributes in page.tags if any(key.startswith("on") for key in attributes)]
