"""Keeps runs of the baseline as the reference that `make baseline` compares with: new ones, or those of a runs folder.

    python benchmarks/reference_runs.py --runs 6
    python benchmarks/reference_runs.py --from runs/demonstrations/same

Every finished run is appended at once, so the series can be stopped and continued. Lines of another source than the
present one, or of another version of the core, are dropped first: they would compare with something else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from harness.bundle import RunRecord, finished_runs
from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.evidence.series import measurement_version
from harness.paths import BASELINES, DATA, RUNS
from harness.references import REFERENCE_FILE, Reference, load_references
from harness.submission import Submission, load_submission

BASELINE = BASELINES / "adamw" / "gcide"


def keep_comparable(path: Path, digest: str) -> set[str]:
    """Drops the lines of another source or core; answers the runs of those that stay."""
    present = digest, measurement_version()
    kept = [one for one in load_references(BASELINE) if (one.submission_digest, one.measurement_version) == present]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(asdict(reference)) + "\n" for reference in kept))
    return {reference.run_id for reference in kept}


def new_runs(submission: Submission, count: int) -> Iterator[RunRecord]:
    """Runs; seeds are drawn as for any run."""
    for number in range(count):
        record = run_once(Request(submission, hardware_class("cpu-1thread"), DATA, RUNS)).record
        if record.val_loss is None:
            raise SystemExit(f"run {number + 1} failed: {record.reason}: {record.message}")
        yield record


def judged_runs(runs_dir: Path, submission: Submission) -> Iterator[RunRecord]:
    """The judged runs of the submission, as declared, that a runs folder has, oldest first."""
    wanted = submission.digest, measurement_version(), submission.hparams([]), submission.methods([])
    for record in reversed(list(finished_runs(runs_dir, submission.task.name))):
        found = record.digests["submission"], record.measurement_version, record.hparams, record.methods
        if record.state == "JUDGED" and found == wanted:
            yield record


def reference_of(record: RunRecord) -> Reference:
    """What is kept of a judged run."""
    assert record.val_loss and record.seconds and record.tokens and record.measurement_version, "a judged run has them"
    machine = f"{record.machine['cpu']}, {record.machine['logical_cores']} cores"
    return Reference(
        record.val_loss, record.seconds, record.cpu_seconds or 0.0, record.tokens, record.seed, record.run_id,
        machine, record.machine["digest"], record.digests["submission"] or "", record.measurement_version,
    )  # fmt: skip


def main() -> None:
    """Runs or reads, and appends what is not kept yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--from", dest="runs_dir", type=Path, help="take the judged runs of this runs folder instead")
    arguments = parser.parse_args()
    submission = load_submission(BASELINE)
    path = BASELINE / REFERENCE_FILE
    kept = keep_comparable(path, submission.digest)
    folder = arguments.runs_dir
    for record in judged_runs(folder, submission) if folder else new_runs(submission, arguments.runs):
        if record.run_id not in kept:
            with path.open("a") as file:
                file.write(json.dumps(asdict(reference_of(record))) + "\n")
            print(f"{record.run_id}: loss {record.val_loss:.4f}, {record.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
