"""A small stand-in for the Hugging Face hub on 127.0.0.1: what its clients ask for datasets, and no more."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REVISION = "1" * 40


@dataclass
class Repository:
    """Files by name at a revision; `served` are bytes that are sent in place of a file's own."""

    files: dict[str, bytes]
    revision: str = REVISION
    known_revisions: set[str] = field(default_factory=lambda: {REVISION})
    served: dict[str, bytes] = field(default_factory=dict)


@dataclass
class FakeHub:
    """`log` has a line for every request; files in `broken` end in the middle, once for each time they stand there."""

    url: str
    repositories: dict[str, Repository]
    log: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for, in order."""
        return [line.rsplit("/", 1)[-1] for line in self.log if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def running(repositories: dict[str, Repository]) -> Iterator[FakeHub]:
    """The hub, answering until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *parts: object) -> None:
            """Says nothing: the log is kept by the hub."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            hub.log.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            if match := re.fullmatch(
                r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?", path
            ):
                self._api(*match.groups(), body)
            elif match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(*match.groups())
            else:
                self._fail("EntryNotFound")

        def _repository(self, name: str, revision: str | None) -> Repository | None:
            found = hub.repositories.get(name)
            if found is None:
                self._fail("RepoNotFound")
            elif revision not in {None, "main", *found.known_revisions}:
                self._fail("RevisionNotFound")
            else:
                return found
            return None

        def _api(self, name: str, kind: str | None, revision: str | None, rest: str | None, body: bytes) -> None:
            repository = self._repository(name, revision)
            if repository is None:
                return
            if kind in (None, "revision"):
                siblings = [{"rfilename": file, **_facts(content)} for file, content in repository.files.items()]
                self._json({"id": name, "sha": repository.revision, "siblings": siblings, "private": False, "tags": []})
            elif kind == "tree":
                entries = _entries(repository, rest or "")
                self._json(entries) if entries else self._fail("EntryNotFound")
            else:
                paths = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
                self._json([entry for path in paths for entry in _at(repository, path)])

        def _file(self, name: str, revision: str, file: str) -> None:
            repository = self._repository(name, revision)
            if repository is None:
                return
            if file not in repository.files:
                self._fail("EntryNotFound")
                return
            content = repository.served.get(file, repository.files[file])
            etag = hashlib.sha256(repository.files[file]).hexdigest()
            start, stop, status = 0, len(content), 200
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, status = int(match[1]), 206
                stop = min(int(match[2]) + 1, stop) if match[2] else stop
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", repository.revision)
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            if file in hub.broken:
                hub.broken.remove(file)
                self.wfile.write(content[start : (start + stop) // 2])
                self.close_connection = True
                return
            self.wfile.write(content[start:stop])

        def _json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _fail(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = FakeHub(f"http://127.0.0.1:{server.server_port}", repositories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _facts(content: bytes) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    lfs = {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}
    return {"size": len(content), "blobId": digest[:40], "oid": digest[:40], "lfs": lfs}


def _entries(repository: Repository, folder: str) -> list[dict]:
    """Files and folders at and below a folder, as a recursive listing gives them."""
    prefix = f"{folder}/" if folder else ""
    files = [file for file in repository.files if file.startswith(prefix)]
    parents = {file[:place] for file in files for place, char in enumerate(file) if char == "/" and place > len(prefix)}
    folders = [{"type": "directory", "path": path, "oid": "2" * 40, "size": 0} for path in sorted(parents)]
    return [*folders, *({"type": "file", "path": file, **_facts(repository.files[file])} for file in files)]


def _at(repository: Repository, path: str) -> list[dict]:
    if path in repository.files:
        return [{"type": "file", "path": path, **_facts(repository.files[path])}]
    if any(file.startswith(f"{path}/") for file in repository.files):
        return [{"type": "directory", "path": path, "oid": "2" * 40, "size": 0}]
    return []
