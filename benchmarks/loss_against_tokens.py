"""What loss do how many tokens explain? The baseline at several budgets, each its own full schedule.

    python benchmarks/loss_against_tokens.py --shares 0.25 0.5 1 2

Appends to `baselines/adamw/gcide/tuning/loss_against_tokens.csv`, against which a run's loss is reviewed
(harness/review.py). Losses do not depend on what else the machine does; seconds are not kept.
"""

from __future__ import annotations

import argparse

from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.paths import BASELINES, DATA, RUNS
from harness.review import BAND_FIELDS, BAND_FILE
from harness.submission import load_submission

BASELINE = BASELINES / "adamw" / "gcide"


def main() -> None:
    """Runs and appends; seeds are drawn as for any run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0], help="of the baseline's steps"
    )
    arguments = parser.parse_args()
    submission = load_submission(BASELINE)
    path = BASELINE / BAND_FILE
    path.parent.mkdir(exist_ok=True)
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    kept = [line for line in lines if line.endswith(submission.digest)]  # of another source nothing is kept
    path.write_text("\n".join([",".join(BAND_FIELDS), *kept]) + "\n")
    steps = submission.hparams([])["steps"]
    assert isinstance(steps, int)
    for share in arguments.shares:
        settings = [f"steps={round(share * steps)}"]
        record = run_once(Request(submission, hardware_class("cpu-1thread"), DATA, RUNS, settings=settings)).record
        if record.val_loss is None or record.tokens is None:
            raise SystemExit(f"{settings[0]} failed: {record.reason}: {record.message}")
        with path.open("a") as file:
            file.write(f"{record.tokens},{record.val_loss:.6f},{record.seed},{record.run_id},{submission.digest}\n")
        print(f"{settings[0]}: {record.tokens:,} tokens, loss {record.val_loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
