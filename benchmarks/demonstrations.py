"""Races whose outcome is known beforehand: does the harness say so? Timed: nothing else may run on the machine.

    python benchmarks/demonstrations.py same --runs 40    # the baseline again and again, one hour
    python benchmarks/demonstrations.py short --races 20  # the same submission against itself, on a task of seconds
    python benchmarks/demonstrations.py fewer-steps       # or waste, no-waste, undertuned: one race each
    python benchmarks/demonstrations.py report > benchmarks/results/demonstrations.md

Every part goes on where it was stopped. What came out is kept in benchmarks/results/demonstrations/: a line for each
run of `same`, and plan, runs and verdict of each race, from which `report` computes its table again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.campaign import Request, run_once
from harness.core.task import hardware_class
from harness.evidence.calibration import calibration_for
from harness.evidence.folder import PLAN, RUNS, VERDICT, read_campaign
from harness.evidence.sides import Where
from harness.evidence.verdict import CampaignVerdict, verdict_of
from harness.machine import fingerprint
from harness.paths import BASELINES, DATA
from harness.paths import RUNS as RUNS_DIR
from harness.statistics import Interval, Pair, RacePlan, Slope, TimedRun, Verdict, decide, sequential_plan

HARDWARE = "cpu-1thread"
BASELINE = BASELINES / "adamw" / "gcide"
KEPT = Path(__file__).parent / "results" / "demonstrations"
WORK = RUNS_DIR / "demonstrations"
SPEEDRUN = str(Path(sys.executable).with_name("speedrun"))
RELABELLINGS = 5_000
WASTE = [
    ("import math\n", "import math\nimport time\n"),
    ("    for step in range(steps):\n", "    for step in range(steps):\n        begun = time.perf_counter()\n"),
    (
        "        run.log(",
        "        end = begun + 1.05 * (time.perf_counter() - begun)\n"
        "        while time.perf_counter() < end:\n            pass\n        run.log(",
    ),
]


@dataclass(frozen=True)
class Run:
    """One run of `same`, in the order in which they were done."""

    run_id: str
    seed: int
    seconds: float
    val_loss: float
    tokens: int


@dataclass(frozen=True)
class Demonstration:
    """A race with what must come of it; `wasteful` and `baseline` name the arms."""

    candidate: str
    reference: str
    options: tuple[str, ...]
    expected: str


RACES = {
    "fewer-steps": Demonstration(
        "baseline", "baseline", ("--set", "steps={fewer}"),
        "5% fewer steps: raw ratio near 1.05, interval at equal loss around 1, no record",
    ),
    "waste": Demonstration("wasteful", "baseline", (), "5% of each step wasted: slower"),
    "no-waste": Demonstration("baseline", "wasteful", (), "the waste taken out again: record"),
    "undertuned": Demonstration(
        "baseline", "baseline", ("--reference-set", "matrix_lr={low}"),
        "against itself with a quarter of the matrices' learning rate: record",
    ),
}  # fmt: skip


def same(count: int) -> None:
    """Runs the baseline until there are `count` runs of its present source."""
    from harness.submission import load_submission

    submission = load_submission(BASELINE)
    path = KEPT / "same.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    while len(runs := same_runs(path)) < count:
        finished = run_once(Request(submission, hardware_class(HARDWARE), DATA, WORK / "same"))
        record = finished.record
        if record.val_loss is None or record.seconds is None or record.tokens is None:
            raise SystemExit(f"error: {finished.folder}: {record.message}")
        run = Run(record.run_id, record.seed, record.seconds, record.val_loss, record.tokens)
        with path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        print(f"{len(runs) + 1} of {count}: {run.val_loss:.4f} in {run.seconds:.2f} s", flush=True)


def same_runs(path: Path) -> list[Run]:
    """The runs kept so far."""
    return [Run(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def race(name: str) -> None:
    """Does a race, or goes on with it, and keeps it."""
    wanted, work = RACES[name], WORK / name
    words = {"baseline": "baseline", "wasteful": str(wasteful_copy())}
    arms = [words[wanted.candidate], words[wanted.reference], *(text.format(**values()) for text in wanted.options)]
    begun = sorted(work.glob(f"campaigns/*/{PLAN}"))
    command = ["resume", begun[-1].parent.name] if begun else ["race", *arms]
    subprocess.run([SPEEDRUN, *command, "--runs-dir", str(work)], check=True)
    keep(sorted(work.glob(f"campaigns/*/{PLAN}"))[-1].parent, KEPT / name)


def values() -> dict[str, str]:
    """What the options of the races are filled with, from what the baseline declares."""
    from harness.submission import load_submission

    declared = load_submission(BASELINE).hparams([])
    steps, rate = declared["steps"], declared["matrix_lr"]
    return {"fewer": str(round(0.95 * float(steps))), "low": f"{float(rate) / 4:.6g}"}


def wasteful_copy() -> Path:
    """The baseline with a loop in each step that computes nothing for 5% of the time which the step took."""
    folder = WORK / "wasteful"
    shutil.copytree(BASELINE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tuning"))
    source = (BASELINE / "train.py").read_text()
    for line, changed in WASTE:
        assert source.count(line) == 1, f"{BASELINE}/train.py has changed: {line!r}"
        source = source.replace(line, changed)
    (folder / "train.py").write_text(source)
    return folder


def short(count: int) -> None:
    """Races a submission against itself on the seconds-sized task of the tests, `count` times."""
    from tests.conftest import make_toy
    from tests.toy_submission import write_submission

    folder = WORK / "short"
    if not (folder / "toy.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_toy(folder)
        write_submission(folder / "bigram")
    common = ["--data-dir", str(folder / "data"), "--records-dir", str(folder / "records")]
    task = ["--task", str(folder / "toy.toml")]
    if not list(folder.glob("records/*/*/calibration.json")):
        with_it = ["--with", str(folder / "bigram"), "--runs-dir", str(folder / "calibration")]
        subprocess.run([SPEEDRUN, "calibrate", str(folder / "toy.toml"), *with_it, *common], check=True)
    for number in range(count):
        work = folder / f"{number:02d}"
        begun = sorted(work.glob(f"campaigns/*/{PLAN}"))
        arms = [str(folder / "bigram")] * 2
        command = ["resume", begun[-1].parent.name] if begun else ["race", *arms, *task]
        subprocess.run([SPEEDRUN, *command, "--runs-dir", str(work), *common], check=True)
        keep(sorted(work.glob(f"campaigns/*/{PLAN}"))[-1].parent, KEPT / "short" / f"{number:02d}")


def keep(campaign: Path, folder: Path) -> None:
    """Copies what a campaign's verdict follows from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PLAN, RUNS, VERDICT):
        shutil.copy(campaign / name, folder / name)


# Tables


def report() -> None:
    """Prints the tables of what has been done so far."""
    machine = fingerprint()
    print(f"""# Races whose outcome is known beforehand

`python benchmarks/demonstrations.py`, {machine.cpu}, torch {machine.packages["torch"]}; plan, runs and verdict of each
race lie in benchmarks/results/demonstrations/. Ratios are reference over candidate, intervals one-sided at 99% over
all looks.
""")
    print("| race | must come out | verdict | pairs | at equal loss | tokens | speed | raw |")
    print("|---|---|---|--:|---|---|---|--:|")
    for name, wanted in RACES.items():
        if not (KEPT / name / VERDICT).exists():
            print(f"| {name} | {wanted.expected} | not measured | | | | | |")
            continue
        found = verdict_of(read_campaign(KEPT / name))
        assert found is not None, "a race is kept when it has a verdict"
        cells = [cell(found.equal_loss), cell(found.tokens), cell(found.speed), f"{found.raw or 0:.3f}"]
        print(f"| {name} | {wanted.expected} | {found.verdict} | {found.pairs} | {' | '.join(cells)} |")
    report_same(same_runs(KEPT / "same.jsonl"))
    report_short(
        [found for path in sorted(KEPT.glob(f"short/*/{PLAN}")) if (found := verdict_of(read_campaign(path.parent)))]
    )


def cell(interval: Interval | None) -> str:
    """A ratio with its limits."""
    return "" if interval is None else f"{interval.ratio:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def report_same(runs: Sequence[Run]) -> None:
    """How often chance alone makes a record of the baseline's own runs."""
    print("\n## The baseline against itself, relabelled\n")
    if len(runs) < 4:
        print("Not measured.")
        return
    calibration = calibration_for(Where("gcide", HARDWARE))
    target = max(run.val_loss for run in runs) + 1.0  # the target is no obstacle here: only `faster` is tried
    plan = RacePlan(1.0, sequential_plan(), calibration.loss_spread, calibration.log_ratio_spread)
    found = relabelled(runs, plan, target, calibration.slope)
    losses, seconds = [run.val_loss for run in runs], [run.seconds for run in runs]
    print(f"""{len(runs)} runs, one after another: loss {np.mean(losses):.4f} (sd {np.std(losses, ddof=1):.4f}),
seconds {np.mean(seconds):.2f} (sd {100 * np.std(seconds, ddof=1) / np.mean(seconds):.2f}%). Neighbours were made pairs,
and which of the two is the candidate was drawn, {RELABELLINGS:,} times; each time pairs in random order were raced
until the verdict, the least ratio being 1 and the target no obstacle.
""")
    print("| verdict | share |")
    print("|---|--:|")
    for verdict, times in found.most_common():
        print(f"| {verdict} | {times / RELABELLINGS:.2%} |")
    print(
        f"\nA record by chance may come in at most 1% of races; it came in {found[Verdict.RECORD] / RELABELLINGS:.2%}."
    )


def relabelled(runs: Sequence[Run], plan: RacePlan, target: float, slope: Slope) -> Counter[Verdict]:
    """The verdicts of races between the runs, with arms drawn by chance."""
    random = np.random.default_rng(0)
    timed = [TimedRun(run.seconds, run.val_loss, run.tokens) for run in runs]
    neighbours = list(zip(timed[::2], timed[1::2], strict=False))
    found: Counter[Verdict] = Counter()
    for _ in range(RELABELLINGS):
        drawn = [neighbours[index] for index in random.permutation(len(neighbours))[: plan.sequence.maximum]]
        pairs = [Pair(*(pair if random.random() < 0.5 else pair[::-1])) for pair in drawn]
        for look in (look for look in plan.sequence.looks if look <= len(pairs)):
            if verdict := decide(plan, pairs[:look], target, slope).verdict:
                found[verdict] += 1
                break
    return found


def report_short(verdicts: Sequence[CampaignVerdict]) -> None:
    """What became of short races of a submission against itself."""
    print("\n## Short races of a submission against itself, on the task of the tests\n")
    if not verdicts:
        print("Not measured.")
        return
    print("| verdict | races | pairs, mean |")
    print("|---|--:|--:|")
    for verdict, times in Counter(found.verdict for found in verdicts).most_common():
        pairs = np.mean([found.pairs for found in verdicts if found.verdict is verdict])
        print(f"| {verdict} | {times} | {pairs:.1f} |")


def main() -> None:
    """One part at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["same", "short", "report", *RACES])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--races", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.part == "same":
        same(arguments.runs)
    elif arguments.part == "short":
        short(arguments.races)
    elif arguments.part == "report":
        report()
    else:
        race(arguments.part)


if __name__ == "__main__":
    main()
