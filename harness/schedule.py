"""What a campaign is on paper: a plan with every run and its seed in order, lines of what was run, and what is next.

Pure: the state of a campaign is a function of its plan and its lines, so that stopping anywhere and going on changes
nothing, and so that anybody can check that the lines follow the plan. Files and processes: campaign_folder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from harness.core.failures import Failure
from harness.core.referee import CPU_RESOLUTION
from harness.core.task import TASK_NAME, HardwareClass, Strict, hardware_class
from harness.errors import UserError
from harness.machine_warnings import BUSY_WALL_OVER_CPU
from harness.submission import Value

SCHEMA_VERSION: Literal[1] = 1
ATTEMPTS = 3  # how often a disturbed block is run in all; the last time counts
MAX_SCHEDULE = 1000
ID = r"^[0-9]{8}T[0-9]{6}-[a-z]+-[0-9a-f]{6}$"

JUDGED = "JUDGED"
KILLED = "killed"  # the journal has its start and no end
HARNESS_ERROR = "harness-error"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.]{0,31}$")]
Text = Annotated[str, StringConstraints(max_length=4000)]


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


class Arm(Strict):
    """One side of a campaign: a submission with methods dropped and hyperparameters set, as they were at the start."""

    word: Text  # as it was typed
    submission: Text  # the folder's name
    title: Text
    digest: Digest
    dropped: list[Text]
    settings: list[Text]
    methods: dict[str, bool]
    hparams: dict[str, Value]

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two arms the same, wherever they lie and whatever they are called."""
        return self.digest, sorted(self.methods.items()), sorted(self.hparams.items())


class ScheduledRun(Strict):
    """A run to come. The runs of a block (a pair of a race) stand side by side and are repeated together."""

    block: int = Field(ge=0)
    arm: ArmName
    seed: int = Field(ge=0, lt=2**31)


class CampaignPlan(Strict):
    """plan.json: everything that is fixed before the first run. Digests are sha256."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: str
    id: str = Field(pattern=ID)
    started: Text  # UTC, ISO 8601
    task: str = Field(pattern=TASK_NAME)
    task_source: Text  # the name of a task of the harness, or the path of another task file
    task_digest: Digest
    data_digest: Digest
    core_digest: Digest
    hardware_class: str
    machine: Text
    machine_digest: Digest
    arms: dict[ArmName, Arm]
    schedule: list[ScheduledRun] = Field(min_length=1, max_length=MAX_SCHEDULE)

    @field_validator("hardware_class")
    @classmethod
    def _is_a_class(cls, name: str) -> str:
        try:
            hardware_class(name)
        except UserError as error:
            raise ValueError(error.message) from None
        return name

    @model_validator(mode="after")
    def _blocks_are_whole(self) -> CampaignPlan:
        numbers = [run.block for run in self.schedule]
        if numbers != sorted(numbers) or sorted(set(numbers)) != list(range(numbers[-1] + 1)):
            raise ValueError("schedule: blocks must be numbered 0, 1, 2 ... in order")
        if len({(run.block, run.arm) for run in self.schedule}) < len(self.schedule):
            raise ValueError("schedule: an arm stands twice in a block")
        if not {run.arm for run in self.schedule} <= self.arms.keys():
            raise ValueError("schedule: names an arm that is not in arms")
        return self

    @property
    def hardware(self) -> HardwareClass:
        return hardware_class(self.hardware_class)

    @cached_property
    def blocks(self) -> list[list[ScheduledRun]]:
        """The scheduled runs block by block."""
        blocks: list[list[ScheduledRun]] = [[] for _ in range(self.schedule[-1].block + 1)]
        for run in self.schedule:
            blocks[run.block].append(run)
        return blocks


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
    attempt: int = Field(ge=1, le=ATTEMPTS)
    seed: int
    run_id: Text
    started: Text | None  # UTC, ISO 8601
    status: str  # JUDGED, a reason of failure, killed, or harness-error
    message: Text
    val_loss: float | None = Field(allow_inf_nan=False)
    seconds: float | None = Field(gt=0, lt=1e9)
    cpu_seconds: float | None = Field(ge=0, lt=1e9)
    total_seconds: float | None = Field(ge=0, lt=1e9)  # from launch to the end of judging
    tokens: int | None = Field(ge=0)
    tokens_counted_by: Text | None
    trust: Text | None
    run_digest: Digest | None  # of run.json

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

    def wall_over_cpu(self, cores: int) -> float | None:
        """Wall-clock x cores over CPU time of a judged run; CPU time is known to `CPU_RESOLUTION` seconds only."""
        if self.status != JUDGED or self.seconds is None or self.cpu_seconds is None:
            return None
        return cores * self.seconds / (self.cpu_seconds + CPU_RESOLUTION)


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
    """Goes through the lines in the order of the plan. Raises ValueError at a line that the plan does not ask for.

    A run that ended by no fault of its own is repeated at once, with its seed. A block in which wall-clock time is
    more than 1.03 times CPU time in a run is repeated as a whole, with its seeds, up to three times in all; the last
    one counts. That looks at no loss and no ratio, and the same seeds give the same losses, so it chooses nothing.
    """
    cores = plan.hardware.cores if plan.hardware.device == "cpu" else 0
    blocks: list[Block] = []
    counted: dict[str, RunLine] = {}
    attempt = 1
    for number, line in enumerate(lines):
        if line.slot != _slot(plan, number, len(blocks), counted, attempt):
            raise ValueError(f"run {number + 1} ({line.run_id}) is not the one that the plan asks for at this place")
        if line.ending is Ending.REPEAT:
            continue
        counted[line.arm] = line
        if len(counted) < len(plan.blocks[len(blocks)]):
            continue
        disturbed = is_disturbed(list(counted.values()), cores)
        if disturbed and attempt < ATTEMPTS:
            attempt += 1
        else:
            blocks.append(Block(counted, attempt, disturbed))
            attempt = 1
        counted = {}
    return Course(blocks, counted, _slot(plan, len(lines), len(blocks), counted, attempt))


def _slot(
    plan: CampaignPlan, number: int, block: int, counted: Mapping[str, RunLine], attempt: int
) -> Slot | None:  # fmt: skip
    if block == len(plan.blocks):
        return None
    run = plan.blocks[block][len(counted)]
    return Slot(number, block, run.arm, attempt, run.seed)


def is_disturbed(lines: Sequence[RunLine], cores: int) -> bool:
    """Whether other work slowed one of these runs. A block with a failed run is used for no time, so never."""
    ratios = [line.wall_over_cpu(cores) for line in lines]
    return None not in ratios and any(ratio is not None and ratio > BUSY_WALL_OVER_CPU for ratio in ratios)
