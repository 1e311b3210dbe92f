"""Keeps runs of the baseline as the reference that `make baseline` compares with: new ones, or those of its record.

    python benchmarks/reference_runs.py --runs 6
    python benchmarks/reference_runs.py --record records/gcide/cpu-1thread/001-adamw

Every finished run is appended at once, so the series can be stopped and continued. Lines of another source than
the present one are dropped first: they would compare with something else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.evidence.course import JUDGED
from harness.evidence.folder import read_campaign
from harness.evidence.plans import CANDIDATE
from harness.paths import BASELINES, DATA, RUNS
from harness.references import REFERENCE_FILE, Reference, load_references
from harness.submission import Submission, load_submission

BASELINE = BASELINES / "adamw" / "gcide"


def keep_present_source(path: Path, digest: str) -> set[str]:
    """Drops the lines of another source; answers the runs of those that stay."""
    kept = [reference for reference in load_references(BASELINE) if reference.submission_digest == digest]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(asdict(reference)) + "\n" for reference in kept))
    return {reference.run_id for reference in kept}


def new_runs(submission: Submission, count: int) -> Iterator[Reference]:
    """Runs; seeds are drawn as for any run."""
    for number in range(count):
        record = run_once(Request(submission, hardware_class("cpu-1thread"), DATA, RUNS)).record
        if record.val_loss is None or record.seconds is None or record.tokens is None:
            raise SystemExit(f"run {number + 1} failed: {record.reason}: {record.message}")
        machine = f"{record.machine['cpu']}, {record.machine['logical_cores']} cores"
        yield Reference(
            record.val_loss, record.seconds, record.cpu_seconds or 0.0, record.tokens, record.seed, record.run_id,
            machine, record.machine["digest"], submission.digest,
        )  # fmt: skip


def runs_of(record: Path, submission: Submission) -> Iterator[Reference]:
    """The counted runs of the baseline's record, which must be of its present source."""
    campaign = read_campaign(record)
    plan = campaign.plan
    if plan.arms[CANDIDATE].digest != submission.digest:
        raise SystemExit(f"{record}: its submission is not the present baseline")
    for line in (block.runs[CANDIDATE] for block in campaign.course.blocks):
        if line.status == JUDGED:
            assert line.val_loss and line.seconds and line.cpu_seconds and line.tokens, "a judged run has them"
            yield Reference(
                line.val_loss, line.seconds, line.cpu_seconds, line.tokens, line.seed, line.run_id,
                plan.machine, plan.machine_digest, submission.digest,
            )  # fmt: skip


def main() -> None:
    """Runs or reads, and appends what is not kept yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--record", type=Path, help="take the runs of this record instead")
    arguments = parser.parse_args()
    submission = load_submission(BASELINE)
    path = BASELINE / REFERENCE_FILE
    kept = keep_present_source(path, submission.digest)
    found = runs_of(arguments.record, submission) if arguments.record else new_runs(submission, arguments.runs)
    for reference in found:
        if reference.run_id not in kept:
            with path.open("a") as file:
                file.write(json.dumps(asdict(reference)) + "\n")
            print(f"{reference.run_id}: loss {reference.val_loss:.4f}, {reference.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
