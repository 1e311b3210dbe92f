"""One rehearsal: the run under the harness, the same script without it, and what both say together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.campaign import Finished, Request, run_once
from harness.core.plan import Event
from harness.core.sandbox import ALLOCATOR
from harness.core.task import HardwareClass
from harness.errors import UserError
from harness.rehearsal.corpus import Stage
from harness.submission import Submission

# What makes a large submission small enough for a CPU, where it declares such hyperparameters and allows the values.
TINY = {"width": 64, "layers": 2, "head_size": 16, "batch": 4, "micro_batch": 2, "length": 128}
COMPILE = "compile"  # a method of this name takes minutes on a CPU
CPU_EVALUATION = {"batch": 1, "length": 256}  # 51 MB of logits of a GPT-2 vocabulary, not 1.6 GB
# Dense bfloat16 operations a second that the makers state: nvidia.com/en-us/data-center/ a100, h100, h200 (SXM).
PEAK_FLOPS = {"A100": 312e12, "H100": 989.4e12, "H200": 989.4e12}


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal shows. Rates are tokens a second up to the last log row; what was not measured is None.

    `overhead` is how much longer the harness took than the bare script up to that row, as a share.
    `utilization` is the share of the GPUs' stated peak that the operations of the model make up.
    """

    tokens_per_second: float | None
    bare_tokens_per_second: float | None
    overhead: float | None
    utilization: float | None
    peak_memory_bytes: int | None
    judging_seconds: float
    judged_tokens: int
    detour: str | None  # why the logits of a GPU were judged through host memory


def small_enough(
    submission: Submission, settings: Sequence[str], dropped: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The settings and dropped methods with which a submission is rehearsed on a CPU; what was asked for stays."""
    asked = {setting.partition("=")[0] for setting in settings}
    shrunk = [
        f"{name}={value}" for name, value in TINY.items() if name not in asked and _allows(submission, name, value)
    ]
    compiles = COMPILE in submission.manifest.methods and COMPILE not in dropped
    return [*shrunk, *settings], [*dropped, *([COMPILE] if compiles else [])]


def _allows(submission: Submission, name: str, value: int) -> bool:
    try:
        submission.hparams([f"{name}={value}"])
    except UserError:
        return False
    return True


def rehearse(
    submission: Submission, hardware: HardwareClass, stage: Stage, runs_dir: Path, settings: list[str],
    dropped: list[str], on_event: Callable[[Event], None],
) -> tuple[Finished, Rehearsal | None]:  # fmt: skip
    """Runs it under the harness, then without; the second only where it is judged. Raises UserError."""
    if hardware.device == "cpu":
        evaluation = submission.manifest.evaluation
        small = {name: min(value, getattr(evaluation, name)) for name, value in CPU_EVALUATION.items()}
        manifest = submission.manifest.model_copy(update={"evaluation": evaluation.model_copy(update=small)})
        submission = replace(submission, manifest=manifest)
    request = Request(
        submission, hardware, stage.data_dir, runs_dir, seed=1, dropped=dropped, settings=settings,
        facts={"rehearsal": True},
    )  # fmt: skip
    finished = run_once(request, on_event)
    record = finished.record
    if record.judgement is None:
        return finished, None
    bare = _bare(submission, hardware, stage, settings, dropped) if hardware.devices == 1 else None
    last = finished.rows[-1] if finished.rows else {}
    seconds, tokens = last.get("seconds"), last.get("tokens")
    rate = tokens / seconds if tokens and seconds else None
    bare_rate = bare["tokens"] / bare["logged_seconds"] if bare and bare["logged_seconds"] else None
    peak = PEAK_FLOPS.get(hardware.name.partition("x")[2])
    return finished, Rehearsal(
        tokens_per_second=rate,
        bare_tokens_per_second=bare_rate,
        overhead=bare_rate / rate - 1 if rate and bare_rate else None,
        utilization=rate * bare["flops_per_token"] / peak / hardware.devices if rate and bare and peak else None,
        peak_memory_bytes=bare["peak_memory_bytes"] if bare else None,
        judging_seconds=record.judgement["seconds"],
        judged_tokens=record.judgement["tokens"],
        detour=record.judgement["detour"],
    )


def _bare(
    submission: Submission, hardware: HardwareClass, stage: Stage, settings: list[str], dropped: list[str]
) -> dict:
    """The same script without the harness, in a process of its own. Raises UserError where that fails."""
    command = [sys.executable, "-m", "harness.rehearsal.bare", str(submission.folder), "--task", str(stage.task.path)]
    command += ["--data-dir", str(stage.data_dir), "--device", hardware.device]
    command += [f"--set={setting}" for setting in settings] + [f"--drop={name}" for name in dropped]
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": str(max(1, hardware.cores))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        what = f"{submission.folder}/train.py fails without the harness:\n{done.stderr.strip()[-2000:]}"
        raise UserError(what, "a script may lean on the calls of a run only: docs/submission.md")
    return json.loads(done.stdout.splitlines()[-1])
