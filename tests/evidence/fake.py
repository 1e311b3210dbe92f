"""Campaigns without training: a runner that writes journal and bundle like a real one, and can die at any point."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.bundle import RunRecord, write_bundle
from harness.campaign import Request, data_digest
from harness.evidence.folder import Campaign, create_campaign
from harness.evidence.plans import CANDIDATE, REFERENCE, Calibration, RaceCampaign
from harness.evidence.race import plan_race
from harness.evidence.series import Places
from harness.evidence.sides import Side
from harness.frozen import core_digest
from harness.journal import Journal
from harness.machine import fingerprint
from harness.statistics import Slope
from harness.submission import load_submission
from tests.conftest import Toy
from tests.fuzz.valid import RUN_JSON
from tests.toy_submission import write_submission

MACHINE = fingerprint()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOLDOUT_GAP = 0.0125
POINTS = ("before the start", "after the start", "after the bundle", "after the end")


class Died(BaseException):
    """The process that did the campaign is gone."""


def calibration(**changes: Any) -> Calibration:
    fields = {
        "task": "toy", "hardware_class": "cpu-1thread", "provisional": False, "source": "made up",
        "measured": "2026-01-01", "submission": None, "core_digest": None, "task_digest": None, "data_digest": None,
        "machine": "here", "machine_digest": MACHINE.digest, "runs": 18,
        "loss_spread": 0.005, "clock_variation": 0.004, "slope": Slope(0.25, 0.01, 15), "curvature_p": None,
        "run_seconds": 10.0, "total_seconds": 12.0,
    }  # fmt: skip
    return Calibration.model_validate({**fields, **changes})


@dataclass(frozen=True)
class Given:
    """What came of a run: a reason of failure, or None and figures."""

    reason: str | None = None
    loss: float = 3.8
    seconds: float = 10.0
    lost_seconds: float | None = 0.0
    flags: tuple[str, ...] = ()
    trust: str = "isolated"
    timed: bool = False  # of a run that failed: its clock had stopped
    steps: float | None = None


def usual(request: Request) -> Given:
    """A candidate that is 25% faster, so that the first look decides; loss and time follow from the seed."""
    drawn = random.Random(f"{request.seed} {request.facts['arm']}")
    factor = 1.0 if request.facts["arm"] == REFERENCE else 0.8
    seconds = 10.0 * factor * (1 + 0.003 * drawn.gauss(0, 1))
    return Given(loss=3.8 + 0.0005 * drawn.gauss(0, 1), seconds=seconds)


@dataclass
class FakeRunner:
    """Does a run as `outcome` says. `deaths` maps the number of a start (from 0) to the point at which it dies."""

    outcome: Callable[[Request], Given] = usual
    deaths: dict[int, str] = field(default_factory=dict)
    started: list[Request] = field(default_factory=list)
    judged: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, request: Request) -> None:
        point = self.deaths.get(len(self.started), "")
        self.started.append(request)
        _die(point, "before the start")
        run_id = f"run-{len(list(request.runs_dir.glob('run-*'))):04d}"
        journal = Journal(request.runs_dir / "journal.jsonl")
        journal.start(run_id, **request.facts)
        (request.runs_dir / run_id).mkdir()
        _die(point, "after the start")
        given = self.outcome(request)
        record = _record(run_id, request, given)
        write_bundle(request.runs_dir / run_id, record, [])
        _die(point, "after the bundle")
        digest = hashlib.sha256((request.runs_dir / run_id / "run.json").read_bytes()).hexdigest()
        journal.end(run_id, given.reason or "JUDGED", digest)
        if given.reason is None:
            assert request.seed is not None
            self.judged.append((request.facts["arm"], request.seed))
        _die(point, "after the end")


def _die(point: str, here: str) -> None:
    if point == here:
        raise Died


def _record(run_id: str, request: Request, given: Given) -> RunRecord:
    submission, judged = request.submission, given.reason is None
    timed = judged or given.timed
    fields = copy.deepcopy(RUN_JSON) | {
        "run_id": run_id, "state": "JUDGED" if judged else "FAILED", "reason": given.reason, "message": "",
        "task": "toy", "seed": request.seed, "methods": submission.methods(request.dropped),
        "hparams": submission.hparams(request.settings), "trust": given.trust,
        "val_loss": given.loss if judged else None, "seconds": given.seconds if timed else None,
        "cpu_seconds": given.seconds if timed else None, "lost_seconds": given.lost_seconds,
        "times": {"JUDGED": given.seconds + 2},
        "steps": given.steps, "tokens": 1000 if judged else None, "tokens_counted_by": "referee",
        "review": [{"id": flag, "text": "look"} for flag in given.flags],
        "holdout": {"val_loss": given.loss + HOLDOUT_GAP} if judged and request.judge_holdout else None,
        "digests": {
            "submission": submission.digest, "task": submission.task.digest, "data": data_digest(submission.task),
            "core": core_digest(), "machine": MACHINE.digest,
        },
    }  # fmt: skip
    return RunRecord.model_validate(fields)


def sides(toy: Toy, folder: Path) -> tuple[Side, Side]:
    """The same submission twice, the candidate with fewer steps."""
    submission = load_submission(write_submission(folder / "bigram"), toy.task)
    return Side("x", submission, (), ("steps=20",)), Side("y", submission)


def new_race(toy: Toy, folder: Path, pairs: int = 16, **changes: Any) -> tuple[Campaign[RaceCampaign], Places]:
    """A planned race in a new folder."""
    both = sides(toy, folder)
    plan = plan_race(both, "cpu-1thread", pairs, calibration(**changes), MACHINE, NOW)
    (folder / "runs").mkdir()
    submissions = {CANDIDATE: both[0].submission, REFERENCE: both[1].submission}
    return create_campaign(folder / "runs" / "campaigns", plan, submissions), Places(toy.data_dir, folder / "runs")
