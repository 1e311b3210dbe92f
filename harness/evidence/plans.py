"""What a campaign is on paper: plan.json, with every run and its seed in order, fixed before the first run.

`schema_version` 1 stands for the present rules too: what is repeated, what counts as failed (`course`), and how the
runs decide (`race`, `harness.statistics`). Other rules get another number, so that what was decided under these is
computed again under these. The one correction since: two losses are the same within 1e-9 nats, not to the last bit
(`same_loss`, which older plans do not name). It changed what one race said, which is published with both answers
(benchmarks/results/demonstrations/waste-version-1), and no record or attempt. What was added since decides only in
plans that name it: that a record is faster in plain time too (`plain_time`).
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from harness.core.task import TASK_NAME, HardwareClass, Strict, hardware_class
from harness.errors import UserError
from harness.statistics import RacePlan, Slope, log_ratio_spread
from harness.submission import Value

MAX_SCHEDULE = 1000
MOST_SECONDS = 1e9
CAMPAIGN_ID = r"^[0-9]{8}T[0-9]{6}-[a-z]+-[0-9a-f]{6}$"
CANDIDATE, REFERENCE = "candidate", "reference"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]  # sha256
ArmName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.]{0,31}$")]
FolderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")]
Text = Annotated[str, StringConstraints(max_length=4000)]


class Arm(Strict):
    """One side of a campaign: a submission with methods dropped and hyperparameters set, as they were at the start."""

    word: Text  # as it was typed
    name: FolderName  # of the copy of its source, under sources/ARM/
    title: Text
    digest: Digest
    dropped: list[Text]
    settings: list[Text]
    methods: dict[str, bool]
    hparams: dict[str, Value]

    @property
    def label(self) -> str:
        """The side as it would be typed."""
        return " ".join(
            [self.word, *(f"--drop {name}" for name in self.dropped), *(f"--set {s}" for s in self.settings)]
        )


class ScheduledRun(Strict):
    """A run to come. The runs of a block (a pair of a race) stand side by side and are repeated together.

    `judge_holdout`: judged on the holdout split too. One run of an attempt is; what it gives decides nothing.
    """

    block: int = Field(ge=0, lt=MAX_SCHEDULE)
    arm: ArmName
    seed: int = Field(ge=0, lt=2**31)
    judge_holdout: bool = False


class Calibration(Strict):
    """What a task, a class and a machine are like: measured on the baseline, used by every race.

    Spreads are standard deviations: `loss_spread` between runs, nats per token; `clock_variation` between neighbouring
    runs of the same work, in logs of seconds, so that a slow drift of the machine does not count. `slope`: s, nats per
    e-fold of budget. `curvature_p`: how likely the budgets' mean losses lie so far off a line by chance.
    """

    schema_version: Literal[1] = 1
    task: str = Field(pattern=TASK_NAME)
    hardware_class: str
    provisional: bool  # not from `speedrun calibrate`
    source: Text  # the campaign, or the files, it was computed from
    measured: Text  # UTC date, ISO 8601
    submission: Digest | None
    core_digest: Digest | None  # this and the next two: None where provisional, for the reference runs do not say
    task_digest: Digest | None
    data_digest: Digest | None
    machine: Text
    machine_digest: Digest
    runs: int = Field(ge=2)
    loss_spread: float = Field(gt=0, lt=100)
    clock_variation: float = Field(ge=0, lt=100)
    slope: Slope
    curvature_p: float | None = Field(ge=0, le=1)
    run_seconds: float = Field(gt=0, lt=MOST_SECONDS)  # a run of the declared budget, on the clock
    total_seconds: float = Field(gt=0, lt=MOST_SECONDS)  # the same from launch to judged

    @property
    def log_ratio_spread(self) -> float:
        """Standard deviation of a pair's log-ratio at equal loss."""
        return log_ratio_spread(self.loss_spread, self.clock_variation, self.slope)

    @property
    def time_ratio_spread(self) -> float:
        """The same of a pair whose two losses are equal."""
        return log_ratio_spread(0.0, self.clock_variation, self.slope)


class CampaignPlan(Strict):
    """What the plans of all kinds of campaigns have in common."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=CAMPAIGN_ID)
    started: Text  # UTC, ISO 8601
    task: str = Field(pattern=TASK_NAME)
    task_source: Text  # the name of a task of the harness, or the path of another task file
    task_digest: Digest
    data_digest: Digest
    core_digest: Digest
    measurement_version: int | None  # None: the core differs from the one that frozen.toml pins
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


class DecidedCampaign(CampaignPlan):
    """A campaign with a verdict, and all that decides it."""

    target: float = Field(gt=0, lt=1000)  # nats per token
    target_provisional: bool
    deciding: RacePlan
    calibration: Calibration

    def _require_blocks(self, arms: set[str]) -> None:
        if self.arms.keys() != arms:
            raise ValueError(f"arms: must be {' and '.join(sorted(arms))}")
        whole = all({run.arm for run in block} == arms for block in self.blocks)
        if len(self.blocks) != self.deciding.sequence.maximum or not whole:
            raise ValueError("schedule: must have as many whole blocks as its last look says")


class RaceCampaign(DecidedCampaign):
    """A race: pairs of candidate and reference in the order A B B A."""

    kind: Literal["race"] = "race"
    as_baseline: bool = False  # the candidate is to be the next baseline; the reference is the present one
    comparison: bool = False  # an attempt against a record that did not reign: published, and never a record

    @model_validator(mode="after")
    def _is_a_race(self) -> RaceCampaign:
        self._require_blocks({CANDIDATE, REFERENCE})
        return self


class BaselineCampaign(DecidedCampaign):
    """The first record of a task and class, which has nothing to be raced against: does it reach the target?"""

    kind: Literal["baseline"] = "baseline"
    least_runs: int = Field(default=10, ge=1)  # judged runs that it takes at least

    @model_validator(mode="after")
    def _is_a_baseline(self) -> BaselineCampaign:
        self._require_blocks({CANDIDATE})
        return self


class AblationCampaign(DecidedCampaign):
    """A record with methods dropped (candidate) against itself (reference), in pairs A B B A: do the two differ?"""

    kind: Literal["ablation"] = "ablation"

    @model_validator(mode="after")
    def _is_an_ablation(self) -> AblationCampaign:
        self._require_blocks({CANDIDATE, REFERENCE})
        without, whole = self.arms[CANDIDATE], self.arms[REFERENCE]
        if without.digest != whole.digest or without.settings or whole.settings:
            raise ValueError("arms: an ablation changes nothing but the methods of one source")
        if not without.dropped or whole.dropped:
            raise ValueError("arms: the candidate drops methods, the reference none")
        return self


class CalibrationCampaign(CampaignPlan):
    """A calibration: the baseline at several multiples of its budget, each with its own full schedule."""

    kind: Literal["calibration"] = "calibration"
    multiples: dict[ArmName, float]  # arm: its budget over the declared one

    @model_validator(mode="after")
    def _is_a_calibration(self) -> CalibrationCampaign:
        if self.multiples.keys() != self.arms.keys():
            raise ValueError("multiples: must name the arms")
        if len(set(self.multiples.values())) < 2 or 1.0 not in self.multiples.values():
            raise ValueError("multiples: at least two are needed, 1 among them")
        return self


AnyCampaign = RaceCampaign | BaselineCampaign | AblationCampaign | CalibrationCampaign
