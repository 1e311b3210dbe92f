"""Imports modules of submissions, and compiles their kernels for a GPU that need not be there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from harness.paths import SUBMISSIONS

KERNELS = SUBMISSIONS / "fineweb-muon-kernels"


def load_module(folder: Path, name: str) -> ModuleType:
    """One module of a submission, once in this process: operators can be registered only once."""
    known = f"{folder.name}.{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(folder))
        try:
            spec.loader.exec_module(sys.modules[known])
        finally:
            sys.path.remove(str(folder))
    return sys.modules[known]
