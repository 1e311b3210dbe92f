"""The scripts in benchmarks/, which are no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from harness.paths import ROOT


def benchmark_module(name: str) -> ModuleType:
    """benchmarks/NAME.py, imported anew."""
    folder = ROOT / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # where a script finds what it shares with others
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look for their module
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
