"""What was run and what is next. Pure: the state of a campaign is a function of its plan and its lines.

So stopping anywhere and going on changes nothing, and anybody can check that the lines follow the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from pydantic import Field, model_validator

from harness.core.clock import BUSY_SHARE
from harness.core.failures import Failure
from harness.core.referee import CPU_RESOLUTION
from harness.core.task import Strict
from harness.evidence.plans import MOST_SECONDS, ArmName, CampaignPlan, Digest, Text
from harness.run_folder import HARNESS_ERROR, KILLED

REPEATS = 3  # how often a disturbed block is repeated; the last time counts

JUDGED = "JUDGED"


class Ending(StrEnum):
    """What a run's end means for its campaign."""

    COUNTS = "counts"
    FAILED = "failed"  # counts as a run that did not reach the target
    INVALID = "invalid"  # broke a rule that makes a measurement one
    REPEAT = "repeat"  # ended by something that is not the submission's fault: repeated with the same seed


ENDINGS: dict[str, Ending] = {
    JUDGED: Ending.COUNTS,
    KILLED: Ending.REPEAT,
    HARNESS_ERROR: Ending.REPEAT,
    Failure.INTERRUPTED: Ending.REPEAT,
    Failure.SUSPENDED: Ending.REPEAT,
    Failure.MACHINE_BUSY: Ending.REPEAT,
    Failure.JUDGE_CRASH: Ending.REPEAT,
    Failure.CRASH: Ending.FAILED,
    Failure.TIMEOUT: Ending.FAILED,
    Failure.SETUP_CAP: Ending.FAILED,
    Failure.MEMORY_CAP: Ending.FAILED,
    Failure.PROCESS_CAP: Ending.FAILED,
    Failure.DISK_CAP: Ending.FAILED,  # of its own scratch folder; a full disk of this machine is a harness error
    Failure.NO_WEIGHTS: Ending.FAILED,
    Failure.HOST_CRASH: Ending.FAILED,
    Failure.HOST_TIMEOUT: Ending.FAILED,
    Failure.NOT_FINITE: Ending.FAILED,
    Failure.TOO_MANY_CORES: Ending.INVALID,
    Failure.WEIGHTS_CHANGED: Ending.INVALID,
    Failure.WEIGHTS_CAP: Ending.INVALID,
    Failure.WEIGHTS_MAPPED: Ending.INVALID,
    Failure.WEIGHTS_HOLD_DATA: Ending.INVALID,
    Failure.PROTOCOL: Ending.INVALID,
    Failure.HOST_LOAD_CAP: Ending.INVALID,
    Failure.HOST_ANSWER_CAP: Ending.INVALID,
    Failure.HOST_PROTOCOL: Ending.INVALID,
    Failure.WRONG_SHAPE: Ending.INVALID,
    Failure.AUDIT: Ending.INVALID,
}


@dataclass(frozen=True)
class Slot:
    """The next run of a campaign: `number` counts lines from 0, `attempt` the times its block is run, from 1."""

    number: int
    block: int
    arm: str
    attempt: int
    seed: int


class RunLine(Strict):
    """A line of runs.jsonl: a slot, and what came of it. Losses are nats per token, seconds wall-clock."""

    number: int = Field(ge=0)
    block: int = Field(ge=0)
    arm: ArmName
    attempt: int = Field(ge=1, le=REPEATS + 1)
    seed: int
    run_id: Text
    started: Text | None  # UTC, ISO 8601
    status: str  # JUDGED, a reason of failure, killed, or harness-error
    message: Text
    val_loss: float | None = Field(allow_inf_nan=False)
    seconds: float | None = Field(gt=0, lt=MOST_SECONDS)
    cpu_seconds: float | None = Field(ge=0, lt=MOST_SECONDS)
    lost_seconds: float | None = Field(ge=0, lt=MOST_SECONDS)  # others had them, of the run's CPUs; None: not counted
    total_seconds: float | None = Field(ge=0, lt=MOST_SECONDS)  # from launch to the end of judging
    tokens: int | None = Field(ge=0)
    tokens_counted_by: Text | None
    steps: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # the score, where the task counts steps
    trust: Text | None
    run_digest: Digest | None  # of run.json
    flags: list[Text] = []  # ids of what a person should look at: harness/review.py
    holdout_loss: float | None = Field(default=None, allow_inf_nan=False)  # where the plan asked for it

    @model_validator(mode="after")
    def _is_whole(self) -> RunLine:
        if self.status not in ENDINGS:
            raise ValueError(f"status: {self.status!r} is no end that a run can have")
        measured = (self.val_loss, self.seconds, self.cpu_seconds, self.tokens, self.run_digest)
        if self.status == JUDGED and None in measured:
            raise ValueError("a judged run has val_loss, seconds, cpu_seconds, tokens and run_digest")
        return self

    @property
    def ending(self) -> Ending:
        return ENDINGS[self.status]

    @property
    def slot(self) -> Slot:
        return Slot(self.number, self.block, self.arm, self.attempt, self.seed)

    def is_disturbed(self, cores: int) -> bool:
        """Whether others had more than 3% of the time of its cores. Idling is a run's own affair and does not count."""
        if self.lost_seconds is None or self.seconds is None:
            return False
        return self.lost_seconds > BUSY_SHARE * cores * self.seconds + CPU_RESOLUTION


@dataclass(frozen=True)
class Block:
    """A block that is done: the lines that count, by arm, and whether something disturbed the last attempt too."""

    runs: Mapping[str, RunLine]
    attempts: int
    disturbed: bool


@dataclass(frozen=True)
class Course:
    """How far a campaign has come. `next` is None after the last scheduled run; `partial`: done runs of its block."""

    blocks: list[Block]
    partial: Mapping[str, RunLine]
    next: Slot | None


def follow(plan: CampaignPlan, lines: Sequence[RunLine]) -> Course:
    """Goes through the lines in the order of the plan. Raises ValueError that names line and field where one is not.

    A run that ended by no fault of its own is repeated at once, with its seed. A block in which others had more than 3%
    of the time of a run's CPUs is repeated as a whole, with its seeds, at most three times; the last time counts. That
    looks at no loss, no ratio and nothing that the script does, so it chooses nothing.
    """
    cores = plan.hardware.cores if plan.hardware.device == "cpu" else None
    blocks: list[Block] = []
    counted: dict[str, RunLine] = {}
    attempt = 1
    for number, line in enumerate(lines):
        _require(number, line.slot, _slot(plan, number, len(blocks), counted, attempt))
        if line.ending is Ending.REPEAT:
            continue
        counted[line.arm] = line
        if len(counted) < len(plan.blocks[len(blocks)]):
            continue
        disturbed = cores is not None and is_disturbed(list(counted.values()), cores)
        if disturbed and attempt <= REPEATS:
            attempt += 1
        else:
            blocks.append(Block(counted, attempt, disturbed))
            attempt = 1
        counted = {}
    return Course(blocks, counted, _slot(plan, len(lines), len(blocks), counted, attempt))


def _slot(plan: CampaignPlan, number: int, block: int, counted: Mapping[str, RunLine], attempt: int) -> Slot | None:
    if block == len(plan.blocks):
        return None
    run = plan.blocks[block][len(counted)]
    return Slot(number, block, run.arm, attempt, run.seed)


def _require(number: int, found: Slot, due: Slot | None) -> None:
    if due is None:
        raise ValueError(f"line {number + 1}: the plan asks for no further run")
    for field in fields(Slot):
        has, asked = getattr(found, field.name), getattr(due, field.name)
        if has != asked:
            raise ValueError(f"line {number + 1}: {field.name}: {has!r} where the plan asks for {asked!r}")


def broke_a_rule(lines: Sequence[RunLine], arm: str) -> bool:
    """Whether a run of this arm did; a campaign that is `invalid` by the other one says nothing about it."""
    return any(line.arm == arm and line.ending is Ending.INVALID for line in lines)


def is_disturbed(lines: Sequence[RunLine], cores: int) -> bool:
    """Whether other work slowed one of these runs. A block with a failed run is used for no time, so never."""
    return all(line.status == JUDGED for line in lines) and any(line.is_disturbed(cores) for line in lines)
