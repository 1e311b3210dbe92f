"""The small task on a GPU, as a class of its own: a first record there, and the best CPU record raced against it.

    python benchmarks/gpu/gcide.py calibrate --class 1xH200 --out OUT       # in this order; each call goes on where it
    python benchmarks/gpu/gcide.py baseline --class 1xH200 --out OUT        # was stopped, so that ten minutes a call do
    python benchmarks/gpu/gcide.py race --class 1xH200 --out OUT
    python benchmarks/gpu/gcide.py report --out OUT > benchmarks/results/gpu_gcide.md

Needs the prepared `gcide` data. OUT gets the records and the runs; OUT/records/gcide/1xH200 is ready to be copied to
records/. The CPU record is raced as it is: its script says `run.device`, and a class decides which that is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from timing import heading

from harness.evidence.folder import PLAN, read_campaign
from harness.evidence.records import reigning
from harness.evidence.sides import Where
from harness.evidence.verdict import verdict_of

TASK, CPU = "gcide", "cpu-1thread"


def measure(part: str, hardware: str, out: Path) -> None:
    """One part, or the rest of it. Ends this process with the exit status of the command."""
    runs = out / "runs" / part
    begun = sorted(runs.glob(f"campaigns/*/{PLAN}"))
    if begun and part != "baseline":  # `submit` itself goes on with an attempt
        command = ["resume", begun[-1].parent.name]
    elif part == "race":
        best = reigning(Where(TASK, CPU))
        assert best is not None, "the repository holds the first record of this class"
        command = ["race", str(best), "baseline", "--class", hardware, "--pairs", "8"]
    elif part == "calibrate":
        command = ["calibrate", TASK, "--class", hardware]
    else:
        command = ["submit", "baseline", "--class", hardware]
    places = ["--runs-dir", str(runs), "--records-dir", str(out / "records")]
    sys.exit(subprocess.run([sys.executable, "-m", "harness.cli.main", *command, *places], check=False).returncode)


def report(out: Path) -> None:
    """Prints a line for every arm of what was decided."""
    print(heading("gcide on a GPU", tiny=False))
    print(
        "`baseline`: the tuned AdamW of the CPU, as the first record of the class. `race`: the best record of the CPU"
    )
    print("class against it. Ratio: reference over candidate at equal loss, limits one-sided at 99%.\n")
    print("| part | arm | runs | seconds | loss | verdict | ratio |")
    print("|---|---|--:|--:|---|---|---|")
    plans = [*out.glob(f"records/{TASK}/*/attempts/*/{PLAN}"), *out.glob(f"runs/race/campaigns/*/{PLAN}")]
    for plan in sorted(plans):
        campaign = read_campaign(plan.parent)
        found = verdict_of(campaign)
        if found is None:
            continue
        ratio = found.equal_loss
        limits = "" if ratio is None else f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        for name, arm in found.arms.items():
            seconds = "" if arm.mean_seconds is None else f"{arm.mean_seconds:.2f}"
            loss = "" if arm.mean_loss is None else f"{arm.mean_loss:.4f} (sd {arm.loss_spread or 0:.4f})"
            cells = [campaign.plan.kind, name, str(arm.runs), seconds, loss, found.verdict, limits]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """One part at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["calibrate", "baseline", "race", "report"])
    parser.add_argument("--class", dest="hardware", default="1xH200", help="1xH100, 1xH200")
    parser.add_argument("--out", type=Path, required=True, help="folder of records and runs")
    arguments = parser.parse_args()
    if arguments.part == "report":
        report(arguments.out)
    else:
        measure(arguments.part, arguments.hardware, arguments.out.resolve())


if __name__ == "__main__":
    main()
