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


def core_digest(core: Path = PACKAGE / "core") -> str:
    """sha256 over the Python source of the core, with LF line ends; task files have digests of their own."""
    files = {
        path.relative_to(core).as_posix(): path.read_bytes().replace(b"\r\n", b"\n") for path in core.rglob("*.py")
    }
    return folder_digest(files)


def frozen_versions(path: Path = FROZEN_FILE) -> list[FrozenVersion]:
    """The list in frozen.toml, oldest first."""
    return [FrozenVersion(**entry) for entry in tomllib.loads(path.read_text())["versions"]]
