"""The protocol of a tuning: protocol.toml in the `tuning` folder of a submission, written before the first trial.

It names the knobs (declared hyperparameters, each with a scale and the distance between neighbours) and the stages.
Every value that a trial may get is checked against the range that the submission declares.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from harness.core.task import Strict, read_toml
from harness.errors import UserError, describe_validation
from harness.submission import Submission, Value

MAX_PROTOCOL_BYTES = 64 * 1024
FOLDER = "tuning"
PROTOCOL_FILE = "protocol.toml"
DIGITS = 3  # significant digits of a value that is tried

StageName = Literal["scout", "search", "finalists", "curves", "pairs", "checks", "confirm"]
STAGES: tuple[StageName, ...] = ("scout", "search", "finalists", "curves", "pairs", "checks", "confirm")
ABOUT_DECLARED: tuple[StageName, ...] = ("curves", "pairs", "checks", "confirm")  # worth nothing about another point


class Knob(Strict):
    """A hyperparameter on the scale on which it is varied.

    `step` is what lies between neighbours: a factor on the scales `log` (of x) and `complement` (of 1 - x, for betas),
    a difference on the scale `linear`. `low` and `high` bound the search. `values` lists values in their place.
    `bounded` says that the declared range ends where values end to make sense (a share of 1): there a curve may end and
    the best point of a search lie.
    """

    scale: Literal["log", "complement", "linear"] = "log"
    step: float | None = Field(default=None, gt=0)
    low: float | None = None
    high: float | None = None
    values: list[Value] | None = Field(default=None, min_length=2)
    bounded: bool = False

    @model_validator(mode="after")
    def _one_way_to_vary(self) -> Knob:
        if (self.low is None) != (self.high is None):
            raise ValueError("give both low and high, or neither")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        if self.step is None and self.values is None and self.low is None:
            raise ValueError("give step, values, or low and high")
        if self.values is not None and self.step is not None:
            raise ValueError("give either step or values")
        if self.step is not None and self.scale != "linear" and self.step <= 1:
            raise ValueError("step is a factor on this scale and must be above 1")
        return self

    def place(self, value: float) -> float:
        """Where a value lies on the knob's scale, in steps. Raises ValueError where the scale has no such place."""
        assert self.step is not None
        return self._on_scale(value) / (self.step if self.scale == "linear" else math.log(self.step))

    def share(self, value: float) -> float:
        """Where in the box a value lies on the knob's scale: 0 at `low`, 1 at `high`."""
        assert self.low is not None and self.high is not None
        low, high = self._on_scale(self.low), self._on_scale(self.high)
        return (self._on_scale(value) - low) / (high - low)

    def _on_scale(self, value: float) -> float:
        if self.scale == "linear":
            return value
        return math.log(1 - value if self.scale == "complement" else value)

    def value_at(self, place: float) -> float:
        """The value at a place on the scale, rounded as all values that are tried."""
        assert self.step is not None
        if self.scale == "linear":
            return rounded(place * self.step)
        return rounded(self.step**place, complement=self.scale == "complement")


class ScoutStage(Strict):
    """Quasi-random trials at a share of the budget."""

    trials: int = Field(gt=0)
    budget: float = Field(gt=0, le=1)
    knobs: list[str] = Field(min_length=1)


class SearchStage(Strict):
    """Trials at the full budget: given starts, the best scouts, then a multivariate TPE sampler."""

    trials: int = Field(gt=0)
    from_scouts: int = Field(ge=0)
    knobs: list[str] = Field(min_length=1)
    starts: list[dict[str, Value]] = []


class FinalistStage(Strict):
    """The best points of the search and the declared defaults, side by side on further seeds."""

    points: int = Field(gt=0)
    seeds: int = Field(gt=0)


class CurveStage(Strict):
    """One knob moved at a time, the others as declared."""

    knobs: list[str] = Field(min_length=1)
    seeds: int = Field(gt=0)


class PairStage(Strict):
    """3 x 3 grids of two knobs."""

    pairs: list[tuple[str, str]] = Field(min_length=1)
    seeds: int = Field(gt=0)


class CheckStage(Strict):
    """Up and down by one step, or every listed value, of knobs that were not searched."""

    knobs: list[str] = Field(min_length=1)
    seeds: int = Field(gt=0)


class ConfirmStage(Strict):
    """The declared defaults on seeds that no other point has seen."""

    seeds: int = Field(ge=2)


class Stages(Strict):
    """The stages that the protocol has, in the order in which they run."""

    scout: ScoutStage | None = None
    search: SearchStage | None = None
    finalists: FinalistStage | None = None
    curves: CurveStage | None = None
    pairs: PairStage | None = None
    checks: CheckStage | None = None
    confirm: ConfirmStage | None = None

    @model_validator(mode="after")
    def _each_has_what_it_builds_on(self) -> Stages:
        if self.search and self.search.from_scouts and not self.scout:
            raise ValueError("search.from_scouts needs a stage scout")
        if self.finalists and not self.search:
            raise ValueError("finalists needs a stage search")
        return self

    @property
    def names(self) -> list[StageName]:
        return [name for name in STAGES if getattr(self, name) is not None]


class Budget(Strict):
    """What is held fixed: tokens, `steps` times the hyperparameters in `tokens_per_step`.

    `tokens` of a full trial; without it those of the declared point. It keeps a tuning one tuning when afterwards
    `speedrun budget` declares fewer steps. `seconds` is what one trial of the full budget takes on one core with
    set-up and judging, for the first estimate.
    """

    steps: str = "steps"
    tokens_per_step: list[str] = []
    tokens: int | None = Field(default=None, gt=0)
    seconds: float = Field(gt=0)


class Protocol(Strict):
    """protocol.toml. All seeds of trials are drawn from `seed`."""

    seed: int = Field(ge=0, lt=2**63)
    budget: Budget
    knobs: dict[str, Knob] = Field(min_length=1)
    stages: Stages


def load_protocol(submission: Submission) -> Protocol:
    """Reads and validates the protocol of a submission. Raises UserError that names the file and the field."""
    path = protocol_path(submission.folder)
    if not path.exists():
        raise UserError(f"{path}: no such file", "write one; baselines/adamw/gcide/tuning/protocol.toml is an example")
    table, _ = read_toml(path, MAX_PROTOCOL_BYTES)
    try:
        protocol = Protocol(**table)
    except ValidationError as error:
        raise describe_validation(error, path, "correct the named fields; docs/tuning.md explains them") from None
    _Check(path, submission, protocol).all()
    return protocol


def protocol_path(folder: Path) -> Path:
    """Where the protocol of a submission lies."""
    return folder / FOLDER / PROTOCOL_FILE


def rounded(value: float, complement: bool = False) -> float:
    """A value at three significant digits; with `complement` those of 1 - x, whose value the argument then is."""
    short = float(f"{value:.{DIGITS}g}")
    return round(1 - short, 12) if complement else short


class _Check:
    """Compares a protocol with the submission it is for."""

    def __init__(self, path: Path, submission: Submission, protocol: Protocol) -> None:
        self._path = path
        self._manifest = f"{submission.folder}/submission.toml"
        self._declared = submission.manifest.hparams
        self._protocol = protocol

    def all(self) -> None:
        """Raises UserError for the first thing that is wrong."""
        budget, stages = self._protocol.budget, self._protocol.stages
        for name in (budget.steps, *budget.tokens_per_step):
            if not isinstance(self._default("budget", name), int):
                raise UserError(f"{self._path}: budget: {name} is not a whole number", "name steps, batch and the like")
        for name, knob in self._protocol.knobs.items():
            self._knob(name, knob)
        for sampled in (stages.scout, stages.search):
            for name in sampled.knobs if sampled else []:
                self._searched(name)
        if stages.search:
            for start in stages.search.starts:
                self._start(start, stages.search.knobs)
        varied = list(itertools.chain(*(stages.pairs.pairs if stages.pairs else [])))
        for name in varied:
            self._needs(name, self._known("stages.pairs", name).step is not None, "step")
        for name in [*(stages.curves.knobs if stages.curves else []), *(stages.checks.knobs if stages.checks else [])]:
            knob = self._known("stages.curves or stages.checks", name)
            self._needs(name, knob.step is not None or knob.values is not None, "step or values")

    def _knob(self, name: str, knob: Knob) -> None:
        default = self._default("knobs", name)
        for value in (knob.low, knob.high, *(knob.values or [])):
            if value is not None:
                whole = isinstance(default, int) and isinstance(value, float) and value.is_integer()
                self._value(f"knobs.{name}", name, int(value) if whole else value)
        if knob.values is None and isinstance(default, bool | str):
            self._needs(name, False, "values")
        if knob.scale == "log" and knob.low is not None and knob.low <= 0:
            raise UserError(f"{self._path}: knobs.{name}: low must be above 0 on a log scale", 'or scale = "linear"')
        if knob.scale == "complement" and knob.high is not None and knob.high >= 1:
            raise UserError(f"{self._path}: knobs.{name}: high must be below 1 on this scale", "use 0.999 or less")

    def _start(self, start: dict[str, Value], knobs: list[str]) -> None:
        if set(start) != set(knobs):
            odd = ", ".join(sorted(set(start) ^ set(knobs)))
            message = f"{self._path}: stages.search.starts: gives other knobs than are searched (differing: {odd})"
            raise UserError(message, "give every start a value for each of stages.search.knobs")
        for name, value in start.items():
            self._value("stages.search.starts", name, value)
            knob = self._protocol.knobs[name]
            if knob.low is not None and knob.high is not None and not knob.low <= float(value) <= knob.high:
                message = f"{self._path}: stages.search.starts: {name} {value} is outside [{knob.low}, {knob.high}]"
                raise UserError(message, f"widen [knobs.{name}], or leave the start out")

    def _searched(self, name: str) -> None:
        knob = self._known("stages", name)
        self._needs(name, knob.values is not None or knob.low is not None, "low and high, or values")

    def _known(self, place: str, name: str) -> Knob:
        if name not in self._protocol.knobs:
            raise UserError(f"{self._path}: {place}: no [knobs.{name}]", f"add it, or use {self._list('knobs')}")
        return self._protocol.knobs[name]

    def _needs(self, name: str, given: bool, what: str) -> None:
        if not given:
            raise UserError(f"{self._path}: knobs.{name}: {what} is missing", f"add {what} to [knobs.{name}]")

    def _default(self, place: str, name: str) -> Any:
        if name not in self._declared:
            message = f"{self._path}: {place}: {name} is not declared in {self._manifest}"
            raise UserError(message, f"declare [hparams.{name}], or use one of {', '.join(sorted(self._declared))}")
        return self._declared[name].default

    def _value(self, place: str, name: str, value: Value) -> None:
        self._default(place, name)
        problem = self._declared[name].problem_with(value)
        if problem:
            raise UserError(f"{self._path}: {place}: {name} {problem}", f"see [hparams.{name}] in {self._manifest}")

    def _list(self, field: str) -> str:
        return ", ".join(sorted(getattr(self._protocol, field)))
