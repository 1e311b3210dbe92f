"""Runs the baseline several times and keeps the results as the reference that `make baseline` compares with.

    python benchmarks/reference_runs.py --runs 6

Every finished run is appended at once, so the series can be stopped and continued. Lines of another source than
the present one are dropped first: they would compare with something else.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.paths import BASELINES, DATA, RUNS
from harness.references import REFERENCE_FILE, Reference, load_references
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"


def keep_present_source(path: Path, digest: str) -> None:
    """Drops the lines of another source."""
    kept = [reference for reference in load_references(BASELINE) if reference.submission_digest == digest]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(asdict(reference)) + "\n" for reference in kept))


def main() -> None:
    """Runs and appends; seeds are drawn as for any run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=6)
    arguments = parser.parse_args()
    submission = load_submission(BASELINE)
    path = BASELINE / REFERENCE_FILE
    keep_present_source(path, submission.digest)
    for number in range(arguments.runs):
        record = run_once(Request(submission, hardware_class("cpu-1thread"), DATA, RUNS)).record
        if record.val_loss is None or record.seconds is None or record.tokens is None:
            raise SystemExit(f"run {number + 1} failed: {record.reason}: {record.message}")
        reference = Reference(
            val_loss=record.val_loss,
            seconds=record.seconds,
            cpu_seconds=record.cpu_seconds or 0.0,
            tokens=record.tokens,
            seed=record.seed,
            run_id=record.run_id,
            machine=f"{record.machine['cpu']}, {record.machine['logical_cores']} cores",
            machine_digest=record.machine["digest"],
            submission_digest=submission.digest,
        )
        with path.open("a") as file:
            file.write(json.dumps(asdict(reference)) + "\n")
        print(f"run {number + 1}: loss {record.val_loss:.4f}, {record.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
