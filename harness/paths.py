"""Where things lie on disk. The data and runs folders can be moved with --data-dir and --runs-dir."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
DATA = ROOT / "data"
RUNS = ROOT / "runs"
RECORDS = ROOT / "records"
BASELINES = ROOT / "baselines"
SUBMISSIONS = ROOT / "submissions"
TASKS = PACKAGE / "core" / "tasks"
