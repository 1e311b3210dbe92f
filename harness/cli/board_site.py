"""`speedrun board build`, `serve` and `export`: the site, and the files that are generated into the repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness.bundle import write_atomically
from harness.cli import options, output
from harness.errors import UserError
from harness.paths import RECORDS, ROOT

ROOM = Path("index.html")  # what a folder of ours has: another folder that is not empty is left alone


Out = Annotated[Path, typer.Option("--out", help="Folder of the site; made where it is missing.")]


def build(out: Out = Path("site"), as_of: options.AsOf = None) -> None:
    """Build the static site: it works from file:// and on any host, under any path."""
    from leaderboard import site
    from leaderboard.lifelines import parse_day

    day = parse_day(as_of)
    if out.is_dir() and any(out.iterdir()) and not (out / ROOM).exists():
        raise UserError(f"{out}: not empty, and no site of ours", "name a new folder, or remove what is there")
    content = site.read(RECORDS, day)
    try:
        count = site.build(out, content)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}", "choose a folder you can write to: --out") from None
    output.line(f"{count} pages in {out}: open {out / ROOM}")


def serve(
    out: Out = Path("site"),
    as_of: options.AsOf = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 8000,
) -> None:
    """Build the site and show it to this machine's browser until interrupted."""
    import functools
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    build(out, as_of)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(out))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}", "choose another: --port") from None
    output.line(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        output.line()


def export() -> None:
    """Write leaderboard.json, the README's table, CITATION.cff, docs/columns.md and the badge anew from the records."""
    from leaderboard.export import generated

    for path, changed in _written(generated()).items():
        output.line(f"{path}: {'written' if changed else 'unchanged'}")


def renew(records: Path) -> None:
    """The same after records/ of this checkout has changed; another folder of records is on no board.

    What goes wrong is only warned about: the campaign that was done is kept, and the command makes it good.
    """
    from leaderboard.export import generated

    if records.resolve() != RECORDS:
        return
    try:
        changed = [path for path, new in _written(generated(records)).items() if new]
    except (UserError, OSError) as error:
        output.warn(f"warning: the board was not renewed: {str(error).splitlines()[0]}; then: speedrun board export")
        return
    if changed:
        output.note(f"board renewed, commit it too: {', '.join(str(path.relative_to(ROOT)) for path in changed)}")


def _written(files: Mapping[Path, str]) -> dict[Path, bool]:
    """Writes the files; says which of them changed."""
    changed = {path: not path.exists() or path.read_text() != text for path, text in files.items()}
    for path in (path for path, new in changed.items() if new):
        write_atomically(path, files[path])
    return changed
