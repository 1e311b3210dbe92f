"""What frozen means: the digest of harness/core, and the versions under which measurements compare.

frozen.toml lists every measurement version with the digest of the core it stands for. A change of the core
fails a test until a maintainer adds a version there, by hand, and says since which one results compare.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from harness.paths import PACKAGE
from harness.submission import folder_digest

FROZEN_FILE = PACKAGE / "frozen.toml"


@dataclass(frozen=True)
class FrozenVersion:
    """One state of the core; runs compare with those of every version from `comparable_since` on."""

    measurement_version: int
    comparable_since: int
    core_digest: str
    why: str


def outdated(version: int, path: Path = FROZEN_FILE) -> str | None:
    """Why what a version measured no longer compares with what the present one measures; None where it does."""
    versions = frozen_versions(path)
    since = versions[-1].comparable_since
    if version >= since:
        return None
    changes = [one.why for one in versions if version < one.comparable_since == one.measurement_version]
    told = f"Measured by version {version} of the core: its seconds do not compare with those since version {since}."
    return " ".join([told, *changes])


def core_digest(core: Path = PACKAGE / "core") -> str:
    """sha256 over the Python source of the core and the modules beside it that it imports, with LF line ends.

    Task files have digests of their own.
    """
    paths = [*core.rglob("*.py"), *(core.parent / name for name in ("__init__.py", "errors.py", "paths.py"))]
    files = {
        path.relative_to(core.parent).as_posix(): path.read_bytes().replace(b"\r\n", b"\n")
        for path in paths
        if path.is_file()
    }
    return folder_digest(files)


def frozen_versions(path: Path = FROZEN_FILE) -> list[FrozenVersion]:
    """The list in frozen.toml, oldest first."""
    return [FrozenVersion(**entry) for entry in tomllib.loads(path.read_text())["versions"]]
