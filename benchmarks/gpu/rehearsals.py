"""What the harness costs on a GPU, and how fast the judge is there: rehearsals of the FineWeb submissions at full size.

    python benchmarks/gpu/rehearsals.py --class 1xH200 --with baseline > benchmarks/results/gpu_rehearsals.md
    python benchmarks/gpu/rehearsals.py --class 1xH200 --with fineweb-muon --row >> benchmarks/results/gpu_rehearsals.md
    python benchmarks/gpu/rehearsals.py --class 1xH200 --with fineweb-muon-kernels --row >> (the same file)
    python benchmarks/gpu/rehearsals.py --tiny                                       # all three on a CPU, tiny models

Each round is one `speedrun rehearse`: a run under the harness, judged, and the same script without it. On a GPU both
compile first; a submission a call is meant to stay under ten minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from timing import heading

TASK = "fineweb-small"
SUBMISSIONS = ["baseline", "fineweb-muon", "fineweb-muon-kernels"]


def rehearsal(submission: str, hardware: str, steps: int, more: list[str]) -> dict[str, Any]:
    """One rehearsal, as `--json` says it. What it has to say meanwhile goes to our errors."""
    command = [sys.executable, "-m", "harness.cli.main", "rehearse", TASK, "--with", submission, "--class", hardware]
    done = subprocess.run([*command, "--steps", str(steps), "--json", *more], stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout or '{"rehearsal": null, "message": "it printed nothing"}')
    if said["rehearsal"] is None:
        sys.exit(f"{submission}: {said['message']}")
    return said["rehearsal"]


def spread(values: Iterable[float | None], form: str) -> str:
    """The median and the range of what was measured."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "not measured"
    middle = format(statistics.median(known), form)
    return middle if len(known) == 1 else f"{middle} ({known[0]:{form}} to {known[-1]:{form}})"


def print_head(hardware: str, rounds: int, steps: int, tiny: bool) -> None:
    """What stands above the rows."""
    print(heading("Rehearsals of the FineWeb submissions", tiny))
    print(f"Class {hardware}, {rounds} round(s) of {steps} steps, other text than FineWeb. Overhead: how much longer")
    print("the run took under the harness than without, to its last log row. Judging includes the start of two model")
    print("hosts and the audit. Median, and the range.\n")
    print("| submission | tokens a second | overhead | utilization | peak memory | tokens judged a second | logits |")
    print("|---|---|---|---|---|---|---|")


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--class", dest="hardware", default="1xH200", help="1xH100, 1xH200")
    parser.add_argument("--with", dest="submissions", action="append", help="only these submissions")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--gpt2-vocab", help="folder with GPT-2's encoder.json, where nothing can be fetched")
    parser.add_argument("--row", action="store_true", help="only rows of the table")
    parser.add_argument("--tiny", action="store_true", help="tiny models on a CPU")
    arguments = parser.parse_args()
    hardware = "cpu-1thread" if arguments.tiny else arguments.hardware
    rounds, steps = (1, 4) if arguments.tiny else (arguments.rounds, arguments.steps)
    more = ["--gpt2-vocab", arguments.gpt2_vocab] if arguments.gpt2_vocab else []
    if not arguments.row:
        print_head(hardware, rounds, steps, arguments.tiny)
    for submission in arguments.submissions or SUBMISSIONS:
        found = [rehearsal(submission, hardware, steps, more) for _ in range(rounds)]
        cells = [
            submission,
            spread((one["tokens_per_second"] for one in found), ",.0f"),
            spread((one["overhead"] for one in found), "+.2%"),
            spread((one["utilization"] for one in found), ".1%"),
            spread(((one["peak_memory_bytes"] or 0) / 2**30 for one in found), ".1f") + " GiB",
            spread((one["judged_tokens"] / one["judging_seconds"] for one in found), ",.0f"),
            "; ".join(sorted({one["detour"] or "stay on the device" for one in found})),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
