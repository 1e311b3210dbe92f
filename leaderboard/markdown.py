"""Markdown as HTML for a page: tables scroll by themselves and have a name, raw HTML in it stays text."""

from __future__ import annotations

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

READER = MarkdownIt("commonmark", {"html": False}).enable("table")


def parse(text: str) -> list[Token]:
    """The blocks of a text; a heading, paragraph or table is several tokens, from one that opens to one that closes."""
    return READER.parse(text)


def html(tokens: Sequence[Token]) -> Markup:
    """The blocks as HTML, every table in a region of its own."""
    for token in tokens:
        if token.type == "th_open":
            token.attrSet("scope", "col")
    return Markup(READER.renderer.render(_tables_in_regions(tokens), READER.options, {}))


def scrolls(token: Token, label: str, kind: str = "scroll") -> None:
    """Makes the element a named region that the keyboard can scroll."""
    for name, value in (("class", kind), ("role", "region"), ("aria-label", label), ("tabindex", "0")):
        token.attrSet(name, value)


def _tables_in_regions(tokens: Sequence[Token]) -> list[Token]:
    """Every table in a region of its own, named after its heading and, if it has several, a number."""
    out: list[Token] = []
    heading, count = "", 0
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading, count = tokens[place + 1].content, 0
        if token.type == "table_open":
            count += 1
            region = Token("region_open", "div", 1, block=True)
            scrolls(region, f"Table: {heading or 'the declared setting'}" + (f", {count}" if count > 1 else ""))
            out += [region, token]
        elif token.type == "table_close":
            out += [token, Token("region_close", "div", -1, block=True)]
        else:
            out.append(token)
    return out
