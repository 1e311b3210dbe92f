"""What the audit costs: judging the baseline with it and without, in interleaved pairs.

    python benchmarks/audit_cost.py --pairs 6 > benchmarks/results/audit_cost.md    # with nothing else running

Real runs of a few steps; without the audit the judge's process is patched, in this benchmark only, so that it
starts no shadow host and asks none. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from typing import Any

from harness.campaign import Request, run_once
from harness.core import judge, referee
from harness.core.audits import AuditReport
from harness.core.scoring import Windows
from harness.core.task import hardware_class
from harness.machine import fingerprint, sample_load
from harness.paths import BASELINES, DATA, RUNS
from harness.submission import load_submission

SUBMISSION = load_submission(BASELINES / "adamw" / "gcide")
WITHOUT = "judge-without-audit"


class NoHost:
    """Stands where the shadow host would."""

    def close(self) -> None:
        pass


class NoAudit:
    """Watches nothing."""

    def __init__(self, rules: Any, tolerance: float, host: Any, slots: Any, windows: Windows, seed: int) -> None:
        self.order = list(range(windows.batches))

    def wants(self, index: int) -> bool:
        return False

    def conclude(self) -> AuditReport:
        return AuditReport(0, 0, 0, 0, 0.0, 0.0, 0.0, 0)


def judge_without_audit() -> None:
    """The judge's process with the audit and the shadow host taken out of it."""
    launch, load, shadow = judge._launch, judge._load, judge.JUDGING_HOSTS[1]
    patches: dict[str, Any] = {
        "_launch": lambda job, task, purpose, cpus: NoHost() if purpose == shadow else launch(job, task, purpose, cpus),
        "_load": lambda host, job, task, count: None if isinstance(host, NoHost) else load(host, job, task, count),
        "ShadowAudit": NoAudit,
    }
    for name, patch in patches.items():
        setattr(judge, name, patch)
    judge.main()


def ask_without_audit(job: judge.Job, cap_seconds: float, on_batch: Callable[[int, int], None]) -> dict[str, Any]:
    """In place of the judge module's `ask_judge`."""
    command = [sys.executable, __file__, f"--{WITHOUT}"]
    text = json.dumps(asdict(job)).encode()
    printed = subprocess.run(command, input=text, stdout=subprocess.PIPE, pass_fds=[job.weights], check=True).stdout
    return json.loads(printed.splitlines()[-1])["judgement"]


def judgement(seed: int, ask: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The judgement of a short run whose judge is asked by `ask`, and the load of the machine before it."""
    load = sample_load(0.5)
    referee.ask_judge = ask
    record = run_once(
        Request(SUBMISSION, hardware_class("cpu-1thread"), DATA, RUNS, seed, settings=["steps=20"])
    ).record
    if record.judgement is None:
        raise SystemExit(f"the run failed: {record.reason}: {record.message}")
    return {**record.judgement, "load": load.other_cores}


def spread(values: list[float]) -> str:
    """Median, with the smallest and largest behind it."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument(f"--{WITHOUT}", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge_without_audit:
        judge_without_audit()
        return
    asks = [judge.ask_judge, ask_without_audit]
    found: list[list[dict[str, Any]]] = [[], []]
    for pair in range(arguments.pairs):
        for arm in [(0, 1), (1, 0)][pair % 2]:
            found[arm].append(judgement(pair, asks[arm]))
        print(f"pair {pair + 1}: {found[0][-1]['seconds']:.1f} s with, {found[1][-1]['seconds']:.1f} s without",
              file=sys.stderr)  # fmt: skip
    print_table(*found)


def print_table(audited: list[dict[str, Any]], plain: list[dict[str, Any]]) -> None:
    """Medians with smallest and largest; of seconds the ratio too, pair by pair."""
    machine = fingerprint()
    print(f"""# What the audit costs

`python benchmarks/audit_cost.py --pairs {len(plain)}`, {date.today()}. {machine.cpu}, {machine.logical_cores} cores,
torch {machine.packages["torch"]}. Median (smallest to largest) of {len(plain)} interleaved pairs of runs.

| what | with the audit | without | ratio |
|---|--:|--:|--:|""")
    for name, key, compared in [
        ("judging, s", "seconds", True), ("of it scoring, s", "scoring_seconds", True),
        ("of it after the last batch was scored, s", "audit_seconds", False),
        ("cores that others used before the run", "load", False),
    ]:  # fmt: skip
        ratios = [one[key] / other[key] for one, other in zip(audited, plain, strict=True)] if compared else []
        cells = [[run[key] for run in audited], [run[key] for run in plain], ratios]
        print(f"| {name} | " + " | ".join(spread(cell) if cell else "" for cell in cells) + " |")


if __name__ == "__main__":
    main()
