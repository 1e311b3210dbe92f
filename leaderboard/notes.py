"""What people wrote in the notes.md of a record, as HTML. The rest of that file is generated, and so is its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from markdown_it.token import Token
from markupsafe import Markup

from harness.evidence.notes import FOR_AUTHORS
from harness.text import clean
from leaderboard import markdown

GENERATED = ("What changed", "Launch", "Result")  # the page shows these from the data
HEADING = ("heading_open", "h2", 0)
FOLLOWED = ("https://", "http://")


def rendered_notes(text: str) -> Markup:
    """The sections that are not generated, without what still waits for its authors.

    Links within the repository, which the site does not have, are text.
    """
    kept: list[Token] = []
    for section in _sections(markdown.parse("\n".join(clean(line) for line in text.splitlines()))):
        blocks = [block for block in _blocks(section[3:]) if not _waits(block)]
        if section[1].content not in GENERATED and blocks:
            kept += [*section[:3], *(token for block in blocks for token in block)]
    for token in kept:
        token.children = list(_without_local_links(token.children)) if token.children else token.children
    return markdown.html(kept)


def _sections(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Each from its heading of the second level on; what comes before the first one is the title."""
    starts = [place for place, token in enumerate(tokens) if (token.type, token.tag, token.level) == HEADING]
    for start, end in pairwise([*starts, len(tokens)]):
        yield list(tokens[start:end])


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Paragraphs, lists and the like: tokens up to one that closes at the outermost level."""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _waits(block: Sequence[Token]) -> bool:
    return any(token.content.startswith(FOR_AUTHORS) for token in block)


def _without_local_links(tokens: Sequence[Token]) -> Iterator[Token]:
    """Links do not nest, so each closes before the next one opens. A picture is shown as its alternative text."""
    followed = False
    for token in tokens:
        if token.type == "link_open":
            followed = str(token.attrGet("href")).startswith(FOLLOWED)
        if token.type == "image":
            yield Token("text", "", 0, content=token.content)
        elif followed or token.type not in ("link_open", "link_close"):
            yield token
