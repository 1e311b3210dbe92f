"""Does the task gcide tell apart what it should? Controls and first attempts beside the AdamW baseline, by loss.

    python benchmarks/sanity_discriminators.py --seeds 3 --workers 2 > benchmarks/results/sanity_discriminators.md
    python benchmarks/sanity_discriminators.py --report      # the table of the runs so far
    python benchmarks/sanity_discriminators.py --steps 20 --seeds 1 --runs-dir /tmp/try      # does it work?

Every arm is a submission with settings, run at its full budget on the same seeds. Each run is appended to
sanity_discriminators.jsonl in the runs folder at once; stopped, the same command goes on. Losses do not depend on what
else the machine does. Which arm is faster to the target a race decides: `speedrun race baseline best --set ...`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.core.task import hardware_class
from harness.errors import UserError
from harness.machine import fingerprint
from harness.paths import BASELINES, DATA, RUNS, SUBMISSIONS
from harness.submission import Submission, Value, load_submission
from harness.tuning.dispatch import Dispatcher, Place
from harness.tuning.trials import Job, Trial, source_digest

LOG = "sanity_discriminators.jsonl"
BASELINE = BASELINES / "adamw" / "gcide"
TEXTBOOK, NANOGPT = SUBMISSIONS / "gcide-adamw-textbook", SUBMISSIONS / "gcide-adamw-nanogpt"
CLEAR = 2.0  # standard errors of a mean difference


@dataclass(frozen=True)
class Arm:
    """A submission with settings; `source` says where they are from."""

    name: str
    folder: Path
    source: str
    settings: Mapping[str, Value] = field(default_factory=dict)

    @property
    def changes(self) -> list[str]:
        """The settings as `--set` takes them."""
        return [f"{name}={value}" for name, value in self.settings.items()]


@dataclass(frozen=True)
class Expectation:
    """The loss of `worse` minus that of `better` should lie between `low` and `high` nats."""

    claim: str
    worse: str
    better: str
    low: float = 0.0
    high: float = math.inf


@dataclass(frozen=True)
class Run:
    """A line of the log: what fixes a loss, and the loss."""

    arm: str
    source: str
    hparams: dict[str, Value]
    seed: int
    val_loss: float | None
    status: str
    run_id: str


CHARACTERS: dict[str, Value] = {"lr": 1e-3, "beta2": 0.99, "warmup": 0.02}
ADAMW = "AdamW, the baseline"


def arms() -> list[Arm]:
    """All arms, the baseline first; rates that are a multiple of its own follow its declared one."""
    rate = load_submission(BASELINE).hparams([])["matrix_lr"]
    assert isinstance(rate, float)
    of_baseline: list[tuple[str, Mapping[str, Value]]] = [
        ("AdamW, matrix rate x 4", {"matrix_lr": float(f"{4 * rate:.4g}")}),
        ("AdamW, matrix rate / 4", {"matrix_lr": float(f"{rate / 4:.4g}")}),
        ("AdamW, one rate of 1e-3", {f"{kind}_lr": 1e-3 for kind in ("matrix", "embedding", "head", "vector")}),
        ("AdamW, constant rate", {"cooldown": 0.0}),
        ("AdamW, linear to zero", {"decay": "linear", "cooldown": 1.0, "final_lr": 0.0}),
    ]
    others = ("SGD", "NAdamW", "AdEMAMix", "Shampoo", "SOAP", "Muon")
    return [
        Arm(ADAMW, BASELINE, "as declared"),
        *(Arm(name, BASELINE, "a check", settings) for name, settings in of_baseline),
        Arm("AdamW, textbook", TEXTBOOK, "as declared"),
        Arm("AdamW, nanoGPT", NANOGPT, "as declared"),
        Arm("AdamW, nanoGPT for characters", NANOGPT, "its train_shakespeare_char.py", CHARACTERS),
        *(Arm(name, SUBMISSIONS / f"gcide-{name.lower()}", "as declared") for name in others),
    ]


EXPECTED = [
    Expectation("SGD is much worse than AdamW", "SGD", ADAMW, low=0.2),
    Expectation("four times the matrices' rate loses over 0.05", "AdamW, matrix rate x 4", ADAMW, low=0.05),
    Expectation("a fourth of it too", "AdamW, matrix rate / 4", ADAMW, low=0.05),
    Expectation("one rate of 1e-3 for all loses over 0.2", "AdamW, one rate of 1e-3", ADAMW, low=0.2),
    Expectation("a constant rate is worse than linear to zero", "AdamW, constant rate", "AdamW, linear to zero"),
    Expectation("AdamW is worse than Muon", ADAMW, "Muon"),
    Expectation("SOAP is within 0.03 of Muon", "SOAP", "Muon", low=-0.03, high=0.03),
]


class Log:
    """The runs so far, and those that are missing."""

    def __init__(self, path: Path, steps: int | None) -> None:
        self._path = path
        self._steps = [] if steps is None else [f"steps={steps}"]
        lines = path.read_text().splitlines() if path.exists() else []
        self._runs = [Run(**json.loads(line)) for line in lines]

    def hparams(self, arm: Arm, submission: Submission) -> dict[str, Value]:
        """All hyperparameters of an arm."""
        return submission.hparams([*arm.changes, *self._steps])

    def losses(self, arm: Arm, seeds: Sequence[int]) -> dict[int, float | None]:
        """Loss by seed of the arm as it is declared now; None for a failed run."""
        submission = load_submission(arm.folder)
        asked = source_digest(submission), self.hparams(arm, submission)
        return {
            run.seed: run.val_loss for run in self._runs if (run.source, run.hparams) == asked and run.seed in seeds
        }

    def add(self, run: Run) -> None:
        """Appends a run."""
        self._runs.append(run)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")


def run_missing(log: Log, seeds: Sequence[int], runs_dir: Path, workers: int) -> None:
    """Runs what is missing, submission by submission, several at a time."""
    by_folder: dict[Path, list[Arm]] = {}
    for arm in arms():
        by_folder.setdefault(arm.folder, []).append(arm)
    for folder, those in by_folder.items():
        submission = load_submission(folder)
        jobs = [
            Job(arm.name, seed, seed, log.hparams(arm, submission))
            for seed in seeds
            for arm in those
            if seed not in log.losses(arm, seeds)
        ]

        def done(trial: Trial, submission: Submission = submission) -> None:
            job, source = trial.job, source_digest(submission)
            log.add(Run(job.stage, source, job.hparams, job.seed, trial.val_loss, trial.status, trial.run_id))
            print(f"{job.stage}, seed {job.seed}: {trial.val_loss or trial.status}", file=sys.stderr, flush=True)

        with Dispatcher(Place(submission, hardware_class("cpu-1thread"), DATA, runs_dir, workers)) as dispatcher:
            dispatcher.run(iter(jobs), done)


def difference(worse: dict[int, float | None], better: dict[int, float | None]) -> tuple[float, float, int] | None:
    """Mean and standard error over the seeds that both have, and their number; a failed run loses by any measure."""
    pairs = [(worse[seed], better[seed]) for seed in sorted(worse.keys() & better.keys())]
    gaps = [math.inf if a is None else a - b for a, b in pairs if b is not None]
    if not gaps:
        return None
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 and math.inf not in gaps else math.nan
    return statistics.fmean(gaps), error, len(gaps)


def judged(expected: Expectation, mean: float, error: float) -> str:
    """Whether what was expected was seen. One seed has no error and decides nothing."""
    if math.isinf(mean):  # the worse one failed
        return "seen" if math.isinf(expected.high) else "NOT SEEN"
    if math.isnan(error):
        return "one seed only"
    distance = min(mean - expected.low, expected.high - mean)  # from the nearest end, positive inside
    if abs(distance) <= CLEAR * error:
        return "unclear"
    return "seen" if distance > 0 else "NOT SEEN"


def report(log: Log, seeds: Sequence[int], command: str) -> str:
    """The two tables as Markdown."""
    machine, found = fingerprint(), {arm.name: log.losses(arm, seeds) for arm in arms()}
    lines = [
        "# What does the task gcide tell apart?",
        "",
        f"`{command}` on",
        f"{machine.cpu}, torch {machine.packages['torch']}.",
        "Loss in nats per token; differences are means over common seeds, with their standard error.",
        "",
        "| arm | source | settings | seeds | failed | loss | sd | behind the baseline |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for arm in arms():
        losses = [loss for loss in found[arm.name].values() if loss is not None]
        failed = len(found[arm.name]) - len(losses)
        mean = f"{statistics.fmean(losses):.4f}" if losses else ""
        spread = f"{statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        gap = difference(found[arm.name], found[ADAMW]) if arm.name != ADAMW else None
        settings = f"`{' '.join(arm.changes)}`" if arm.settings else ""
        cells = (arm.name, arm.source, settings, len(losses) + failed, failed, mean, spread, _signed(gap))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| expected | difference | seen? |", "|---|--:|---|"]
    for expected in EXPECTED:
        gap = difference(found[expected.worse], found[expected.better])
        lines.append(f"| {expected.claim} | {_signed(gap)} | {judged(expected, *gap[:2]) if gap else 'not run'} |")
    return "\n".join(lines)


def _signed(gap: tuple[float, float, int] | None) -> str:
    if gap is None:
        return ""
    mean, error, _ = gap
    return f"{mean:+.4f}" if math.isnan(error) else f"{mean:+.4f} +- {error:.4f}"


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="so many of each arm")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--steps", type=int, help="another budget for all arms, to try it out")
    parser.add_argument("--runs-dir", type=Path, default=RUNS)
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    seeds = range(1, arguments.seeds + 1)
    log = Log(arguments.runs_dir / LOG, arguments.steps)
    try:
        if not arguments.report:
            run_missing(log, seeds, arguments.runs_dir, arguments.workers)
        print(report(log, seeds, " ".join(["python", "benchmarks/sanity_discriminators.py", *sys.argv[1:]])))
    except UserError as error:
        raise SystemExit(f"error: {error.message}\n{error.remedy}") from None


if __name__ == "__main__":
    main()
