"""`speedrun board build`, `serve` and `export`: the site, and the files that are generated into the repository."""

from __future__ import annotations

from harness.cli import output


def export() -> None:
    """Write leaderboard.json, the README's table, CITATION.cff and the badge anew from the records."""
    from leaderboard.export import generated

    for path, text in generated().items():
        changed = not path.exists() or path.read_text() != text
        path.write_text(text)
        output.line(f"{path}: {'written' if changed else 'unchanged'}")
