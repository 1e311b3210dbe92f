"""What tests of the submissions share: their modules, a tiny size, and a stand-in for the run."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.checks.synthetic import toml
from harness.core.protocol import Context, TaskFacts
from harness.core.run import Settings
from harness.paths import BASELINES, SUBMISSIONS

BASELINE = BASELINES / "adamw" / "fineweb-small"
LLMC = SUBMISSIONS / "fineweb-adamw-llmc"
MUON = SUBMISSIONS / "fineweb-muon"
KERNELS = SUBMISSIONS / "fineweb-muon-kernels"
FINEWEB = [BASELINE, LLMC, MUON, KERNELS]

GCIDE_BASELINE = BASELINES / "adamw" / "gcide"
GCIDE = {method: SUBMISSIONS / f"gcide-{method}" for method in ("muon", "soap", "shampoo", "ademamix", "nadamw", "sgd")}
TEXTBOOK, NANOGPT = SUBMISSIONS / "gcide-adamw-textbook", SUBMISSIONS / "gcide-adamw-nanogpt"

# Hyperparameters at which a run takes seconds on a CPU. Three layers are no whole share of two ranks.
TINY = {
    "steps": 6,
    "batch": 8,
    "micro_batch": 2,
    "length": 32,
    "width": 64,
    "layers": 3,
    "head_size": 16,
    "block": 32,
    "warmup_steps": 1,
    "bigram_rows": 4096,
}


def load_module(folder: Path, name: str) -> ModuleType:
    """One module of a submission, once in this process, whether a test asks for it or its train.py imports it.

    Two copies of a module that registers operators destroy each other's: torch then calls what is freed.
    """
    known = f"{folder.name}.{name}" if name == "train" else name
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


def manifest(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "submission.toml").read_text())


def tiny_copy(folder: Path, target: Path) -> Path:
    """A copy of a submission with tiny defaults for the toy task, which does not compile."""
    table = manifest(folder)
    table["task"] = "toy"
    table["evaluation"] = {"batch": 8, "length": TINY["length"]}
    if "compile" in table["methods"]:
        table["methods"]["compile"]["default"] = False
    for name, hparam in table["hparams"].items():
        hparam["default"] = TINY.get(name, hparam["default"])
    target.mkdir(parents=True)
    for path in folder.glob("*.py"):
        (target / path.name).write_bytes(path.read_bytes())
    (target / "submission.toml").write_text(toml(table))
    return target


def settings(
    folder: Path, dropped: tuple[str, ...] = ("compile",), vocab_size: int = 64, world_size: int = 1, **hparams: Any
) -> Settings:
    """What build_model and build_optimizer ask: the submission's own values, tiny, and what is changed."""
    table = manifest(folder)
    methods = {name: name not in dropped for name in table.get("methods", {})}
    values = {name: TINY.get(name, hparam["default"]) for name, hparam in table["hparams"].items()} | hparams
    facts = TaskFacts("toy", vocab_size, vocab_size - 1, "sequential", 3.9, 128, (1, 20, 40))
    return Settings(Context(facts, 7, world_size, "cpu", methods, values))
