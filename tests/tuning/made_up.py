"""Made-up trials: a smooth bowl about a known optimum with noise, in place of runs."""

from __future__ import annotations

import itertools
import math
import zlib
from pathlib import Path

import numpy as np

from harness.tuning.search import Search, scouts
from harness.tuning.trials import JUDGED, Job, Trial
from harness.tuning.tune import Tuning

NOISE = 0.003


def made_up_loss(tuning: Tuning, job: Job) -> float | None:
    """Least at the optimum of every knob, 0.02 nats up for each two steps away from it; diverges beyond four steps."""
    loss = 3.3 + 0.3 * math.log(tuning.design.declared["steps"] / job.hparams["steps"])  # type: ignore[operator]
    for name, knob in tuning.protocol.knobs.items():
        if knob.step is None:
            continue
        distance = knob.place(float(job.hparams[name])) - knob.place(float(tuning.design.declared[name]))
        if name == "matrix_lr" and distance > 3.2:
            return None
        loss += 0.005 * (distance - 0.2) ** 2
    return loss + NOISE * float(np.random.default_rng(zlib.crc32(repr(job.key).encode())).standard_normal())


def run_made_up(tuning: Tuning, storage: Path) -> None:
    """Fills trials.csv by all stages of the protocol without running anything."""
    numbers = itertools.count()
    for stage in tuning.stages():
        search = None
        if stage == "search" and tuning.protocol.stages.search:
            search = Search(tuning.design, tuning.protocol.stages.search, tuning.table, storage)
        jobs = scouts(tuning.design) if stage == "scout" else []
        for job in search.jobs() if search else jobs or tuning.design.jobs(stage, tuning.table):
            if tuning.table.find(job.hparams, job.seed) is None:
                loss = made_up_loss(tuning, job)
                status = JUDGED if loss is not None else "not-finite"
                trial = Trial(job, loss, status, 90.0, f"run-{next(numbers)}")
                tuning.table.add(trial)
                if search:
                    search.tell(trial)
