"""One trial as a process of its own, kept on its own cores: `python -m harness.tuning.worker`.

Reads an order from standard input and answers with one JSON object on standard output: the run's state, or what the
user can put right. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.campaign import Request, run_once
from harness.core.guard import die_with_parent
from harness.core.task import hardware_class, load_task
from harness.errors import UserError
from harness.submission import load_submission

STARTED_AT = time.monotonic()


@dataclass(frozen=True)
class Order:
    """What to run, where, for whom."""

    parent: int
    cores: list[int]
    submission: str
    digest: str
    task: str
    hardware: str
    data_dir: str
    runs_dir: str
    seed: int
    settings: list[str]


@dataclass(frozen=True)
class Answer:
    """`status` is the reason of a failed run or None. Seconds are wall-clock, from the start of the worker."""

    val_loss: float | None
    status: str | None
    message: str
    seconds: float
    run_id: str


def main() -> None:
    """Does the one run, on the cores of the order."""
    order = Order(**json.load(sys.stdin))
    die_with_parent(order.parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the run is ended, kept and journalled
    os.sched_setaffinity(0, order.cores)
    try:
        json.dump(asdict(_run(order)), sys.stdout)
    except UserError as error:
        json.dump({"error": error.message, "remedy": error.remedy}, sys.stdout)


def _run(order: Order) -> Answer:
    submission = load_submission(Path(order.submission), load_task(order.task))
    if submission.digest != order.digest:
        raise UserError(f"{order.submission}: the submission changed while it was tuned", "run the command again")
    request = Request(
        submission, hardware_class(order.hardware), Path(order.data_dir), Path(order.runs_dir), order.seed,
        settings=order.settings,
    )  # fmt: skip
    record = run_once(request).record
    return Answer(record.val_loss, record.reason, record.message, time.monotonic() - STARTED_AT, record.run_id)


if __name__ == "__main__":
    main()
